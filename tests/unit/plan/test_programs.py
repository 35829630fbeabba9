"""Programs: which texts name one, what its arguments are, and what is said of those that cannot be."""

import json

import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan import programs as module
from ftbench.plan.programs import (
    Program,
    ProgramCell,
    is_program,
    parse_argument,
    parse_program,
    program_grid,
    require_arguments,
)

PROGRAM = Program(file="train.py", factory="make_step")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "train.py").write_text("def make_step(device): ...\ndef other(device): ...\n")
    return tmp_path


def refusal(call, *arguments, **options):
    with pytest.raises(ProfileError) as raised:
        call(*arguments, **options)
    return raised.value


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("train.py:make_step", True),
        ("a/b/train.py:f", True),
        ("train.py", True),
        ("train.py:", True),
        ("quick", False),
        ("profiles/quick.toml", False),
        ("results.json", False),
        ("train.pyc:f", False),
    ],
)
def test_a_subject_is_a_program_by_its_suffix(text, is_one):
    assert is_program(text) is is_one


def test_a_program_is_named_from_the_current_folder_on(folder):
    for text in ("train.py:make_step", "./train.py:make_step", f"{folder}/train.py:make_step"):
        assert parse_program(text) == PROGRAM
    assert PROGRAM.name == "train.py:make_step"
    assert parse_program("sub/../train.py:make_step") == PROGRAM


@pytest.mark.parametrize(
    ("file", "dotted"),
    [
        ("train.py", "train.make_step"),
        ("loops/gpt.py", "loops.gpt.make_step"),
        ("../gpt.py", "gpt.make_step"),
    ],
)
def test_the_name_of_a_file_for_it(file, dotted):
    assert Program(file=file, factory="make_step").dotted == dotted


def test_a_file_that_is_not_there_has_a_nearest_name(folder):
    error = refusal(parse_program, "trian.py:make_step")
    assert (error.what, error.where, error.nearest) == ("no such file", "trian.py", "train.py")


@pytest.mark.parametrize("text", ["train.py", "train.py:", "train.py:a-b", "train.py:a:b"])
def test_a_factory_must_be_named(folder, text):
    error = refusal(parse_program, text)
    assert (error.got, error.expected) == (text, "FILE.py:FACTORY")
    assert error.hint == "functions of this file: make_step, other"


def test_what_is_no_program_is_refused():
    assert refusal(parse_program, "quick").expected == "FILE.py:FACTORY"


def test_a_file_that_is_not_python_has_no_functions(folder):
    (folder / "broken.py").write_text("def (")
    assert refusal(parse_program, "broken.py").hint is None


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("8", (8,)),
        ("[512, 1024]", (512, 1024)),
        ("1e-4", (1e-4,)),
        ("true", (True,)),
        ("True", (True,)),
        ("None", (None,)),
        ("[True, None]", (True, None)),
        ("[true, false]", (True, False)),
        ("bf16", ("bf16",)),
        ('"8"', ("8",)),
        ("'a b'", ("a b",)),
        ("(0.9, 0.95)", ((0.9, 0.95),)),
        ("[[1, 2], [3]]", ([1, 2], [3])),
        ("{a = 1}", ({"a": 1},)),
        ("{'a': 1}", ({"a": 1},)),
        ("-3", (-3,)),
        ("a=b", ("a=b",)),
    ],
)
def test_a_value_is_a_literal_of_toml_or_python(written, values):
    assert parse_argument(f" batch = {written}") == ("batch", values)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("batch", "not an argument"),
        ("=8", "not an argument"),
        ("a.b=8", "not an argument"),
        ("batch=", "not a TOML value"),
        ("batch=[1", "not a TOML value"),
        ("batch=[]", "an axis without values"),
        ("batch=[8, 8]", "the same value twice"),
        ("batch=2026-01-01", "not a value that an argument can have"),
        ("batch={1, 2}", "not a value that an argument can have"),
    ],
)
def test_what_is_no_argument_is_refused(text, what):
    error = refusal(parse_argument, text)
    assert error.what == what
    assert error.where.startswith("--arg")


def test_words_in_a_list_need_quotes():
    error = refusal(parse_argument, "attention=[eager, sdpa]")
    assert error.hint == 'texts in a list have quotes: ["a", "b"]'
    assert parse_argument("attention=['eager', \"sdpa\"]") == ("attention", ("eager", "sdpa"))


def test_a_grid_has_all_combinations_the_last_argument_fastest():
    grid = program_grid(PROGRAM, ["batch=[8, 16]", "name=gpt", "length=[512, 1024]"])
    assert grid.axis_names == ("batch", "name", "length")
    assert [tuple(cell.values.values()) for cell in grid.cells] == [
        (8, "gpt", 512), (8, "gpt", 1024), (16, "gpt", 512), (16, "gpt", 1024)
    ]  # fmt: skip
    assert len({cell.cell_id for cell in grid.cells}) == 4
    assert grid.cells[0].name == "train.py:make_step(batch=8, name='gpt', length=512)"


def test_without_arguments_there_is_one_cell():
    (cell,) = program_grid(PROGRAM, []).cells
    assert cell.name == "train.py:make_step()"
    assert cell.values == {}


def test_an_argument_twice_and_a_huge_grid_are_refused(monkeypatch):
    assert refusal(program_grid, PROGRAM, ["a=1", "a=2"]).where == "--arg a"
    monkeypatch.setattr(module, "MOST_CELLS", 3)
    assert refusal(program_grid, PROGRAM, ["a=[1, 2]", "b=[1, 2]"]).got == "4"


def test_identity_is_of_program_arguments_and_steps():
    def cell_id(*assignments, factory="make_step", steps=None):
        program = Program(file="train.py", factory=factory)
        return program_grid(program, assignments, steps).cells[0].cell_id

    first = cell_id("a=1", "b=2")
    assert first == cell_id("b=2", "a=1")
    others = [cell_id("a=1"), cell_id("a=1", "b='2'"), cell_id("a=1", "b=2", steps=5)]
    others.append(cell_id("a=1", "b=2", factory="other"))
    assert len({first, *others}) == 5


def test_cells_go_through_json():
    (cell,) = program_grid(PROGRAM, ["a=(1, 2)"], 4).cells
    assert ProgramCell.model_validate(json.loads(cell.model_dump_json())) == cell
    assert cell.value("a") == "[1, 2]"
    assert cell.value("b") is None


def test_a_part_of_a_grid():
    grid = program_grid(PROGRAM, ["batch=[8, 16]", "length=[512, 1024]"])
    assert [cell.values["length"] for cell in grid.only({"batch": 16}).cells] == [512, 1024]
    assert len(grid.only({"batch": 16, "length": 512}).cells) == 1
    assert grid.only({}) == grid
    assert refusal(grid.only, {"batch": 9}).expected == "one of 8, 16"
    error = refusal(grid.only, {"bath": 8}, option="--cell")
    assert (error.where, error.nearest) == ("--cell bath", "batch")


def test_a_setting_s_name_is_no_setting():
    """`seed` is an argument like another: 42 is no default of it."""
    grid = program_grid(PROGRAM, ["seed=[41, 42]"])
    assert [cell.values["seed"] for cell in grid.only({"seed": 42}).cells] == [42]


def test_arguments_are_compared_with_those_of_the_factory():
    require_arguments(PROGRAM, ["batch"], ["batch", "width"], ["batch"])
    error = refusal(require_arguments, PROGRAM, ["bacth"], ["batch"], [])
    assert (error.where, error.expected, error.nearest) == ("--arg bacth", "one of batch", "batch")
    assert refusal(require_arguments, PROGRAM, ["a"], [], []).expected == "no arguments"
    error = refusal(require_arguments, PROGRAM, ["width"], ["batch", "width"], ["batch"])
    assert (error.got, error.expected) == ("width", "--arg batch=...")


def test_numbers_of_processes_are_the_first_axis():
    program = Program(file="train.py", factory="make_step")
    grid = program_grid(program, ["batch=[4, 8]"], num_processes=(1, 8))
    assert grid.axis_names == ("num_processes", "batch")
    assert [(cell.num_processes, cell.values["batch"]) for cell in grid.cells] == [
        (1, 4),
        (1, 8),
        (8, 4),
        (8, 8),
    ]
    assert [cell.value("num_processes") for cell in grid.cells] == [1, 1, 8, 8]
    assert len({cell.cell_id for cell in grid.cells}) == 4
    assert grid.only({"num_processes": 8}).cells == grid.cells[2:]


def test_one_process_of_a_group_is_not_a_process_alone():
    program = Program(file="train.py", factory="make_step")
    alone, in_group = program_grid(program, []), program_grid(program, [], num_processes=(1,))
    assert alone.cells[0].cell_id != in_group.cells[0].cell_id
