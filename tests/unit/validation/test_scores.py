"""Tests of printed values and of the table of errors, on planted rows."""

import numpy as np
import pandas as pd
import pytest

from tests.validation.kinds import kind_of
from tests.validation.measured import printed
from tests.validation.scores import error_table


@pytest.mark.parametrize(
    ("value", "unit", "low", "high"),
    [
        ("939.21", "MB", 939.205e6, 939.215e6),
        ("26.2", "GiB", 26.15 * 2**30, 26.25 * 2**30),
        ("2889.9-2894.1", "MB", 2889.85e6, 2894.15e6),
        ("80", "GB", 79.5e9, 80.5e9),
        ("1,024", "bytes", 1024, 1024),
    ],
)
def test_a_printed_value_is_all_that_rounds_to_it(value, unit, low, high):
    found = printed(value, unit)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.failed is False


@pytest.mark.parametrize(
    ("value", "failed"), [("OOM", True), ("OOM at batch 1", True), ("", None), ("about 3", None)]
)
def test_a_failure_has_no_value_and_no_value_is_no_failure(value, failed):
    assert printed(value, "GB") == (None, None, failed)
    assert printed("3", "apples") == (None, None, None)


ROWS = pd.DataFrame(
    {
        "predicted_allocated_bytes": [101, 200, 10, None, 55],
        "predicted_allocated_low_bytes": [99, 201, 9, None, 55],
        "predicted_allocated_high_bytes": [103, 205, 11, None, 55],
        "predicted_reserved_bytes": [0, 0, 0, None, 40],
        "predicted_reserved_low_bytes": [0, 0, 0, None, 38],
        "predicted_reserved_high_bytes": [0, 0, 0, None, 42],
        "predicted_oom": [0, 0, 0, None, 0],
        "not_predicted": [None, None, None, "no config", None],
    }
)
MEASURED = pd.DataFrame(
    {
        "of": ["allocated"] * 4 + ["reserved"],
        "low": [100.0, 200.0, np.nan, 50.0, 42.0],
        "high": [100.0, 200.0, np.nan, 50.0, 44.0],
        "failed": [False, False, True, False, None],
        "group": ["a", "a", "a", "b", "c"],
    }
)


def test_the_table_has_error_coverage_and_misjudged_failures():
    table = error_table(ROWS, MEASURED, "planted.csv").splitlines()
    assert table[3] == "| a | 3 of 3 | 0.500 % | 1.000 % | 1 of 2 | 3.000 % | 1 of 3 |"
    assert table[4] == "| b | 0 of 1 |  |  |  |  |  |"
    # the nearest value that rounds to 43 is 42, two away from 40, and it is inside up to 42
    assert table[5] == "| c | 1 of 1 | 4.651 % | 4.651 % | 1 of 1 | 9.302 % |  |"
    assert table[-1] == "- 1 rows: no config."


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["model", "framework_config", "attention"], "fms"),
        (["id", "micro_batch", "attention"], "published"),
        (["source", "attention"], "tables"),
        (["model", "batch", "zero_grad_mode"], "loops"),
    ],
)
def test_columns_tell_the_kind_of_a_file(columns, kind):
    assert kind_of(columns) == kind
