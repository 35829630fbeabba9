"""Tests of tables of many sources: reasons and measured values, on planted rows."""

import pandas as pd
import pytest

from tests.validation.columns import COLUMNS
from tests.validation.published.predictions import measured, predict_rows, reason_against

ROW = {
    "model": "tiny",
    "method": "full",
    "n_gpus": "1.0",
    "framework": "litgpt",
    "param_dtype": "bf16-true",
    "optimizer": "AdamW",
    "micro_batch": "4.0",
    "seq_len": "512",
    "activation_ckpt": "no",
    "compile": "no",
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, "litgpt"),
        ({"n_gpus": "8.0"}, "several cards"),
        ({"n_gpus": ""}, "number of cards"),
        ({"compile": "torch.compile"}, "compiled"),
        ({"optimizer": "", "micro_batch": ""}, "optimizer, micro_batch"),
        ({"seq_len": "<= 512, longest of batch"}, "depends on data"),
        ({"activation_ckpt": "selective (op)"}, "selective (op)"),
    ],
)
def test_every_row_has_the_reason_that_comes_first(changed, named):
    assert named in reason_against(ROW | changed)


def test_rows_get_all_columns_with_and_without_measured_values():
    written = predict_rows(pd.DataFrame([ROW]))
    assert list(written.columns) == [*ROW, *COLUMNS]
    assert measured(pd.DataFrame([ROW])) is None


@pytest.mark.parametrize(
    ("unit", "definition", "of", "middle"),
    [
        ("GiB", "max_reserved", "reserved", 2 * 2**30),
        ("GB (as printed; torchtitan logs GiB of reserved)", "max_reserved", "reserved", 2 * 2**30),
        ("GB (1e9)", "max_memory_allocated()/1e9", "allocated", 2e9),
        ("MB (2^20)", "peak", "allocated", 2 * 2**20),
    ],
)
def test_units_are_read_with_what_the_row_says_of_them(unit, definition, of, middle):
    row = ROW | {"peak_value": "2.0", "peak_unit": unit, "peak_definition": definition}
    found = measured(pd.DataFrame([row]))
    assert found is not None
    assert found["of"][0] == of
    assert (found["low"][0] + found["high"][0]) / 2 == pytest.approx(middle)
