"""The error table on rows whose errors are known."""

import itertools

import pandas as pd
import pytest

from tests.validation import __main__ as command
from tests.validation import predictions
from tests.validation.errors import distinct, error_table

MEASURED = 1_000_000


def row(batch=16, off=0.0, **changes):
    """A row whose prediction is off by a share of what was measured; its interval is 1 % to each side."""
    predicted = round(MEASURED * (1 + off))
    fields = {
        "model": "m",
        "optimizer": "Adam",
        "batch": batch,
        "gpu": "t4",
        "total_gpu_bytes": 10**10,
        "zero_grad_mode": "0",
        "oom": 0,
        "measured_bytes": MEASURED,
        "noise_flag": "",
        "predicted_reserved_bytes": predicted,
        "predicted_reserved_low_bytes": predicted - 10_000,
        "predicted_reserved_high_bytes": predicted + 10_000,
        "predicted_oom": 0,
    }
    return fields | changes


def lines(text, heading=None):
    """The table after a heading (the first one for None), a dictionary a line."""
    rest = text if heading is None else text[text.index(heading) :]
    table = itertools.takewhile(
        lambda line: line.startswith("|"), rest[rest.index("| ") :].splitlines()
    )
    head, _, *body = [[c.strip() for c in line.strip("|").split("|")] for line in table]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def test_quantiles_of_errors():
    # 0, 0.1, ..., 2.0 %, to either side.
    rows = [row(batch, (-1) ** batch * batch / 1000) for batch in range(21)]
    everything, *_ = lines(error_table(pd.DataFrame(rows)))
    assert everything["judged"] == "21"
    assert everything["median"] == "1.00 %"
    assert everything["p95"] == "1.90 %"
    assert everything["max"] == "2.00 %"
    assert everything["misjudged OOM"] == "0 of 21"
    assert everything["inside the interval"] == "11 of 21"  # those within 1 %
    assert everything["median width"] == "2.00 %"


def test_a_line_for_each_model_and_optimizer():
    rows = [
        row(model="a", off=0.01),
        row(model="b", off=0.02),
        row(model="b", optimizer="SGD", off=0.03),
    ]
    found = lines(error_table(pd.DataFrame(rows)))
    assert [(line["cells"], line["max"]) for line in found] == [
        ("all", "3.00 %"),
        ("a, Adam", "1.00 %"),
        ("b, Adam", "2.00 %"),
        ("b, SGD", "3.00 %"),
    ]


def test_memory_that_ran_out_is_misjudged_either_way_and_has_no_error():
    rows = [
        row(1, off=0.01),
        row(2, oom=1, predicted_oom=1, measured_bytes=""),  # what was measured is absent
        row(3, oom=1, predicted_oom=0, measured_bytes=""),
        row(4, oom=0, predicted_oom=1, off=0.5),
    ]
    everything, *_ = lines(error_table(pd.DataFrame(rows)))
    assert everything["misjudged OOM"] == "2 of 4"
    assert (everything["judged"], everything["max"]) == ("1", "1.00 %")


def test_nothing_to_judge():
    rows = [row(oom=1, predicted_oom=1, measured_bytes="")]
    everything, *_ = lines(error_table(pd.DataFrame(rows)))
    assert (everything["judged"], everything["median"], everything["median width"]) == ("0", "", "")
    assert everything["inside the interval"] == "0 of 0"


def test_noise_flags_are_sections_of_their_own():
    rows = [row(1, off=0.01), row(2, off=0.4, noise_flag="seqlen")]
    text = error_table(pd.DataFrame(rows))
    assert lines(text, "## Noise flag: none (1 distinct cells)")[0]["max"] == "1.00 %"
    assert lines(text, "## Noise flag: seqlen (1 distinct cells)")[0]["max"] == "40.00 %"


# The same cell twice


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"optimizer": "AdamW"}, 1),  # allocates the same
        ({"optimizer": "SGD"}, 2),
        ({"gpu": "l4"}, 2),
        ({"batch": 17}, 2),
        ({"zero_grad_mode": ""}, 1),  # not recorded: at the loop's start
        ({"zero_grad_mode": None}, 1),
        ({"zero_grad_mode": 0.0}, 1),
        ({"zero_grad_mode": "1"}, 2),
        ({"noise_flag": "seqlen"}, 2),
        ({"noise_flag": None}, 1),
    ],
)
def test_a_cell_counts_once(changes, count):
    rows = pd.DataFrame([row(), row(**changes)])
    assert len(distinct(rows)) == count


def test_the_first_measurement_of_a_cell_counts():
    rows = [row(off=0.01), row(off=0.02)]
    everything, *_ = lines(error_table(pd.DataFrame(rows)))
    assert (everything["judged"], everything["max"]) == ("1", "1.00 %")


@pytest.mark.parametrize("column", ["zero_grad_mode", "noise_flag"])
def test_columns_that_may_be_missing(column):
    rows = pd.DataFrame([row(1, 0.01), row(2, 0.02)]).drop(columns=column)
    everything, *_ = lines(error_table(rows))
    assert (everything["judged"], everything["max"]) == ("2", "2.00 %")


# Other predictors


def test_peers_are_judged_on_the_same_cells():
    rows = [
        row(1, xmem_bytes="1050000", xmem_oom="0"),
        row(2, xmem_bytes="970000", xmem_oom="0"),
        row(3, xmem_bytes="", xmem_oom=""),  # no estimate: neither judged nor out of memory
        row(4, xmem_bytes="1", xmem_oom="1"),  # took it for out of memory
        row(5, oom=1, predicted_oom=1, measured_bytes="", xmem_bytes="990000", xmem_oom="0"),
        row(6, noise_flag="seqlen", xmem_bytes="5000000", xmem_oom="0"),
    ]
    (peer,) = lines(error_table(pd.DataFrame(rows)), "Published predictors")
    assert peer == {
        "predictor": "xmem",
        "judged": "2",
        "median": "4.00 %",
        "p95": "4.90 %",
        "max": "5.00 %",
        "misjudged OOM": "2 of 5",
    }


def test_peers_without_columns_are_left_out():
    rows = [row(xmem_bytes=1, xmem_oom=0, llmem_bytes=1)]  # the latter has only one of its two
    peers = lines(error_table(pd.DataFrame(rows)), "Published predictors")
    assert [peer["predictor"] for peer in peers] == ["xmem"]
    alone = error_table(pd.DataFrame([row()]))
    assert alone.rstrip().endswith("Published predictors on the same cells:")


# The command


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command on rows, with predictions that are planted."""

    def of(rows, drop=()):
        data = pd.DataFrame(rows).drop(columns=list(drop))
        made = [name for name in data if name.startswith("predicted_")]
        data.drop(columns=made).to_csv(tmp_path / "cells.csv", index=False)
        seen = []

        def predict_rows(cells, configs):
            seen.append((cells, configs))
            return pd.concat([cells, data[made]], axis=1)

        monkeypatch.setattr(predictions, "predict_rows", predict_rows)
        arguments = [str(tmp_path / "cells.csv"), "--configs", str(tmp_path)]
        code = command.main([*arguments, "--out", str(tmp_path / "a" / "b")])
        return code, tmp_path / "a" / "b", seen

    return of


def test_predictions_and_errors_are_written(run, capsys):
    code, out, ((cells, _),) = run([row(1, off=0.01), row(2, zero_grad_mode="")])
    assert code == 0
    written = pd.read_csv(out / "predictions.csv")
    assert list(written.columns) == [*cells.columns, *[c for c in written if "predicted" in c]]
    assert (out / "errors.md").read_text() == capsys.readouterr().out.removesuffix("\n")
    assert list(cells["zero_grad_mode"]) == ["0", ""]  # an empty field is no number


def test_without_measured_values_there_are_predictions_alone(run):
    code, out, _ = run([row(1), row(2)], drop=["measured_bytes", "oom", "noise_flag"])
    assert code == 0
    assert [file.name for file in out.iterdir()] == ["predictions.csv"]
    assert "predicted_reserved_bytes" in pd.read_csv(out / "predictions.csv")


def test_what_cannot_be_predicted_ends_with_2(tmp_path, capsys):
    pd.DataFrame([row(gpu="a teapot")]).to_csv(tmp_path / "cells.csv", index=False)
    arguments = [str(tmp_path / "cells.csv"), "--configs", str(tmp_path)]
    assert command.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "no such GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
