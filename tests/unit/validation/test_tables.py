"""Tests of published tables: reader, refusals and steps, on planted rows."""

import pandas as pd
import pytest
import torch
from transformers import AutoConfig

from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.columns import COLUMNS
from tests.validation.tables import predictions
from tests.validation.tables.gpt import Gpt
from tests.validation.tables.loops import loop
from tests.validation.tables.rows import _MODELS, card_of_row, reason_against, run_of

ROW = {
    "source": "transformers pull 28802 gist",
    "model": "bert-base masked-lm",
    "task": "forward+backward",
    "dtype": "float16 weights",
    "batch": 4,
    "length": 256,
    "attention": "sdpa",
    "optimizer": "none",
    "card": "A100",
    "torch": "before 2.2",
    "note": "",
}
COURSE = ROW | {
    "source": "a course",
    "model": "GPT-124M (12 layers, own attention written out)",
    "task": "training loop",
    "dtype": "float32",
    "attention": "eager",
    "optimizer": "AdamW",
    "note": "fused AdamW mask on the fly",
}


def test_a_row_becomes_the_run_it_describes():
    run = run_of(ROW)
    assert (run.model, run.task, run.work, run.dtype) == (
        "bert-base",
        "masked-lm",
        "sum of logits",
        "float16",
    )
    assert (run.contiguous, run.torch, run.optimizer, run.mask) == (True, (2, 1), "none", "")
    course = run_of(COURSE | {"torch": "2.6"})
    assert (course.work, course.fused, course.mask, course.torch) == (
        "training",
        True,
        "on the fly",
        (2, 6),
    )
    assert not course.contiguous


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "bert-base image-classification"}, "task"),
        ({"model": "unheard-of causal-lm"}, "unheard-of"),
        ({"task": "inference"}, "inference"),
        ({"dtype": "int8"}, "int8"),
        ({"attention": "flex"}, "flex"),
        ({"optimizer": "lion"}, "lion"),
        ({"length": "up to 512"}, "length"),
        ({"batch": ""}, "batch"),
        ({"card": "abacus"}, "abacus"),
    ],
)
def test_rows_that_are_not_covered_have_a_reason(changed, named):
    assert reason_against(ROW) is None
    assert reason_against(COURSE) is None
    assert named in (reason_against(ROW | changed) or "")


def test_a_card_that_only_has_a_size_is_of_the_generation_of_its_table():
    card = card_of_row("16 GB card")
    assert (card.compute_capability, card_of_row("A100").name) == ((8, 6), "a100-80gb")
    assert 14 * 2**30 < card.memory_bytes <= 16 * 2**30


@pytest.mark.parametrize("name", _MODELS)
def test_every_config_is_one_of_transformers(name):
    fields = dict(_MODELS[name])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    assert all(getattr(config, field) == value for field, value in fields.items())


def test_the_course_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = Gpt(buffer=True)
    head, bias = 768 * 50257, 12 * 3 * 768
    # GPT-2's 124,439,808 share the head with the embedding and have biases of queries, keys and values
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808 + head - bias


def test_a_mask_as_a_buffer_is_there_for_every_layer():
    def requested(note):
        run = run_of(COURSE | {"note": note, "batch": 1, "length": 8})
        return trace(loop(run), steps=1, target=Target(padding=False)).peak_bytes

    assert requested("mask as a buffer") - requested("mask on the fly") >= 12 * 1024**2 * 4


def test_refused_rows_are_written_with_their_reason():
    written = predictions.predict_rows(pd.DataFrame([ROW | {"attention": "flex"}] * 2))
    assert list(written.columns) == [*ROW, *COLUMNS]
    assert written["not_predicted"].notna().all()


def test_measured_values_have_a_figure_and_a_group():
    row = ROW | {"figure": "1.5", "unit": "GB", "definition": "max_reserved"}
    found = predictions.measured(pd.DataFrame([row]))
    assert found is not None
    assert found.loc[0].to_dict() == {
        "of": "reserved",
        "low": 1.45e9,
        "high": 1.55e9,
        "failed": False,
        "group": "bert-base masked-lm, forward+backward, sdpa, float16 weights",
    }
    assert predictions.measured(pd.DataFrame([ROW])) is None
