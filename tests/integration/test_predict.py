"""Predictions for real: real traces of the real Trainer, in worker processes, through the command line."""

import json

import pytest
from transformers import AutoConfig

from ftbench.plan.gpus import find_gpu
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import build_profile
from ftbench.plan.sources import resolve_model
from ftbench.prediction.predict_cells import predict
from ftbench.prediction.simulate.simulation import simulate
from ftbench.prediction.trace.tracer import Target, trace
from tests.architectures.configs import small_config
from tests.architectures.judge import cell_of
from tests.factories import data_source, profile_data
from tests.integration.conftest import ftbench, run, some_long
from tests.validation.loop import published_loop

pytestmark = pytest.mark.integration

MIB, GIB = 2**20, 2**30


def said(*arguments):
    """The JSON document that a command prints; nothing else is on either stream."""
    done = ftbench(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def smoke_on_cards():
    return said("predict", "smoke", "--gpu", "t4", "--gpu", "h100")


def test_every_cell_is_predicted_on_every_card(smoke_on_cards):
    cells = smoke_on_cards["cells"]
    assert [(c["max_length"], c["train_size"]) for c in cells] == [
        (16, 16), (16, 32), (32, 16), (32, 32)
    ]  # fmt: skip
    assert smoke_on_cards["refused"] == smoke_on_cards["notes"] == []
    for cell in cells:
        assert [card["gpu"] for card in cell["cards"]] == ["t4", "h100"]
        assert {card["verdict"] for card in cell["cards"]} == {"fits"}


def ordered(figure):
    return figure["low_bytes"] <= figure["value_bytes"] <= figure["high_bytes"]


def test_figures_lie_in_their_intervals_and_within_each_other(smoke_on_cards):
    for cell in smoke_on_cards["cells"]:
        tensors = cell["tensors"]
        assert tensors["certainty"] == "exact"
        assert tensors["low_bytes"] == tensors["value_bytes"] == tensors["high_bytes"]
        for card in cell["cards"]:
            figures = [card[n] for n in ("requested", "allocated", "reserved", "process")]
            assert all(map(ordered, figures))
            for inner, outer in zip([tensors, *figures], figures, strict=False):
                for end in ("low_bytes", "value_bytes", "high_bytes"):
                    assert inner[end] <= outer[end]
            assert card["reserved"]["value_bytes"] % (2 * MIB) == 0


def test_a_subset_of_another_size_needs_the_same(smoke_on_cards):
    cells = smoke_on_cards["cells"]
    assert cells[0]["cards"] == cells[1]["cards"]
    assert cells[2]["cards"] == cells[3]["cards"]


def test_weights_gradients_and_moments_are_the_least_of_it(smoke_on_cards):
    # 22.7 M parameters of float32, four times.
    for cell in smoke_on_cards["cells"]:
        assert 4 * 4 * 22_700_000 < cell["tensors"]["value_bytes"] < 500e6


def test_the_largest_batch_shrinks_with_length_and_grows_with_memory(smoke_on_cards):
    found = {(one["gpu"], one["max_length"]): one for one in smoke_on_cards["largest_batch"]}
    assert set(found) == {(gpu, length) for gpu in ("t4", "h100") for length in (16, 32)}
    for one in found.values():
        assert 0 < one["certain"] <= one["possible"]
    for gpu in ("t4", "h100"):
        assert found[gpu, 16]["certain"] > found[gpu, 32]["possible"]
    for length in (16, 32):
        assert found["h100", length]["certain"] > found["t4", length]["possible"]


def test_explain_adds_up():
    data = said("explain", "smoke", "--cell", "max_length=32,train_size=16", "--gpu", "t4")
    (cell,) = data["cells"]
    peak, composition = cell["tensors"]["value_bytes"], cell["composition"]
    for part in ("roles", "modules", "operators"):
        assert sum(share["nbytes"] for share in composition[part]) == peak
    roles = {share["name"]: share["nbytes"] for share in composition["roles"]}
    assert roles["optimizer state"] == pytest.approx(2 * roles["parameters"], rel=0.01)
    assert max(nbytes for _, nbytes in composition["timeline"]) == peak
    assert [name for _, name in composition["phases"]][-4:] == [
        "step 1",
        "step 2",
        "step 3",
        "evaluation",
    ]


def test_explain_draws_it():
    done = ftbench("explain", "smoke", "--cell", "max_length=32,train_size=16", "--gpu", "t4")
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "Predicted peaks",
        "optimizer state",
        "encoder.layer.*",
        "█",
        "The peak is reached",
    ):
        assert text in done.stdout


def test_plan_says_the_same(smoke_on_cards):
    planned = said("plan", "smoke")
    assert [cell["predicted"] for cell in planned["cells"]] == [
        cell["tensors"] for cell in smoke_on_cards["cells"]
    ]


def test_a_run_that_skips_what_does_not_fit_runs_what_does(tmp_path):
    one = ("--skip-unfit", "--only", "max_length=16,train_size=16")
    done = run("smoke", tmp_path / "run", *one, run__cpu_tensors="true")
    assert done.process.returncode == 0, done.process.stderr
    (record,) = done.records
    assert record.status == "ok"
    assert record.predicted.reserved_bytes is None  # there is no card
    # Tensors alone, by the same code without data: the CPU's own count of a two-step pass.
    measured = record.measurement.memory.peak_cpu_tensors_bytes
    assert record.predicted.tensors_bytes == pytest.approx(measured, rel=0.05)


# Architectures, from their configs alone

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
SHARED_KEYS = SIZES | {"num_key_value_heads": 2, "head_dim": 16}
CLASSIFIERS = {
    "bert": SIZES,
    "roberta": SIZES,
    "modernbert": SIZES,
    "distilbert": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "opt": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 96,
        "word_embed_proj_dim": 64,
    },
    "llama": SHARED_KEYS,
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "qwen3": SHARED_KEYS,
    "gemma": SHARED_KEYS,
    "gemma2": SHARED_KEYS,
}


def classifier(name, config, **training):
    """Two cells of a small classifier of an architecture: with either attention."""
    block = {
        "max_length": [48],
        "per_device_train_batch_size": [4],
        "train_size": [16],
        "attn_implementation": ["eager", "sdpa"],
    }
    data = profile_data(
        workload={
            "model": name if name.endswith(".json") else f"architecture:{name}",
            "weights": "random",
            "tokenizer": "offline:minilm-l6",
            "config": config,
        },
        grid=[block],
        training=training,
    )
    profile = build_profile(data, where="test.toml")
    return expand(profile, resolve_model(profile.workload), data_source()).cells


@pytest.mark.parametrize("name", some_long(CLASSIFIERS))
@pytest.mark.parametrize(
    "training", [{}, {"bf16": True, "gradient_checkpointing": True}], ids=["fp32", "bf16"]
)
def test_classifiers_of_any_architecture(name, training):
    cells = classifier(name, CLASSIFIERS[name], **training)
    found = predict(cells, [find_gpu("h100")])
    assert not found.refused
    assert len(found.cells) == len(cells)
    for one in found.cells:
        assert one.cards[0].verdict == "fits"
        assert one.cards[0].reserved.value_bytes >= one.tensors.value_bytes > MIB


def test_a_classifier_whose_memory_depends_on_its_weights_is_refused(tmp_path):
    small_config("jetmoe").save_pretrained(tmp_path)
    found = predict([cell_of(tmp_path)], [find_gpu("t4")])
    assert found.cells == ()
    (refused,) = found.refused
    assert "depends on computed values" in refused.reason
    assert "modeling_jetmoe.py" in refused.reason


LANGUAGE_MODELS = {
    "gpt2": CLASSIFIERS["gpt2"],
    "gpt_neo": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 96,
        "attention_types": [[["global", "local"], 1]],
    },
    **{name: CLASSIFIERS[name] for name in ("opt", "llama", "qwen2", "qwen3", "gemma", "gemma2")},
    "t5": {
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
}
EAGER_ALONE = ("gpt_neo", "gemma2")  # transformers has no other attention for them


@pytest.mark.parametrize("optimizer", ["AdamW", "Adafactor", "SGD"])
@pytest.mark.parametrize("name", some_long(LANGUAGE_MODELS))
def test_language_models_of_any_architecture(name, optimizer):
    peaks = []
    for attention in ("eager", "sdpa"):
        if attention == "sdpa" and name in EAGER_ALONE:
            continue
        config = AutoConfig.for_model(name, **LANGUAGE_MODELS[name], vocab_size=1000)
        config._attn_implementation = attention
        factory = published_loop(config, optimizer, 4, [256] * 3, 0)
        traced = trace(factory, steps=3, target=Target(padding=False))
        peaks.append(traced.peak_bytes)
        roles = {
            traced.roles()[int(traced.block[row])] for row in traced.live_at(traced.peak_event)
        }
        assert "parameters" in roles
        assert simulate(traced).peak_reserved_bytes >= traced.peak_bytes
    assert sorted(peaks, reverse=True) == peaks  # eager needs the more
