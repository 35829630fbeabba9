"""Profiles of several processes: the Trainer's and accelerate's own code, traced as one rank."""

import pytest

from ftbench.base.errors import PredictionError
from ftbench.plan.parallel import Parallel
from ftbench.plan.settings import SETTINGS
from ftbench.prediction.predict_cells import predict
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.trace_trainer import trace_trainer
from tests.integration.conftest import ftbench
from tests.traced import traced_cell

pytestmark = pytest.mark.integration

FLOAT = 4
ADAM = 2  # states per parameter


def cell_of(strategy, number, model="llama", **options):
    task = {} if model == "bert" else {"task": "causal-lm"}
    cell = traced_cell(model, **task)
    if number == 1:
        return cell
    parallel = Parallel(strategy=strategy, **options)
    changes = {"num_processes": number, "strategy": strategy, "parallel": parallel}
    return cell.model_copy(update=changes)


def traced(strategy, number, rank=0, **options):
    cell = cell_of(strategy, number, **options)
    return trace_trainer(cell, ranks=Ranks(number, rank=rank), evaluation=False)


def bytes_of(trace, role):
    rows = trace.kind == 1
    sizes = dict(zip(trace.block[rows], trace.nbytes[rows], strict=True))
    return sum(int(sizes[block]) for block, its in trace.traced_roles.items() if its == role)


def test_every_process_of_ddp_has_the_states_of_one_gpu():
    alone = trace_trainer(cell_of("ddp", 1), evaluation=False)
    states = bytes_of(alone, "optimizer state")
    of_two, of_eight = (traced("ddp", number) for number in (2, 8))
    assert bytes_of(of_two, "optimizer state") == bytes_of(of_eight, "optimizer state") == states
    assert of_two.peak_bytes == of_eight.peak_bytes > alone.peak_bytes


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_states_are_shared_between_processes(strategy):
    alone = bytes_of(trace_trainer(cell_of("ddp", 1), evaluation=False), "optimizer state")
    for number in (2, 4, 8):
        states = bytes_of(traced(strategy, number), "optimizer state")
        # Shards are whole rows, or padded flat parameters: never less than a part.
        assert alone / number <= states <= alone / number * 1.05


def test_zero_1_shares_the_states_of_whole_parameters():
    alone = bytes_of(trace_trainer(cell_of("ddp", 1), evaluation=False), "optimizer state")
    replicated = traced("ddp", 3)
    shares = [traced("zero1", 3, rank=rank) for rank in range(3)]
    states = [bytes_of(share, "optimizer state") for share in shares]
    assert sum(states) == alone
    assert states == sorted(states, reverse=True)
    for share, own in zip(shares, states, strict=True):
        assert replicated.peak_bytes - share.peak_bytes == alone - own


def test_embeddings_that_accelerate_shards_twice_are_refused_with_what_to_write():
    with pytest.raises(PredictionError, match="sharded already") as refused:
        traced("fsdp2", 2, model="bert")
    assert "transformer_layer_cls_to_wrap" in refused.value.hint
    named = traced("fsdp2", 2, model="bert", transformer_layer_cls_to_wrap=("BertLayer",))
    assert named.peak_bytes < traced("ddp", 2, model="bert").peak_bytes


def test_parameters_that_stay_unsharded_take_more():
    resharded = traced("fsdp2", 8)
    kept = traced("fsdp2", 8, reshard_after_forward=False)
    assert kept.peak_bytes > resharded.peak_bytes


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "fsdp1"])
def test_a_prediction_has_both_ends_of_the_ranks(strategy):
    (found,) = predict([cell_of(strategy, 4)]).cells
    assert found.smallest_rank_bytes <= found.tensors.value_bytes
    first = trace_trainer(cell_of(strategy, 4), ranks=Ranks(4))
    assert found.tensors.value_bytes == first.peak_bytes


def test_an_evaluation_keeps_what_all_processes_have_computed():
    cells = [cell_of("ddp", number, model="bert") for number in (2, 4)]
    data = cells[0].data.model_copy(update={"eval_size": 4096})
    cells = [cell.model_copy(update={"data": data}) for cell in cells]
    peaks = [trace_trainer(cell, ranks=Ranks(cell.num_processes)).peak_bytes for cell in cells]
    assert all(peaks)


def test_every_axis_of_processes_moves_memory():
    assert "memory" in SETTINGS["num_processes"].moves & SETTINGS["strategy"].moves


PROFILE = """
num_processes = 8

[workload]
model = "architecture:llama"
weights = "random"
tokenizer = "offline:minilm-l6"
dataset = "synthetic:full-length"
task = "causal-lm"
text_column = "text"
eval_size = 8

[workload.config]
num_hidden_layers = 2
hidden_size = 64
intermediate_size = 128
num_attention_heads = 4

[parallel]
strategy = "fsdp2"

[[grid]]
max_length = [32]
per_device_train_batch_size = [2, 4]
train_size = [64]
"""


@pytest.mark.long
def test_sharding_is_predicted_without_cards_and_not_run(tmp_path):
    (tmp_path / "sharded.toml").write_text(PROFILE)
    done = ftbench("predict", "sharded.toml", "--gpu", "h100", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "smallest rank" in done.stdout
    assert "on 8 GPUs" in done.stdout
    refused = ftbench("run", "sharded.toml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "cards only" in refused.stderr
    assert not (tmp_path / "results" / "sharded" / "records").exists()
