"""A comparison as tables: rows add up to what they are told to be of."""

import dataclasses
import io

from rich.console import Console

from ftbench.base.units import MIB
from ftbench.records.prediction import Predictions
from ftbench.report.commands.check_snapshot import MOST_ROWS, comparison_json, lines, tables
from ftbench.report.render.terminal import show_table
from tests.simulated_snapshot import Act, record
from tests.unit.snapshot.made import acts, changed, compared, predicted, run


def _table(found, columns):
    (table,) = [one for one in tables(found) if one.columns[: len(columns)] == columns]
    return table


def test_an_agreement_has_the_figures_only():
    found = compared(acts(run(4)))
    assert [table.columns[0] for table in tables(found)] == ["figure"]
    assert not found.differences
    assert len(list(lines(found))) == 2


def test_each_difference_has_a_row_until_there_are_too_many():
    def many(act):
        if act.frees or act.name[0] != "kept":
            return [act]
        place = act.name[1] * 12 + act.name[2]
        return [act, Act(("x", *act.name), MIB + 512 * place, 0, f"/x/hook.py:{place}")]

    found = compared(changed(acts(run(3)), many))
    assert len(found.differences) == 36
    table = _table(found, ("difference", "number"))
    assert len(table.rows) == MOST_ROWS + 1
    assert table.rows[-1][1] == str(36 - MOST_ROWS)
    by_line = _table(found, ("line", "snapshot"))
    assert by_line.rows[-2][0] == "all other lines"
    assert by_line.rows[-1][0] == "all"


def test_a_row_has_the_size_the_line_and_the_part():
    def upcast(act):
        wider = act.name[0] == "kept" and act.name[-1] == 5 and not act.frees
        return [dataclasses.replace(act, nbytes=4 * MIB) if wider else act]

    found = compared(changed(acts(run(3)), upcast))
    (row,) = _table(found, ("difference", "number")).rows
    assert row[1:4] == ("3", "4.0 MiB", "1.4 MiB")
    assert row[5].startswith("/home/user/project/model.py:21")
    assert row[6].startswith("activations, layer.*, addmm")


def test_a_narrow_terminal_shows_the_line():
    def keeps(act):
        if act.frees or act.name[0] != "kept" or act.name[-1] != 5:
            return [act]
        return [act, Act(("x", *act.name), MIB, 0, "/home/user/project/training/hook.py:77")]

    found = compared(changed(acts(run(3)), keeps))
    shown = io.StringIO()
    show_table(Console(width=80, file=shown), _table(found, ("difference", "number")))
    assert "hook.py:77" in shown.getvalue()
    assert "+3.0 MiB" in shown.getvalue()


def test_what_is_known_of_the_recording_is_told():
    recorder = record(acts(run(6)))
    recorder.keep_last(300)
    recorder.out_of_memory(5 * MIB, 2 * MIB, "/x/train.py:7")
    text = "\n".join(lines(compared(recorder, observed=[300 * MIB])))
    assert "/x/train.py:7" in text
    assert f"{compared(recorder).earlier_blocks} blocks" in text
    assert "300 MiB" in text


def test_what_is_not_known_is_told():
    recorder = record(acts(run(3)))
    recorder.events = [
        {k: v for k, v in event.items() if k != "frames"}
        for event in recorder.events
        if event["action"] != "free_completed" or event["size"] != 700_100
    ]
    found = compared(recorder)
    assert not found.has_frames
    assert sum("stacks" in line for line in lines(found)) == 1


def test_json_has_every_part():
    found = compared([*acts(run(3)), Act("more", 5), Act("most", 6)], predicted(run(3)))
    data = comparison_json(found, Predictions(cells=()), "made")
    assert {one.name for one in dataclasses.fields(found)} < data.keys()
    assert data["agreement"]["beyond"] == 2
