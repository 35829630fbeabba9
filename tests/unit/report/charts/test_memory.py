import pandas as pd
import pytest

from ftbench.records.readings import Memory, Phase
from ftbench.report.charts.memory import cell_memory
from tests.factories import cell, measurement, record
from tests.unit.report.charts.made_up import inputs, rows

GIB = 2**30


def on_card(**memory):
    """Return a record of a card whose training phase had these peaks."""
    peaks = {
        "peak_allocated_bytes": 4 * GIB,
        "peak_reserved_bytes": 6 * GIB,
        "context_bytes": GIB,
        "peak_process_bytes": 7 * GIB,
    } | memory
    phases = {"train": Phase(wall_s=5, cpu_s=5, entries=1, memory=Memory(**peaks))}
    return record(measurement=measurement(memory=peaks, phases=phases, total_s=5, train_s=5))


def samples(*rows_, column="pss_bytes"):
    table = pd.DataFrame(rows_, columns=["t_s", "phase", column])
    empty = dict.fromkeys(("pss_bytes", "process_bytes", "device_bytes"))
    return table.assign(**{name: None for name in empty if name != column})


def test_a_card_is_drawn_from_the_inside_out():
    bars = next(cell_memory(inputs([on_card()])))
    found = {row["part"]: row["value"] for row in rows(bars.drawing)}
    assert found == {"tensors": 4.0, "kept by the allocator": 2.0, "context": 1.0}


def test_a_part_that_is_absent_is_no_bar_of_zero():
    bars = next(cell_memory(inputs([on_card(context_bytes=None)])))
    assert {row["part"] for row in rows(bars.drawing)} == {"tensors", "kept by the allocator"}


def test_a_part_that_is_untrusted_is_no_bar():
    one = on_card()
    wrong = one.model_copy(update={"untrusted": {"memory.peak_reserved_bytes": "a stale reading"}})
    bars = next(cell_memory(inputs([wrong])))
    assert {row["part"] for row in rows(bars.drawing)} == {"tensors", "context"}


def test_rss_is_what_there_was_before_the_cell_and_the_rest():
    bars = next(cell_memory(inputs([record()])))  # a peak of 1 GiB, 256 MiB before
    train = [row for row in rows(bars.drawing) if row["phase"] == "train"]
    assert [(row["part"], row["value"]) for row in train] == [
        ("before the cell", 0.25),
        ("added by the cell", 0.75),
    ]


def test_the_cell_that_needed_most_comes_first():
    small = record()
    large = record(cell(max_length=32), measurement=measurement(memory={"peak_rss_bytes": 2 * GIB}))
    bars = next(cell_memory(inputs([small, large])))
    assert list(bars.drawing.choices) == ["length 32", "length 16"]


def test_environments_tell_cells_apart():
    here = record()
    elsewhere = record(
        environment_id="elsewhere", measurement=measurement(memory={"peak_rss_bytes": 2 * GIB})
    )
    bars = next(cell_memory(inputs([here, elsewhere])))
    assert list(bars.drawing.choices) == [
        "environment elsewhere",
        f"environment {here.environment_id}",
    ]


def test_the_timeline_begins_at_zero_and_keeps_the_largest_sample_of_each_part():
    steps = [(100.0 + i / 100, "first_steps", GIB + i) for i in range(1000)]
    steps[500] = (105.0, "first_steps", 3 * GIB)
    of = inputs([record()], samples=lambda _: samples(*steps))
    _, timeline = cell_memory(of)
    found = rows(timeline.drawing)
    assert found[0]["t"] < 10 / 60
    assert len(found) == 60
    assert max(row["value"] for row in found) == pytest.approx(3.0)
    assert found[0]["phase"] == "first steps"


def test_a_card_s_own_reading_goes_before_the_host_s():
    read = samples((0.0, "train", GIB), (1.0, "train", 2 * GIB), column="process_bytes")
    _, timeline = cell_memory(inputs([record()], samples=lambda _: read))
    assert {row["figure"] for row in rows(timeline.drawing)} == {"process"}


def test_without_samples_there_is_no_timeline():
    assert [figure.name for figure in cell_memory(inputs([record()]))] == ["memory-phases"]


def test_without_a_measurement_there_is_nothing():
    assert not list(cell_memory(inputs([record(status="oom", measurement=None)])))
