"""Mutmut in a folder made for it: `python mutate.py names`, `run [NAME ...]` or `results`.

Run as a file, since mutmut imports the copy's package `tests`, which must not be this one. Three things are set
before mutmut starts: sentences are not mutated, since no test here holds them; hypothesis neither shrinks a
failure nor draws other examples in another run; and the fastest tests come first, since one failure is enough.
"""

import json
import sys
from pathlib import Path

import libcst
from hypothesis import Phase, settings
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation, mutators
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils import file_utils
from mutmut.utils.format_utils import orig_function_and_class_names_from_key


def _without_sentences(mutate):
    """Return the operator of strings that leaves alone every string with a space in it."""
    return lambda node: () if " " in getattr(node, "value", "") else mutate(node)


def _fastest_first(arguments_of):
    """Return pytest's arguments with the tests sorted by how long they took unmutated."""

    def arguments(runner, tests):
        seconds = state().duration_by_test
        return arguments_of(runner, sorted(tests, key=lambda test: (seconds.get(test, 0.0), test)))

    return arguments


def _names():
    """Copy and mutate the sources, and print the names of all mutants."""
    Path("mutants").mkdir(exist_ok=True)
    file_utils.copy_src_dir()
    file_utils.copy_also_copy_files()
    mutmut.create_mutants(1)
    names = [name for _, found in _mutated() for name in found.exit_code_by_key]
    Path("names.json").write_text(json.dumps(names))


def _results():
    """Write what became of each mutant: its name, exit code, file, first line of its function, diff."""
    results = []
    for path, found in _mutated():
        lines = _first_lines(path.read_text())
        for name, code in found.exit_code_by_key.items():
            function, in_class = orig_function_and_class_names_from_key(name)
            line = lines.get((in_class, function), 1)
            diff = get_diff_for_mutant(name, path=path) if code in (0, 33) else ""
            results.append(
                {"name": name, "code": code, "file": str(path), "line": line, "diff": diff}
            )
    Path("results.json").write_text(json.dumps(results))


def _mutated():
    for path in sorted(file_utils.walk_mutatable_files()):
        found = SourceFileMutationData(path=path)
        found.load()
        yield path, found


def _first_lines(source):
    """Return {(class or None, function): the first line of it}."""
    lines = {}
    wrapper = libcst.metadata.MetadataWrapper(libcst.parse_module(source))
    places = wrapper.resolve(libcst.metadata.PositionProvider)
    for top in wrapper.module.body:
        inside = isinstance(top, libcst.ClassDef)
        for node in top.body.body if inside else (top,):
            if isinstance(node, libcst.FunctionDef):
                lines[top.name.value if inside else None, node.name.value] = places[node].start.line
    return lines


if __name__ == "__main__":
    settings.register_profile(
        "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
    )
    settings.load_profile("mutants")
    file_mutation.mutation_operators[:] = [
        (kind, _without_sentences(operator) if operator is mutators.operator_string else operator)
        for kind, operator in mutators.mutation_operators
    ]
    ordered = _fastest_first(PytestRunner._pytest_args_regular_run)
    PytestRunner._pytest_args_regular_run = ordered
    {"names": _names, "results": _results}.get(sys.argv[1], mutmut.cli)()
