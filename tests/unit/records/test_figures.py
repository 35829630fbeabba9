"""The table of figures, held against records and the promised order of cells.csv."""

import pytest
from pydantic import ValidationError

from ftbench.analysis.tables.cells_table import cells_table
from ftbench.analysis.tables.memory_table import memory_table
from ftbench.records import figures, invariants, readings
from ftbench.records.figures import BY_NAME, FIGURES, READINGS, Figure, value_of, withheld_with
from ftbench.records.readings import Memory
from ftbench.report.elements.tables import format_figure
from ftbench.report.render.exports import unit_of
from tests.factories import measurement, record


def test_every_reading_of_memory_is_in_the_table():
    assert set(Memory.model_fields) <= {figure.reading for figure in READINGS}


def test_readings_go_from_the_inside_out():
    names = [figure.name for figure in READINGS]
    assert names[:2] == ["peak_allocated_bytes", "peak_reserved_bytes"]
    for figure in READINGS:
        if figure.nested_in:
            assert names.index(figure.name) < names.index(figure.nested_in)


def test_a_figure_is_read_where_its_path_says():
    measured = measurement()
    assert value_of(BY_NAME["step_median_s"], measured) == measured.steps.median_s
    assert value_of(BY_NAME["peak_rss_bytes"], measured) == measured.memory.peak_rss_bytes
    assert value_of(BY_NAME["evaluation_s"], measured) == measured.phases["evaluation"].wall_s
    assert value_of(BY_NAME["step_median_s"], measured.with_rank(steps=None)) is None


def test_what_cannot_be_trusted_with_a_figure():
    assert set(withheld_with("steps.median_s")) == {
        "step_median_s",
        "step_q1_s",
        "step_q3_s",
        "step_low_s",
        "step_high_s",
    }
    assert withheld_with("memory.peak_rss_bytes") == ("peak_rss_bytes",)


def test_a_reading_that_nobody_knows_is_refused():
    with pytest.raises(ValidationError, match="peak_swap_bytes"):
        Memory(peak_swap_bytes=5)


@pytest.fixture
def swap(monkeypatch):
    """A new meter's reading: one row more, in a process that has no other change."""
    row = Figure("peak_swap_bytes", "byte", "swap", "memory.peak_swap_bytes", place="host", depth=9)
    for module in (figures, readings, invariants):
        if hasattr(module, "READINGS"):
            monkeypatch.setattr(module, "READINGS", (*READINGS, row))
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, row))
    monkeypatch.setattr("ftbench.analysis.tables.memory_table.READINGS", (*READINGS, row))
    monkeypatch.setattr("ftbench.analysis.tables.cells_table.FIGURES", (*FIGURES, row))
    monkeypatch.setattr(figures, "BY_NAME", {**BY_NAME, row.name: row})
    return row


def test_a_new_meter_is_one_row(swap):
    base = measurement()
    memory = Memory(**{**base.memory.model_dump(exclude_none=True), "peak_swap_bytes": 4096})
    phases = {
        name: phase.model_copy(update={"memory": memory if name == "train" else phase.memory})
        for name, phase in base.phases.items()
    }
    made = record(measurement=base.with_rank(memory=memory, phases=phases))
    assert cells_table([made])["peak_swap_bytes"].tolist() == [4096]
    rows = memory_table([made])
    assert set(rows["figure"]) >= {"peak_swap_bytes"}
    assert format_figure("peak_swap_bytes", 4096) == "4.0 KiB"
    assert unit_of("peak_swap_bytes") == "byte"
    assert invariants.broken_invariants(made).get("memory.peak_swap_bytes") is None
    halved = phases["train"].model_copy(update={"memory": base.memory})
    broken = made.measurement.with_rank(phases={**phases, "train": halved})
    wrong = made.model_copy(update={"measurement": broken})
    assert "largest" in invariants.broken_invariants(wrong)["memory.peak_swap_bytes"]
