import io
import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ftbench.analysis.fits.laws import Exponent, Fit, FitGroup, HeldOut, Interval, Refusal
from ftbench.records.record import Failure
from ftbench.report.document import Document, build
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import Table
from ftbench.report.render.exports import (
    SCHEMA_VERSION,
    dumped,
    parquet,
    plain,
    typed,
    unit_of,
    write_json,
    write_latex,
    write_parquet,
)
from tests.factories import cell, environment, measurement, preparation, profile, record

HOSTILE = 'a "quote", a\ttab, a\nline, \x00\x1b[31m <b>|中 \\ \ud83d'.encode(
    "utf-8", "replace"
).decode()


def document(*records):
    env = environment()
    of = records or (record(), record(cell(max_length=32)))
    return build(of, profile(), preparation(), {env.environment_id: env})


def read(table):
    return pq.read_table(io.BytesIO(parquet(table)))


def strict(text):
    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refused)


# Parquet


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("peak_rss_bytes", "byte"),
        ("total_s", "s"),
        ("samples_per_s", "example/s"),
        ("padded_tokens_per_s", "token/s"),
        ("flops_per_s", "FLOP/s"),
        ("energy_j", "J"),
        ("max_length", "token"),
        ("train_size", "example"),
        ("mfu", "share"),
        ("kernel_share", "share"),
        ("page_faults_per_step", "fault"),
        ("total_s_a", "s"),
        ("total_s_ratio", None),
        ("total_s_ratio_low", None),
        ("cell_id", None),
        ("status", None),
    ],
)
def test_units(column, unit):
    assert unit_of(column) == unit


def test_types_and_units_are_kept(tmp_path):
    failed = record(
        cell(max_length=64), status="oom", measurement=None, failure=Failure(message=HOSTILE)
    )
    files = write_parquet(document(record(), failed), tmp_path)
    assert [file.name for file in files] == ["cells.parquet", "ledger.parquet", "scores.parquet"]
    cells = pq.read_table(files[0])
    types = {field.name: str(field.type) for field in cells.schema}
    assert types["peak_rss_bytes"] == types["max_length"] == types["step_warmup_steps"] == "int64"
    assert types["total_s"] == types["energy_j"] == "double"
    assert types["status"].endswith("string")
    assert cells.schema.field("peak_rss_bytes").metadata[b"unit"] == b"byte"
    assert b"unit" not in (cells.schema.field("status").metadata or {})
    assert cells.schema.metadata[b"ftbench"]
    assert cells["peak_rss_bytes"].to_pylist() == [2**30, None]
    assert cells["peak_allocated_bytes"].to_pylist() == [None, None]
    assert cells["failure"].to_pylist() == [None, HOSTILE]
    frame = cells.to_pandas()
    assert frame["peak_rss_bytes"].dtype == "Int64"  # pandas reads its own types back


def test_bytes_beyond_a_floats_precision_are_exact():
    table = pd.DataFrame({"peak_rss_bytes": pd.Series([2**53 + 1, None], dtype="Int64")})
    assert read(table)["peak_rss_bytes"].to_pylist() == [2**53 + 1, None]


def test_a_median_between_two_bytes_is_no_whole_number():
    assert read(pd.DataFrame({"peak_rss_bytes_a": [1.5, 2.0]}))["peak_rss_bytes_a"].to_pylist() == [
        1.5,
        2.0,
    ]


def test_axes_of_any_kind_have_one_type():
    table = pd.DataFrame(
        {"mixed": ["default", 2, 0.1], "flag": [True, False, None], "none": [None] * 3}
    )
    found = read(table)
    assert found["mixed"].to_pylist() == ["default", "2", "0.1"]
    assert found["flag"].to_pylist() == [True, False, None]
    assert found["none"].to_pylist() == [None] * 3


def test_an_empty_table_is_a_file():
    assert read(pd.DataFrame(columns=["cell_id", "total_s"])).num_rows == 0
    assert typed(pd.DataFrame()).empty


# JSON


def test_json_is_one_strict_document(tmp_path):
    failed = record(
        cell(max_length=64), status="oom", measurement=None, failure=Failure(message=HOSTILE)
    )
    (file,) = write_json(document(record(), failed), tmp_path)
    data = strict(file.read_text())
    assert (data["schema_version"], data["kind"]) == (SCHEMA_VERSION, "report")
    assert data["profile"]["workload"]["eval_size"] == 8
    assert next(iter(data["environments"].values()))["cpu"] == "a processor"
    ok, bad = data["cells"]
    assert (ok["max_length"], ok["peak_rss_bytes"], ok["peak_allocated_bytes"]) == (16, 2**30, None)
    assert isinstance(ok["peak_rss_bytes"], int)
    assert (bad["status"], bad["failure"], bad["total_s"]) == ("oom", HOSTILE, None)
    assert data["units"]["peak_rss_bytes"] == "byte"
    assert data["fits"] == data["learning_curves"] == []


def fit(cost="total_s"):
    return Fit(
        cost=cost,
        law="t0 + t1*x",
        coefficients={"t0": Interval(1.0, 0.5, math.inf)},
        runs=9,
        cells=9,
        predict=lambda point: Interval(1.0, 1.0, 1.0),
        interpolation=HeldOut("interpolation", 3, 0.01, 0.02, 1.0),
        extrapolation=None,
        weak="too far",
    )


def test_fits_are_data_without_their_functions():
    exponent = Exponent(
        "total_s", "max_length", {"train_size": 16}, 16, 32, Interval(1.0, 0.9, 1.1)
    )
    group = FitGroup(
        {"method": "full"}, {"total_s": fit()}, (Refusal("mfu", "no cells"),), (exponent,)
    )
    data = strict(dumped({"fits": [plain(group)]}))["fits"][0]
    assert data["fixed"] == {"method": "full"}
    one = data["fits"]["total_s"]
    assert one["law"] == "t0 + t1*x"
    assert one["coefficients"]["t0"] == {"value": 1.0, "low": 0.5, "high": None}
    assert (one["interpolation"]["cells"], one["extrapolation"]) == (3, None)
    assert "predict" not in one
    assert data["refused"][0]["reason"] == "no cells"
    assert data["exponents"][0]["exponent"]["value"] == 1.0


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (np.int64(3), 3),
        (np.float64("nan"), None),
        (float("inf"), None),
        (pd.NA, None),
        (np.bool_(True), True),
        ((1, "a", None), [1, "a", None]),
        ({1: np.float64(0.5)}, {"1": 0.5}),
    ],
)
def test_plain_data(value, data):
    found = plain(value)
    assert found == data
    assert type(found) is type(data)


def test_a_number_that_is_none_is_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumped({"a": math.nan})


def test_a_document_of_nothing_has_its_json(tmp_path):
    (file,) = write_json(Document("t", (), pd.DataFrame(), pd.DataFrame(), stem="x"), tmp_path)
    assert file.name == "x.json"
    assert strict(file.read_text())["cells"] == []


# LaTeX


def test_latex_is_a_document_and_the_tables_it_reads(tmp_path):
    table = Table("Cells", ("a",), (("50%",),), (False,))
    of = Document("t", (Section("S", ("p",), (table,)),), pd.DataFrame(), pd.DataFrame())
    whole, tables = write_latex(of, tmp_path)
    assert (whole.name, tables.name) == ("report.tex", "report-tables.tex")
    assert r"\input{report-tables}" in whole.read_text()
    assert r"50\%" in tables.read_text()


def test_a_real_report_in_latex(tmp_path):
    _, tables = write_latex(document(record(measurement=measurement())), tmp_path)
    assert tables.read_text().count(r"\begin{longtable}") >= 2
