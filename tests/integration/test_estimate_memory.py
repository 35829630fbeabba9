"""A model's name alone, for real: the figures, and the same from the profile that is printed."""

import json
import shutil

import pytest
from transformers import BertConfig

from tests.integration.conftest import ftbench, run

pytestmark = pytest.mark.integration

SHAPE = ("--length", "64", "--batch", "4", "--gpu", "t4", "--gpu", "h100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("models")
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    config.save_pretrained(made / "small")
    shutil.copy(made / "small" / "config.json", made / "config.json")
    return made


def estimated(folder, *arguments):
    done = ftbench("estimate-memory", *arguments, "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_printed_profile_says_the_same_to_the_byte(folder):
    found = estimated(folder, "small", *SHAPE, "--optim", "adafactor")
    (folder / "own.toml").write_text(found["profile_toml"])
    done = ftbench("predict", "own.toml", "--gpu", "t4", "--gpu", "h100", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (ours,), (theirs,) = found["cells"], json.loads(done.stdout)["cells"]
    same = ("cell_id", "tensors", "cards", "max_length", "per_device_train_batch_size")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert json.loads(done.stdout)["notes"] == []


def test_weights_and_moments_are_counted_to_the_byte(folder):
    """A BERT of width 32, counted by hand: embeddings, two layers, the pooler and the head."""
    embeddings = (30522 + 512 + 2) * 32 + 2 * 32
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 4 * 32
    weights = 4 * (embeddings + 2 * layer + (32 * 32 + 32) + (32 * 2 + 2))
    buffers = 2 * 512 * 8  # position and token type ids
    (cell,) = estimated(folder, "config.json", *SHAPE)["cells"]
    roles = {share["name"]: share["nbytes"] for share in cell["composition"]["roles"]}
    assert roles["parameters"] == weights + buffers
    assert roles["optimizer state"] == 2 * weights
    (of_sgd,) = estimated(folder, "config.json", *SHAPE, "--optim", "sgd")["cells"]
    assert cell["tensors"]["value_bytes"] - of_sgd["tensors"]["value_bytes"] >= 2 * weights


@pytest.mark.long
def test_texts_are_full_so_a_mask_is_not_made(folder):
    """The same shape on a real data set has padding, and a mask for each batch."""
    found = estimated(folder, "small", *SHAPE)
    (folder / "padded.toml").write_text(
        found["profile_toml"].replace("synthetic:full-length", "offline:imdb")
    )
    done = ftbench("predict", "padded.toml", "--json", "--set", "workload.eval_size=16",
                   "--set", "grid.train_size=[64]", "--set", "grid.max_length=[512]", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (long,) = estimated(folder, "small", "--length", "512", "--batch", "4", "--gpu", "t4")["cells"]
    (padded,) = json.loads(done.stdout)["cells"]
    assert long["tensors"]["value_bytes"] < padded["tensors"]["value_bytes"]


def test_a_profile_without_data_cannot_be_run(folder):
    found = estimated(folder, folder / "small", *SHAPE)
    (folder / "run.toml").write_text(found["profile_toml"])
    done = run(folder / "run.toml", folder / "out").process
    assert done.returncode == 2
    assert "there are no texts to train on" in done.stderr


def test_a_table_a_line_and_a_profile(folder):
    done = ftbench("estimate-memory", "small", *SHAPE, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" fits")] == [
        "card", "t4", "h100"
    ]  # fmt: skip
    assert "Tensors at their peak, as on t4: " in done.stdout


def test_a_model_that_is_not_there_is_a_clear_error(folder):
    done = ftbench("estimate-memory", "smal", *SHAPE, cwd=folder)
    assert done.returncode == 2
    assert "nearest:  small" in done.stderr
    assert "Traceback" not in done.stderr
