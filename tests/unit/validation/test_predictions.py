"""Rows of published cells: what decides their trace, and what is written of it."""

import dataclasses
import json
import math

import pandas as pd
import pytest

from ftbench.base.errors import ProfileError
from ftbench.prediction.simulate.simulation import simulate_all
from tests.validation import predictions as module
from tests.validation.predictions import predict_rows

GPT2 = "openai-community/gpt2"


def row(**changes):
    fields = {
        "model": GPT2,
        "optimizer": "Adam",
        "batch": 20,
        "gpu": "GeForce-RTX-3060",
        "total_gpu_bytes": 12_622_168_064,
        "zero_grad_mode": "1",
    }
    return fields | changes


def key(**changes):
    return module._key(pd.Series(row(**changes)))


def test_a_key_is_what_decides_a_trace():
    assert key() == module.Key(GPT2, "Adam", 20, 1, False, (8, 6))


@pytest.mark.parametrize(
    ("recorded", "position"),
    [("", 0), (None, 0), (math.nan, 0), ("null", 0), ("0", 0), (0, 0), ("1", 1), (2.0, 2)],
)
def test_where_gradients_are_zeroed(recorded, position):
    assert key(zero_grad_mode=recorded).zero_grad_at == position


def test_a_file_may_not_say_where_gradients_are_zeroed():
    fields = row()
    del fields["zero_grad_mode"]
    assert module._key(pd.Series(fields)).zero_grad_at == 0


@pytest.mark.parametrize(
    ("model", "batch", "varying"),
    [
        (GPT2, 14, True),
        (GPT2, 15, False),  # one of so many lines is surely full
        ("EleutherAI/pythia-1b", 2, False),  # padded when they were tokenised
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 2, False),
        ("Qwen/Qwen3-0.6B", 2, False),
        ("Qwen/Qwen2-0.5B", 2, True),
    ],
)
def test_whether_batches_vary_in_length(model, batch, varying):
    assert key(model=model, batch=batch).varying == varying


def test_a_card_has_the_memory_that_the_row_says():
    card = module._card(pd.Series(row()))
    assert card.runtime.torch_version == (2, 6)
    least, most = card.capacity
    assert least < most < 12_622_168_064
    other = module._card(pd.Series(row(total_gpu_bytes=10**10)))
    assert most - other.capacity[1] == 12_622_168_064 - 10**10


# Rows


class Here:
    """In the place of a pool of processes."""

    def __init__(self, *args, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    map = staticmethod(map)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A folder with one small architecture."""
    small = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50}
    (tmp_path / "openai-community--gpt2.json").write_text(json.dumps(small))
    monkeypatch.setattr(module, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(module, "ORDERS", 4)
    return tmp_path


@pytest.fixture
def traced(monkeypatch):
    """What is traced, by key."""
    real, keys = module._traces, []

    def traces(key, configs):
        keys.append(key)
        return real(key, configs)

    monkeypatch.setattr(module, "_traces", traces)
    return keys


COLUMNS = [
    "predicted_reserved_bytes",
    "predicted_reserved_low_bytes",
    "predicted_reserved_high_bytes",
    "predicted_allocated_bytes",
    "predicted_oom",
    "seconds",
]


def test_predictions_stand_behind_the_rows_own_columns(configs, traced):
    rows = pd.DataFrame(
        [
            row(),
            row(batch=30),
            row(),  # asked for before
            row(total_gpu_bytes=24 * 10**9, gpu="GeForce-RTX-4060"),
            row(zero_grad_mode=""),
        ],
        index=[7, 3, 5, 1, 9],
    )
    found = predict_rows(rows, configs)
    assert list(found.columns) == [*rows.columns, *COLUMNS]
    assert list(found.index) == list(rows.index)
    assert len(traced) == len(set(traced)) == 4  # of a key once
    pd.testing.assert_series_equal(found.loc[7], found.loc[5], check_names=False)
    reserved = found["predicted_reserved_bytes"]
    assert (found["predicted_reserved_low_bytes"] <= reserved).all()
    assert (reserved <= found["predicted_reserved_high_bytes"]).all()
    assert (found["predicted_allocated_bytes"] <= reserved).all()
    assert reserved[3] > reserved[7]
    assert not found["predicted_oom"].any()


def test_figures_are_those_of_the_simulation_and_of_the_contexts_growth(configs):
    (found,) = predict_rows(pd.DataFrame([row()]), configs).to_dict("records")
    card = module._card(pd.Series(row()))
    simulated = simulate_all(module._traces(key(), configs), card.runtime, card.capacities)
    low, high = simulated.interval("peak_reserved_bytes")
    assert found["predicted_reserved_bytes"] == simulated.first.peak_reserved_bytes
    assert found["predicted_reserved_low_bytes"] == low
    assert found["predicted_reserved_high_bytes"] == high + module.stack_bytes(card)


def test_varying_lengths_widen_the_interval(configs):
    full, varying = predict_rows(pd.DataFrame([row(batch=15), row(batch=14)]), configs).to_dict(
        "records"
    )
    assert len(module._traces(key(batch=14), configs)) == 5  # the full length, and four orders

    def width(found):
        return found["predicted_reserved_high_bytes"] - found["predicted_reserved_low_bytes"]

    assert width(varying) >= width(full)


def test_what_does_not_fit_is_out_of_memory(configs, monkeypatch):
    real = module._card

    def with_room_for_nothing(one):
        return dataclasses.replace(real(one), capacity=(2**20, 2**21))

    monkeypatch.setattr(module, "_card", with_room_for_nothing)
    (found,) = predict_rows(pd.DataFrame([row()]), configs).to_dict("records")
    assert found["predicted_oom"] == 1


def test_an_unknown_card_is_an_error(configs):
    with pytest.raises(ProfileError, match="no such GPU"):
        predict_rows(pd.DataFrame([row(), row(gpu="GeForce-RTX-9999")]), configs)
