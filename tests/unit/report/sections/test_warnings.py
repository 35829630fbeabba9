from ftbench.analysis.tables.cells_table import cells_table
from ftbench.records.record import Failure
from ftbench.report.sections.warnings import UNTRUSTED, warnings_section
from tests.factories import cell, measurement, record, run_warning


def test_nothing_to_say():
    assert warnings_section([record()]) == ((), ())


def test_each_kind_is_counted_and_told_the_worst_first():
    busy = record(measurement=measurement(warnings=(run_warning(),)), replicate=1)
    failed = record(
        cell(train_size=8),
        status="oom",
        measurement=None,
        failure=Failure(message="out of memory", step=7),
    )
    broken = record(cell(max_length=32), measurement=measurement(eval_accuracy=1.5))
    (note,), (table,) = warnings_section([record(), busy, failed, broken])
    assert note.startswith("3 of 4 runs:")
    assert "others busy (1)" in note
    assert "--rerun-noisy" in note
    assert [row[1] for row in table.rows] == [UNTRUSTED, "oom", "others busy"]
    assert table.rows[0][2] == "scores.accuracy: 1.5 is not between 0 and 1"
    assert table.rows[1] == (
        "length 16, batch 4, training examples 8",
        "oom",
        "at step 7: out of memory",
    )
    assert table.rows[2][0].endswith(", replicate 1")


def test_where_nothing_is_noisy_there_is_nothing_to_run_again():
    failed = record(status="oom", measurement=None, failure=Failure(message="out of memory"))
    (note,), _ = warnings_section([failed])
    assert note == "1 of 1 run: oom (1)."


def test_what_follows_from_the_profile_is_told_once_and_counts_as_no_run_s_fault():
    remark = run_warning("the model is the best of 3 ...", name="chosen_on_evaluation")
    records = [
        record(replicate=number, measurement=measurement(warnings=(remark,))) for number in range(3)
    ]
    notes, (table,) = warnings_section(records)
    assert notes == ()
    assert table.rows == (("3 runs", "chosen on evaluation", "the model is the best of 3 ..."),)
    busy = record(replicate=3, measurement=measurement(warnings=(run_warning(), remark)))
    (note,), (table,) = warnings_section([*records, busy])
    assert note.startswith("1 of 4 runs: others busy (1).")
    assert [row[1] for row in table.rows] == ["others busy", "chosen on evaluation"]
    assert list(cells_table([records[0], busy])["warnings"]) == ["", "the machine was busy"]
