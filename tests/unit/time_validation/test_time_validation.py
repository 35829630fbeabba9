"""The validation of step times: names, cards, fits of planted constants, and the file that is written."""

import math

import numpy as np
import pandas as pd
import pytest

from ftbench.base.errors import PredictionError
from ftbench.estimation.kernel_time import Steps
from ftbench.estimation.time_constants import load_time_constants
from ftbench.plan.gpus import load_gpus
from tests.time_validation import fit
from tests.time_validation.__main__ import main
from tests.time_validation.cards import cards
from tests.time_validation.predictions import COLUMNS
from tests.time_validation.workloads import workload_of
from tests.unit.estimation.test_kernel_time import moved, product, step


@pytest.mark.parametrize(
    ("name", "family", "model", "length", "layers"),
    [
        ("nv_bert_large_384_fp16", "nv", "bert_large", 384, 24),
        ("hf_bert_base_128_fp32", "hf", "bert_base", 128, 12),
        ("hf_bert_large_checkpointed_fp16", "steps_of_four", "bert_large", 512, 24),
        ("bare_gpt3_27_2048_inf", "bare", "gpt3_27", 2048, 32),
        ("half_pythia_410m_512_sdpa", "half", "pythia_410m", 512, 24),
        ("vit_huge_14_224", "vit", "huge", 14, 32),
    ],
)
def test_names_are_workloads(name, family, model, length, layers):
    found = workload_of(name)
    assert (found.family, found.model, found.length, found.layers) == (
        family,
        model,
        length,
        layers,
    )


@pytest.mark.parametrize("name", ["resnet_50", "half_nobody_128_sdpa", "nv_bert_tiny_128_fp16"])
def test_other_names_are_refused(name):
    with pytest.raises(PredictionError):
        workload_of(name)


@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_float32_rates_are_those_of_the_units_at_the_clock(card):
    units = 64 if card.compute_capability in {(6, 0), (7, 0), (7, 5), (8, 0)} else 128
    peak = 2 * units * card.multiprocessors * card.boost_hz
    assert card.peak_flops["fp32"] == pytest.approx(peak, rel=0.015)


def test_cards_agree_with_the_catalogue():
    same = {"T4": "t4", "RTX 4090": "rtx-4090", "L4": "l4", "H100 SXM": "h100", "A40": "a40"}
    for name, listed in same.items():
        gpu, card = load_gpus()[listed], cards()[name]
        assert gpu.boost_hz == card.boost_hz
        assert gpu.tdp_watts == card.tdp_watts
        assert gpu.multiprocessors == card.multiprocessors
        for dtype, peak in gpu.peak_flops.items():
            assert card.peak_flops[dtype] == pytest.approx(peak)


# Fits


ALL = tuple(cards())


def planted(constants, names=ALL):
    """Steps on cards, and their seconds by these constants."""
    steps = [
        step(product(m, 1024, 1024, count=50), moved(m * 10**6, 60), card=card)
        for card in map(cards().get, names)
        for m in (64, 512, 4096)
    ]
    return Steps(steps), Steps(steps).seconds(constants).total, [one.card.name for one in steps]


def test_a_fit_finds_planted_constants_again():
    shipped = load_time_constants()
    truth = shipped.model_copy(update={"plain_share": 0.7, "bandwidth_share": 0.8})
    steps, seconds, _ = planted(truth)
    _, found = fit.fit(steps, seconds, np.ones(len(seconds)))
    again = steps.seconds(found).total
    assert np.abs(again / seconds - 1).max() < 0.05  # priors hold the constants back a little
    assert (
        np.abs(steps.seconds(shipped).total / seconds - 1).max() > 0.1
    )  # which were far off before
    assert found.plain_share == pytest.approx(0.7, rel=0.05)


def test_a_card_that_is_left_out_does_not_speak_for_itself():
    steps, seconds, names = planted(load_time_constants(), ("T4", "A10", "V100 PCIe", "H100 SXM"))
    odd = np.array([name == "A10" for name in names])
    seconds = np.where(odd, 5 * seconds, seconds)
    weights = np.where(odd, 100.0, 1.0)
    predicted = fit.left_out(steps, seconds, weights, names)
    assert (predicted[odd] < seconds[odd] / 3).all()


def test_rows_of_one_card_and_source_count_as_their_square_root():
    weights = fit.weights_of([("a", "x")] * 16 + [("a", "y")])
    assert weights[0] == pytest.approx(0.5)
    assert (weights[:16] ** 2).sum() == pytest.approx(4)


def test_quantiles_are_corrected_for_few_rows():
    assert fit.quantile(np.arange(1.0, 20.0)) == 18.0
    assert fit.quantile(np.array([1.0, -2.0])) == 2.0


def test_shipped_constants_are_within_what_priors_allow():
    shipped = load_time_constants().model_dump()
    flat = {k: v for k, v in shipped.items() if k != "watts_per_tflops"} | shipped[
        "watts_per_tflops"
    ]
    for name, (start, width) in fit.PRIORS.items():
        assert abs(math.log(flat[name] / start)) < 3.5 * width, name


# The file


def test_the_command_writes_the_input_and_its_columns(tmp_path, capsys):
    cells = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "gpu": ["T4", "L4", "no such card", "T4"],
            "workload": [
                "vit_tiny_16_224",
                "vit_tiny_16_224",
                "vit_tiny_16_224",
                "resnet",
            ],
            "batch": [8, 4, 8, 8],
            "precision": "fp16",
        }
    )
    cells.to_csv(tmp_path / "cells.csv", index=False)
    assert main([str(tmp_path / "cells.csv"), "--out", str(tmp_path / "out")]) == 0
    assert "2 of 4 rows predicted" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out/predictions.csv", keep_default_na=False)
    assert list(found) == [*cells, *COLUMNS]
    assert list(found["id"]) == ["a", "b", "c", "d"]
    assert "no data sheet" in found["not_predicted"][2]
    assert "no workload" in found["not_predicted"][3]
    for place in (0, 1):
        low, value, high = (
            float(found[f"predicted_{end}_s"][place]) for end in ("low", "step", "high")
        )
        assert 0 < low < value < high
        assert found["not_predicted"][place] == ""


def test_known_seconds_get_errors(tmp_path, capsys):
    row = {"source": "a/b", "workload": "vit_tiny_16_224", "batch": 8, "precision": "fp16"}
    rows = [row | {"gpu": gpu, "step_s": 0.02} for gpu in ("T4", "L4", "A10")]
    rows.append(rows[0] | {"source": "other"})
    pd.DataFrame(rows).to_csv(tmp_path / "cells.csv", index=False)
    assert main([str(tmp_path / "cells.csv"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for part in ("card left out", "source left out", "as shipped", "host_s = "):
        assert part in said
    assert (tmp_path / "errors.txt").read_text() in said


def test_a_file_without_the_columns_is_refused(tmp_path):
    (tmp_path / "cells.csv").write_text("gpu,batch\nT4,8\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "cells.csv"), "--out", str(tmp_path)])
