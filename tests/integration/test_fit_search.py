"""`ftbench fit-search` from the command line: its answer against predictions of all that it searches."""

import json
import tomllib

import pytest

from ftbench.plan.gpus import custom_gpu
from ftbench.plan.grid import on_gpus
from ftbench.plan.profile_file import build_profile, load_profile
from ftbench.plan.resolve import resolve
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.predict_cells import predict
from tests.integration.conftest import ftbench

pytestmark = pytest.mark.integration

PROFILE = """
[workload]
model = "architecture:llama"
weights = "random"
tokenizer = "offline:minilm-l6"
dataset = "synthetic:full-length"
task = "causal-lm"
text_column = "text"
eval_size = 8

[workload.config]
num_hidden_layers = 1
hidden_size = 512
intermediate_size = 1024
num_attention_heads = 4

[[grid]]
max_length = [64]
per_device_train_batch_size = [4]
train_size = [64]

[training]
optim = "adamw_torch"
"""
BATCH = 4
# Full fine-tuning with Adam does not fit on such a card, SGD does.
GPU = "1580MiB"


def cell_of(path, **settings):
    """Return the profile's cell with other settings of the Trainer."""
    data = tomllib.loads(path.read_text())
    data["training"] = data["training"] | settings
    return resolve(build_profile({**data, "name": "small"}, where="test")).cells[0]


def test_the_answer_is_the_first_that_fits_of_all_that_can_be_predicted(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(PROFILE)
    over = ("--over", "optim=adamw_torch,sgd", "--over", "gradient_checkpointing=false")
    done = ftbench("fit-search", "small.toml", "--gpu", GPU, *over, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    gpu = custom_gpu(GPU)
    wide = gpu.model_copy(update={"name": "wide", "memory_low_bytes": 2**50, "memory_bytes": 2**50})
    cells = {optim: cell_of(path, optim=optim) for optim in ("adamw_torch", "sgd")}
    lengths = SequenceLengths(lengths=(64,))
    predictions = predict(list(cells.values()), [gpu, wide], sequence_lengths=lengths)
    fits = [
        name
        for name, cell in cells.items()
        if predictions.of(cell.cell_id).cards[0].verdict == "fits"
    ]
    assert fits == ["sgd"]
    found = answer["found"]["settings"]
    assert found["optim"] == "sgd"
    assert answer["found"]["departures"] == ["optim"]
    batch = found["per_device_train_batch_size"]
    assert batch >= BATCH

    # Pasted into the profile, the lines make the cell of the answer.
    changes = tomllib.loads("\n".join(answer["found"]["changes"]))
    data = tomllib.loads(PROFILE)
    data["training"] |= changes["training"]
    data["grid"] = [data["grid"][0] | block for block in changes.get("grid", [{}])]
    (chosen,) = resolve(build_profile({**data, "name": "small"}, where="test")).cells
    assert chosen.cell_id == answer["found"]["cell_id"]

    # What neighbours need is what a prediction of them says.
    neighbours = {one["setting"]: one for one in answer["neighbours"]}
    assert set(neighbours) == {"optim", "per_device_train_batch_size"}
    for settings, name in (
        ({"optim": "adamw_torch"}, "optim"),
        ({"optim": "sgd"}, "per_device_train_batch_size"),
    ):
        one = neighbours[name]
        cell = cell_of(path, **settings).with_shape(
            one["settings"]["per_device_train_batch_size"], 64
        )
        (own,) = predict([cell], [gpu, wide], sequence_lengths=lengths).cells
        assert one["cell_id"] == own.cell_id
        assert one["tensors"] == own.tensors.model_dump(mode="json")
        assert one["needs"] == own.cards[1].reserved.model_dump(mode="json")
        assert one["card"] == own.cards[0].model_dump(mode="json")
        assert one["card"]["verdict"] != "fits"


def test_a_card_on_which_nothing_fits_is_a_finding(tmp_path):
    (tmp_path / "small.toml").write_text(PROFILE)
    over = ("--over", "gradient_checkpointing=false")
    done = ftbench("fit-search", "small.toml", "--gpu", "1000MiB", *over, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Nothing fits" in done.stdout
    assert "1 of 1 configurations" in done.stdout


def test_several_cards_are_a_profiles_axis(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(PROFILE)
    done = ftbench("predict", "small.toml", "--gpus", "1,2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert [one["num_processes"] for one in cells] == [1, 2]
    expected = resolve(on_gpus(load_profile(str(path)), (1, 2))).cells
    assert [one["cell_id"] for one in cells] == [cell.cell_id for cell in expected]
    # DDP's buckets are beside the gradients.
    assert cells[1]["tensors"]["value_bytes"] > cells[0]["tensors"]["value_bytes"]
