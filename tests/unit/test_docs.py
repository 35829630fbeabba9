"""What the documents name is there: links, files, commands, sessions."""

import ast
import importlib
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter

import pytest
import typer

from ftbench.cli import app
from ftbench.plan.profile_file import load_profile, parse_selection, profile_names
from tests.documents import DOCUMENTS, FENCE, ROOT, anchors, links, name_of, prose
from tests.site.reference import PAGES

MOST_WORDS = 1500  # of the README, as `wc -w` counts them
EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def leads_somewhere(document, link):
    name, _, anchor = link.partition("#")
    file = document.parent / name if name else document
    if not file.exists():
        return False
    return not anchor or anchor in anchors(file.read_text())


def ftbench_lines(text):
    """Return the commands in the blocks of code, each as the list of its arguments."""
    found = []
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if "ftbench" not in line or line.startswith("#"):
                continue
            for command in re.split(r"&&|;|\(|\)(?=\s|;|$)", line):
                command = command.strip().removeprefix("$ ")
                if command.startswith("ftbench "):
                    words = shlex.split(command, comments=True)[1:]
                    found.append(list(itertools.takewhile(lambda word: word != ">", words)))
    return found


def inline_commands(text):
    spans = re.findall(r"`(ftbench [^`]+)`", prose(text))
    return [shlex.split(span)[1:] for span in spans]


def parse(arguments):
    """Return the context of a command line, as the program would parse it; raises what it would."""
    command, name = typer.main.get_command(app), "ftbench"
    context = None
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(arguments), parent=context)
        name, command, arguments = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
    return command.make_context(name, list(arguments), parent=context)


@EVERY_DOCUMENT
def test_links_lead_somewhere(document):
    text = document.read_text()
    assert [link for link in links(text) if not leads_somewhere(document, link)] == []


@pytest.mark.parametrize(
    ("link", "leads"),
    [
        ("docs/gate.md", True),
        ("docs/none.md", False),
        ("docs/gate.md#in-ci", True),
        ("docs/gate.md#in-cj", False),
        ("#needs-and-limits", True),
        ("#none", False),
    ],
)
def test_a_link_is_a_file_and_a_heading_of_it(link, leads):
    assert leads_somewhere(ROOT / "README.md", link) is leads


def test_links_of_pictures_are_seen():
    text = '![a](b.png) <img src="c.png" width="1"> [d](https://e) [f](g.md#h)\n```\n[i](j)\n```\n'
    assert sorted(links(text)) == ["b.png", "c.png", "g.md#h"]


@EVERY_DOCUMENT
def test_files_that_are_named_exist(document):
    named = re.findall(
        r"`((?:bench|tests|profiles|reports|examples|docs)/[\w/.-]+\.\w+)`", document.read_text()
    )
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_architecture_names_files_of_the_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([a-z_]+/[\w/]+\.py)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / "bench" / "ftbench" / name).is_file()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def linked_from(document):
    """Return the files that a document links to."""
    found = links(document.read_text())
    return {(document.parent / link.partition("#")[0]).resolve() for link in found}


def test_the_readme_leads_to_every_document():
    index = ROOT / "docs" / "index.md"
    assert {index, ROOT / "docs" / "tutorial.md"} <= linked_from(ROOT / "README.md")
    listed = linked_from(index) | {index, ROOT / "README.md"}
    assert [name_of(document) for document in DOCUMENTS if document not in listed] == []


def test_every_page_has_its_place_on_the_site():
    def places(nav):
        for entry in nav:
            for inside in entry.values():
                yield from [inside] if isinstance(inside, str) else places(inside)

    config = tomllib.loads((ROOT / "zensical.toml").read_text())
    found = list(places(config["project"]["nav"]))
    wanted = {*map(name_of, DOCUMENTS), "CHANGELOG.md", *(f"reference/{name}.md" for name in PAGES)}
    assert sorted(found) == sorted(wanted)


@EVERY_DOCUMENT
def test_commands_are_parsed_by_the_command_line(document):
    for arguments in ftbench_lines(document.read_text()):
        parse(arguments)


@EVERY_DOCUMENT
def test_commands_within_a_sentence_exist(document):
    wrong = {}
    for arguments in inline_commands(document.read_text()):
        try:
            parse(arguments)
        except Exception as error:
            # In a sentence the profile may be left out, or all but the name; --help exits.
            if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError", "Exit"):
                wrong[" ".join(arguments)] = str(error)
    assert wrong == {}


@EVERY_DOCUMENT
def test_commands_name_profiles_keys_and_values_that_exist(document):
    for arguments in ftbench_lines(document.read_text()):
        given = parse(arguments).params
        if given.get("profile") not in profile_names():
            continue
        load_profile(given["profile"], given.get("overrides") or given.get("set_") or ())
        for option in ("only", "cell"):
            if given.get(option):
                parse_selection(given[option], option=f"--{option}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ftbench predikt quick", "No such command"),
        ("ftbench predict quick --card t4", "No such option"),
        ("ftbench predict", "Missing parameter"),
        ("ftbench baseline wrte quick", "No such command"),
    ],
)
def test_a_command_that_is_wrong_is_seen(line, message):
    (arguments,) = ftbench_lines(f"text\n```sh\n{line}   # comment\n```\n")
    with pytest.raises(Exception, match=message):
        parse(arguments)


@EVERY_DOCUMENT
def test_sessions_exist(document):
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    sessions = {
        each.name.replace("_", "-")
        for each in tree.body
        if isinstance(each, ast.FunctionDef)
        and any("session" in ast.unparse(d) for d in each.decorator_list)
    }
    assert {"bench", "tests"} <= sessions
    assert set(re.findall(r"nox -s ([\w-]+)", document.read_text())) <= sessions


@EVERY_DOCUMENT
def test_programs_import_what_there_is(document):
    programs = [
        code for language, code in FENCE.findall(document.read_text()) if language == "python"
    ]
    for node in itertools.chain.from_iterable(ast.walk(ast.parse(code)) for code in programs):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [each.name for each in node.names if not hasattr(module, each.name)] == []


def test_every_decision_is_in_the_index_with_its_date_and_status():
    text = (ROOT / "docs" / "decisions.md").read_text()
    rows = re.findall(r"^\| \[(.+?)\]\(#[\w-]+\) \| (\S+) \| (.+) \|$", text, re.MULTILINE)
    entries = re.findall(r"^### (.+)\n\n\*(\d{4}-\d\d-\d\d) · ([^*]+)\*", text, re.MULTILINE)
    assert len(rows) == text.count("\n### ") > 60
    told = [(title, date, " ".join(status.split()).rstrip(".")) for title, date, status in entries]
    assert rows == told


def test_the_cases_in_the_table_of_trust_are_there():
    rows = re.findall(
        r"^\| .* \| ([\d,]+) \| `(tests/\S+)` \|",
        (ROOT / "docs/trust.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) > 10
    files = [file for _, file in rows]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    cases = Counter(line.partition("::")[0] for line in found.stdout.splitlines())
    assert {file: cases[file] for n, file in rows if cases[file] < int(n.replace(",", ""))} == {}


def test_the_loop_in_the_documents_is_the_example_s():
    (shown,) = (
        block for _, block in FENCE.findall((ROOT / "docs" / "prediction.md").read_text())
        if "GPT(" in block
    )  # fmt: skip
    assert shown in (ROOT / "examples" / "gpt.py").read_text()


def test_the_task_of_the_documents_learns():
    """The code of docs/tasks.md: its labels, a model's loss, and scores against figures made by hand."""
    import numpy as np
    import pyarrow as pa
    import torch
    from transformers import AutoConfig

    from tests.factories import data_source

    (code,) = (
        text
        for kind, text in FENCE.findall((ROOT / "docs/tasks.md").read_text())
        if kind == "python"
    )
    found: dict[str, object] = {}
    exec(compile(code, "docs/tasks.md", "exec"), found)
    of = found["TextTagging"](data_source())
    texts = pa.chunked_array([["comedy", "comedy drama", "drama"]])
    labels = of.read_labels(texts, texts, names=None, column="genres")
    assert labels.names == ("comedy", "drama")
    assert labels.train.to_pylist() == [[1, 0], [1, 1], [0, 1]]
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    config = AutoConfig.for_model("bert", **small, **of.config_fields(labels.names))
    torch.manual_seed(0)
    model = of.auto_model.from_config(config)
    wanted = torch.tensor(labels.train.to_pylist())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(40):
        loss = model(input_ids=torch.tensor([[1, 2], [3, 4], [5, 6]]), labels=wanted).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    outputs, references = np.array([[2.0, -1], [1, 1], [1, 1]]), wanted.numpy()
    (score,) = of.answer(outputs, references, references)
    assert (score.value, score.guess) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
