import itertools

import pandas as pd
import pytest

from ftbench.base.errors import ProfileError, RunDirectoryError
from ftbench.report.document import Document, build
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render.step_summary import LIMIT_BYTES, VARIABLE, append, render
from tests.factories import (
    cell,
    environment,
    measurement,
    preparation,
    profile,
    record,
    run_warning,
)

MIB = 2**20


def document(*sections, title="ftbench: test"):
    return Document(title, sections, pd.DataFrame(), pd.DataFrame())


def cells(count, text="1"):
    return Table("Cells", ("length", "total"), ((text, "2 s"),) * count, (True, True))


def warnings(count, text="busy"):
    rows = (("length 16", "others busy", text),) * count
    return Table("Warnings", ("cell", "what", "said"), rows, (False,) * 3)


def test_a_real_report():
    env = environment()
    warned = record(measurement=measurement(warnings=(run_warning("the <b>machine</b> was busy"),)))
    of = build([warned], profile(), preparation(), {env.environment_id: env})
    text = render(of)
    assert text.startswith("\n# ftbench: test\n\n## What was found\n\n- ")
    assert "| length | batch | training examples |" in text
    assert (
        "\n- length 16, batch 4, training examples 16: others busy: the &lt;b&gt;machine&lt;/b&gt; was busy"
        in text
    )
    assert "Left out" not in text
    assert "How to read this" not in text


def test_what_is_said_of_buying_is_there_without_its_tables():
    text = render(document(Section("What to buy", ("More examples.",), (cells(3),))))
    assert "- More examples." in text
    assert "|" not in text


@pytest.mark.parametrize("text", ["1" * 40, "€" * 900, "|" * 400])
def test_a_table_is_cut_to_what_github_shows(text):
    count = 2 * MIB // len(text)
    made = render(document(Section("Cells", (), (cells(count, text),))))
    assert len(made.encode()) <= LIMIT_BYTES < MIB
    assert len(made.encode()) > LIMIT_BYTES * 0.99  # and no sooner
    lines = made.strip().split("\n")
    kept = sum(line.startswith("| ") for line in lines) - 2
    assert lines[-1].startswith(f"Left out: {count - kept} of {count} rows of 'Cells'. GitHub")
    assert all(line.endswith(" |") for line in lines if line.startswith("|"))  # whole rows only


def test_a_small_table_is_not_cut():
    made = render(document(Section("Cells", (), (cells(1000),))))
    assert made.count("\n| 1 |") == 1000
    assert "Left out" not in made


def test_many_long_warnings_leave_the_cells_alone():
    made = render(
        document(
            Section("Cells", (), (cells(100),)),
            Section("Warnings", ("5000 runs.",), (warnings(5000, "x" * 10_000),)),
        )
    )
    assert made.count("\n| 1 |") == 100
    assert len(made.encode()) <= LIMIT_BYTES
    assert "items of 'Warnings'" in made
    assert "x" * 1001 not in made


def test_a_heading_without_room_for_anything_under_it_is_left_out():
    found = document(Section("What was found", ("x" * 900,)), Section("Cells", (), (cells(9),)))
    for limit in range(1500, 2500, 10):
        lines = render(found, limit).split("\n\n")
        under = [after for line, after in itertools.pairwise(lines) if line == "## Cells"]
        assert all(after.startswith("|") for after in under)


def test_a_text_cannot_break_out():
    hostile = "a\n# heading\n<script>|[x](javascript:y)"
    section = Section("What was found", (hostile,), (Table("t", ("a",), ((hostile,),), (False,)),))
    lines = render(document(section, title=hostile)).split("\n")
    headings = [line for line in lines if line.startswith("#")]
    assert headings[1:] == ["## What was found", "### t"]
    assert not any("<" in line or "](" in line for line in lines)


# The file


def test_it_is_appended(tmp_path):
    file = tmp_path / "summary.md"
    file.write_text("before")
    assert append(document(Section("Cells", (), (cells(1),))), {VARIABLE: str(file)}) == file
    text = file.read_text()
    assert text.startswith("before\n# ftbench: test\n")
    append(document(), {VARIABLE: str(file)})
    assert file.read_text().count("# ftbench: test") == 2


def test_what_other_commands_wrote_counts(tmp_path):
    file = tmp_path / "summary.md"
    file.write_text("x" * (LIMIT_BYTES - 10_000))
    append(document(Section("Cells", (), (cells(5000),))), {VARIABLE: str(file)})
    assert LIMIT_BYTES - 1000 < file.stat().st_size <= LIMIT_BYTES


def test_a_full_file_is_left_as_it_is(tmp_path):
    file = tmp_path / "summary.md"
    file.write_text("x" * LIMIT_BYTES)
    with pytest.raises(RunDirectoryError, match="no room left"):
        append(document(), {VARIABLE: str(file)})
    assert file.stat().st_size == LIMIT_BYTES


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}])
def test_without_the_variable_it_says_what_to_set(environ):
    with pytest.raises(ProfileError, match="GITHUB_STEP_SUMMARY is not set") as error:
        append(document(), environ)
    assert "GITHUB_STEP_SUMMARY=summary.md ftbench report" in str(error.value)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        append(document(), {VARIABLE: str(tmp_path)})


def test_cells_of_every_length_stay_within_the_limit():
    for limit in range(5000, 9000, 97):
        made = render(document(Section("Cells", ("a sentence",), (cells(300, "length"),))), limit)
        assert len(made.encode()) <= limit


def test_one_cell():
    assert "| 16 |" in render(build([record(cell())], profile(), preparation(), {}))
