"""Tests of tables of many sources: reasons and measured values, on planted rows."""

import pandas as pd
import pytest

from tests.validation.columns import COLUMNS
from tests.validation.published.predictions import measured, predict_rows, trace_run
from tests.validation.published.rows import (
    Run,
    Sizes,
    card_of_row,
    find_size,
    reason_against,
    run_of,
    text_of,
    torch_of,
)

ROW = text_of(
    {
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
)


TITAN = ROW | {
    "model": "Llama 3.1 8B",
    "method": "pretraining",
    "n_gpus": "8.0",
    "gpu": "H100 96GB HBM2e 500W",
    "framework": "torchtitan 9dec370",
    "sharding": "FSDP2 1D",
    "resharding": "",
    "param_dtype": "fp32 (mixed precision)",
    "compute_dtype": "bf16",
    "reduce_dtype": "fp32",
    "optimizer": "AdamW fused",
    "micro_batch": "2.0",
    "seq_len": "8192 (default)",
    "activation_ckpt": "selective (op)",
    "torch_version": "1963fc8 (2.6 dev)",
}
LITGPT = TITAN | {
    "model": "Llama-2-7b-hf",
    "framework": "thunder/benchmarks/benchmark_litgpt.py (litgpt GPT model)",
    "gpu": "H100 80GB",
    "sharding": "FSDP2 zero2",
    "resharding": "reshard_after_forward=False",
    "param_dtype": "bf16 (model.to(bfloat16))",
    "reduce_dtype": "bf16",
    "micro_batch": "1.0",
    "seq_len": "4096",
    "activation_ckpt": "no",
    "compile": "no (eager)",
    "torch_version": "nightly 2024-08",
}
TINY = Sizes(layers=4, width=64, heads=4, key_heads=2, hidden=160, vocabulary=96)


@pytest.mark.parametrize(
    ("row", "changed", "named"),
    [
        (ROW, {}, "litgpt"),
        (ROW, {"n_gpus": "8.0"}, "litgpt"),
        (ROW, {"n_gpus": ""}, "number of cards"),
        (ROW, {"compile": "torch.compile"}, "compiled"),
        (ROW, {"optimizer": "", "micro_batch": ""}, "optimizer, micro_batch"),
        (ROW, {"seq_len": "<= 512, longest of batch"}, "depends on data"),
        (ROW, {"framework": "DeepSpeed PR #7700"}, "DeepSpeed"),
        (ROW, {"sharding": "DeepSpeed ZeRO-2"}, "DeepSpeed"),
        (TITAN, {"model": "Llama 4"}, "Llama 4"),
        (TITAN, {"sharding": "FSDP2 8 x CP 1"}, "8 x CP 1"),
        (TITAN, {"sharding": ""}, "no sharding"),
        (TITAN, {"compute_dtype": "float8nocompile"}, "float8nocompile"),
        (TITAN, {"optimizer": "SGD"}, "SGD"),
        (TITAN, {"activation_ckpt": "yes"}, "recomputed"),
        (TITAN, {"gpu": "Ascend 910"}, "Ascend 910"),
        (LITGPT, {"activation_ckpt": "full"}, "recomputed"),
        (LITGPT, {"param_dtype": "fp32"}, "fp32"),
    ],
)
def test_every_row_has_the_reason_that_comes_first(row, changed, named):
    assert named in reason_against(row | changed)


def test_a_row_becomes_the_run_that_it_states():
    assert reason_against(TITAN) is None
    titan, litgpt = run_of(TITAN), run_of(LITGPT)
    assert (titan.program, titan.ranks, titan.batch, titan.length) == ("torchtitan", 8, 2, 8192)
    assert (titan.checkpointing, titan.reshard, titan.torch) == ("operators", True, (2, 6))
    assert (litgpt.program, litgpt.checkpointing, litgpt.reshard) == ("litgpt", "none", False)
    assert (litgpt.sizes.hidden, litgpt.torch) == (11008, (2, 5))
    zero3 = LITGPT | {"sharding": "FSDP2 zero3", "resharding": ""}
    assert run_of(zero3).reshard


def test_a_batch_that_only_the_note_states_is_read_from_it():
    row = TITAN | {"micro_batch": ""}
    assert "micro_batch" in reason_against(row)
    row["not_stated"] = (
        "model and local batch (torchtitan llama3 8b, batch 3 by the sibling script)"
    )
    assert reason_against(row) is None
    assert run_of(row).batch == 3


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("1963fc8 (2.6 dev)", (2, 6)),
        ("2.10.0", (2, 10)),
        ("nightly 2024-08", (2, 5)),
        ("2024-09", (2, 6)),
        ("2025-01/02 nightly", (2, 7)),
        ("", (2, 6)),
    ],
)
def test_the_release_of_a_nightly_build_is_known_by_its_month(text, release):
    assert torch_of(text) == release


def test_a_card_of_another_size_has_the_same_chip():
    usual, larger = card_of_row("H100"), card_of_row("H100 96GB HBM2e 500W")
    assert card_of_row("H100 80GB") == usual
    assert larger.compute_capability == usual.compute_capability
    assert larger.memory_bytes > usual.memory_bytes
    assert larger.multiprocessors == usual.multiprocessors
    assert find_size(card_of_row("A100 40GB")) == 40


@pytest.mark.parametrize("program", ["torchtitan", "litgpt"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_keeps_its_shards_of_weights_and_states(program, ranks):
    trace = trace_run(_run(program, ranks=ranks))
    element = {"torchtitan": 4, "litgpt": 2}[program]
    sharded = element * sum(-(-rows // ranks) * rest for rows, rest in _shapes(TINY, program))
    turns = 64 * (TINY.width // TINY.heads) * 4  # in both: a complex number for two, or two halves
    made = _made_by_role(trace)
    assert made["parameters"] == sharded + turns
    counts = 4 * len(_shapes(TINY, program))  # the steps that AdamW has counted
    assert made["optimizer state"] == 2 * sharded + counts


def test_more_checkpointing_keeps_less():
    peaks = [
        trace_run(_run("torchtitan", checkpointing=kind)).peak_bytes
        for kind in ("none", "every second block", "operators", "full")
    ]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == 4


def test_weights_that_stay_whole_are_held_until_the_backward_pass():
    kept, resharded = (
        trace_run(_run("litgpt", reshard=reshard)).peak_bytes for reshard in (False, True)
    )
    assert kept > resharded


def test_rows_get_all_columns_with_and_without_measured_values():
    written = predict_rows(pd.DataFrame([ROW]))
    assert list(written.columns) == [*ROW, *COLUMNS]
    assert measured(pd.DataFrame([ROW])) is None


def _run(program, ranks=2, checkpointing="none", reshard=True):
    return Run(program, "tiny", TINY, ranks, 2, 64, checkpointing, reshard, "H100", (2, 6))


def _shapes(sizes, program):
    """Return the rows of each parameter, and the elements of a row."""
    width, keys = sizes.width, sizes.width * sizes.key_heads // sizes.heads
    ends = [(sizes.vocabulary, width), (sizes.vocabulary, width), (width, 1)]
    norms = [(width, 1), (width, 1)]
    perceptron = [(sizes.hidden, width), (sizes.hidden, width), (width, sizes.hidden)]
    attention = [(width, width), (keys, width), (keys, width), (width, width)]
    if program == "litgpt":
        attention = [(width + 2 * keys, width), (width, width)]
    return ends + sizes.layers * (norms + perceptron + attention)


def _made_by_role(trace):
    """Return the bytes of all blocks of each role, as they were allocated."""
    sizes = dict(zip(trace.block.tolist()[::-1], trace.nbytes.tolist()[::-1], strict=True))
    made = {}
    for block, role in trace.roles().items():
        made[role] = made.get(role, 0) + sizes[block]
    return made


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
