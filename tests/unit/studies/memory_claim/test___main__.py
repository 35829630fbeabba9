"""The claim's questions: which cells are asked for, how, and where the answers go."""

import itertools
import re
from pathlib import Path

import pytest

from ftbench.base.errors import PredictionError, RunDirectoryError
from ftbench.execute.engines.base import Outcome
from ftbench.plan.profile_file import load_profile
from ftbench.records.prediction import PredictRequest, Refused, Share
from studies.memory_claim import __main__ as claim
from studies.memory_claim.growth import BYTES_PER_PARAMETER, FLOAT32_BYTES, SeriesSetting
from tests.factories import composition, predictions
from tests.unit.studies.memory_claim.planted import planted


def parameters(cell):
    """Stands for a model's size: of BERT by its config, else one number."""
    shape = dict(cell.model.config)
    return shape.get("num_hidden_layers", 1) * shape.get("hidden_size", 10) ** 2


class FakeEngine:
    """Answers a forecast as a model of 16 bytes per parameter would be predicted; notes what was asked."""

    def __init__(self, refused=()):
        self.requests = []
        self._refused = refused

    def run(self, module, request, *, log_file, timeout_s, on_progress):
        asked = PredictRequest.model_validate_json(request)
        self.requests.append(asked)
        answer = predictions(asked, *(gpu.name for gpu in asked.gpus), refused=self._refused)
        cells = [self._explained(*pair) for pair in zip(answer.cells, asked.cells, strict=True)]
        body = answer.model_copy(update={"cells": tuple(cells)}).model_dump(mode="json")
        return Outcome(
            answer=body, refusal=None, exit_code=0, timed_out=False, wall_s=1.0, log_tail=""
        )

    def _explained(self, prediction, cell):
        size = FLOAT32_BYTES * parameters(cell)
        shares = (("parameters", size), ("gradients", size), ("optimizer state", 2 * size))
        roles = tuple(Share(name=name, nbytes=nbytes) for name, nbytes in shares)
        return prediction.model_copy(update={"composition": composition(roles=roles)})


@pytest.fixture(scope="module")
def gathered():
    engine = FakeEngine()
    return claim.gather(engine), engine.requests


def test_what_is_predicted_for_cards_is_padded_and_needs_no_data(gathered):
    _, (padded, others, full, on_cpu) = gathered
    assert [gpu.name for gpu in padded.gpus] == list(claim.CARDS)
    assert all(r.explain for r in (padded, others, full, on_cpu))
    assert [r.data_at_hand for r in (padded, others, full, on_cpu)] == [False, False, False, True]
    assert [r.full_batches for r in (padded, others, full, on_cpu)] == [False, False, True, True]
    assert [r.on_cpu for r in (padded, others, full, on_cpu)] == [False, False, False, True]


def test_lengths_go_to_where_each_architecture_ends(gathered):
    answers, _ = gathered
    ends = {setting.model: peaks[-1].length for setting, peaks in answers.series.items()}
    assert ends == {"distilbert": 512, "modernbert": 8192}
    for model, batches in (("distilbert", (8, 32)), ("modernbert", (8,))):
        for batch in batches:
            for attention, checkpointing in itertools.product(("eager", "sdpa"), (False, True)):
                setting = SeriesSetting(model, attention, True, checkpointing, batch)
                assert len(answers.series[setting]) > 4
            assert len(answers.series[SeriesSetting(model, "sdpa", False, False, batch)]) > 4


def test_only_fused_attention_is_asked_for_full_batches(gathered):
    answers, (_, _, full, _) = gathered
    assert {cell.attn_implementation for cell in full.cells} == {"sdpa"}
    assert not any(s.checkpointing for s in answers.series if not s.padded)


def test_sizes_have_their_parameters_from_the_smallest_step(gathered):
    answers, _ = gathered
    assert [size.name for size in answers.family] == list(claim.FAMILY)
    for size in (*answers.family, *answers.depths, *answers.widths):
        assert size.parameters == size.layers * size.width**2
        assert size.floor.state_bytes == BYTES_PER_PARAMETER * size.parameters
    assert [size.layers for size in answers.depths] == [2, 4, 8, 12]
    assert [size.width for size in answers.widths] == [128, 256, 512, 768]


def test_heads_and_the_feed_forward_layer_follow_the_width():
    assert claim.size_overrides(4, 256) == (
        "workload.config.num_hidden_layers=4",
        "workload.config.hidden_size=256",
        "workload.config.intermediate_size=1024",
        "workload.config.num_attention_heads=4",
    )


def test_what_is_measured_are_the_cells_of_the_command_in_the_profile(gathered):
    answers, (_, _, _, on_cpu) = gathered
    cells = claim.cells_of(load_profile(claim.DISTILBERT))
    small = {cell.cell_id for cell in cells if cell.train_size == claim.MEASURED_TRAIN_SIZE}
    assert {one.cell_id for one in answers.beside} == small == {c.cell_id for c in on_cpu.cells}
    assert (
        f"--only train_size={claim.MEASURED_TRAIN_SIZE}"
        in load_profile(claim.DISTILBERT).description
    )


def test_the_committed_measurements_are_of_these_cells(gathered):
    """Ids of cells may change with ftbench: then the cells are measured anew."""
    answers, _ = gathered
    measured = claim.measured_tensors(Path(__file__).parents[4] / claim.MEASURED)
    assert set(measured) == {one.cell_id for one in answers.beside}


def test_options_differ_in_nothing_else(gathered):
    answers, (_, others, _, _) = gathered
    assert [option.name for option in answers.options] == list(claim.OPTIONS)
    assert len(others.cells) == 2 * len(claim.OPTIONS)
    assert {(c.max_length, c.per_device_train_batch_size) for c in others.cells} == {
        (64, 8),
        (512, 8),
    }


def test_a_refused_cell_is_an_error():
    engine = FakeEngine(refused=(Refused(cell_id="x", reason="not covered"),))
    with pytest.raises(PredictionError, match="not covered"):
        claim.gather(engine)


def test_measured_peaks_are_read_by_cell_the_largest_of_several_runs(tmp_path):
    file = tmp_path / "cells.csv"
    assert claim.measured_tensors(file) == {}
    file.write_text("cell_id,status,peak_cpu_tensors_bytes\n001,ok,7\n001,ok,9\n2e3,oom,\n3,ok,5\n")
    assert claim.measured_tensors(file) == {"001": 9, "3": 5}


def test_a_table_of_something_else_is_refused(tmp_path):
    file = tmp_path / "cells.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(RunDirectoryError, match="peak_cpu_tensors_bytes"):
        claim.measured_tensors(file)


def test_the_page_is_written_with_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "gather", lambda engine, show: planted())
    measured = tmp_path / "cells.csv"
    measured.write_text("cell_id,peak_cpu_tensors_bytes\na,1000\n")
    claim.main(["--out", str(tmp_path / "out"), "--measured", str(measured)])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Measured on this machine: in 1 cells" in text
    assert len(list((tmp_path / "out").rglob("*.svg"))) == 4


@pytest.fixture(scope="module")
def committed():
    """The rows of the committed page's tables, by what is in front of their first figure."""
    text = (Path(__file__).parents[4] / claim.OUT / "report.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return text, rows


def last_power(rows, *start):
    """The power of the last doubling of a series: the whole peak's, and of what is no model state."""
    longest = max((row for row in rows if row[: len(start)] == list(start)), key=len)
    whole, _, other = longest[-1].partition(" ")
    return float(whole), float(other.strip("()"))


def test_the_committed_page_holds_what_its_headlines_say(committed):
    text, rows = committed
    modern = rows[[row[-1] for row in rows].index("4,096 to 8,192") :]
    assert last_power(modern, "eager", "8")[0] == pytest.approx(2, abs=0.15)
    assert 1.0 < last_power(modern, "sdpa, full batches", "8")[0] < 1.25
    distil = rows[: len(rows) - len(modern)]
    for batch in ("8", "32"):
        whole, other = last_power(distil, "sdpa, full batches", batch)
        assert whole <= 1
        assert other == 1
        assert last_power(distil, "sdpa, padding", batch)[1] <= 1.05
        assert last_power(distil, "eager", batch)[1] > 1.4
    assert "16 x 109,483,778 and 8,996 bytes" in text


def test_the_committed_page_has_its_laws(committed):
    _, rows = committed
    squares = {tuple(row[:3]): row[6] for row in rows if len(row) == 9}
    assert squares["DistilBERT", "eager", "8"] == squares["DistilBERT", "eager", "32"] == "648"
    assert squares["DistilBERT", "sdpa, padding", "8"] == "24"
    assert squares["DistilBERT", "sdpa, full batches", "8"] == "0"


def test_the_committed_figures_are_those_of_the_page(committed):
    text, _ = committed
    shown = set(re.findall(r"\(figures/(.+?)\)", text))
    folder = Path(__file__).parents[4] / claim.OUT / "figures"
    assert shown == {file.name for file in folder.iterdir()}
