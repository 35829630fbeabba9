"""Tasks whose answers are tokens or words, for real: from a file to the report, and their memory as predicted."""

import json

import numpy as np
import pytest

from tests.integration.conftest import run, some_long

pytestmark = pytest.mark.integration

SMALL = {
    "bert": {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64},
    "llama": {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64},
    "t5": {"num_layers": 1, "d_model": 32, "d_ff": 64, "num_heads": 2, "d_kv": 16},
}
HEADS = {"bert": {"num_attention_heads": 2}, "llama": {"num_attention_heads": 2}, "t5": {}}
COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write a file whose texts end in the colour that they begin with, with words tagged by hand; return it."""
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        colour = str(draw.choice(COLOURS))
        words = [colour, *map(str, draw.choice(["small", "large", "old"], draw.integers(2, 9)))]
        rows.append(
            {
                "text": " ".join([*words, colour]),
                "prompt": " ".join(words),
                "answer": colour,
                "words": words,
                "tags": ["B-COLOUR", *["O"] * (len(words) - 1)],
            }
        )
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


TASKS = {
    "causal-lm": ("llama", {"text_column": "text"}, {"token_accuracy", "perplexity"}),
    "masked-lm": ("bert", {"text_column": "text"}, {"token_accuracy", "perplexity"}),
    "seq2seq-lm": (
        "t5",
        {"text_column": "prompt", "completion_column": "answer"},
        {"token_accuracy", "perplexity", "exact_match"},
    ),
    "token-classification": (
        "bert",
        {"text_column": "words", "label_column": "tags"},
        {"f1_entities", "word_accuracy"},
    ),
}


def settings(data, task, **changes):
    model, columns, _ = TASKS[task]
    workload = {
        "task": task,
        "model": f"architecture:{model}",
        "tokenizer": "offline:minilm-l6",
        "weights": "random",
        "dataset": str(data),
        "where": "{}",
        "drop_duplicates": "false",
        "eval_split": "from-train",
        "eval_size": "16",
        **columns,
    }
    if task == "seq2seq-lm":
        workload["max_target_length"] = "6"
    config = {f"config__{k}": str(v) for k, v in (SMALL[model] | HEADS[model]).items()}
    grid = {"max_length": "[16]", "per_device_train_batch_size": "[8]", "train_size": "[64]"}
    return (
        {f"workload__{name}": value for name, value in (workload | config).items()}
        | {f"grid__{name}": value for name, value in grid.items()}
        | {"training__num_train_epochs": "2", "training__learning_rate": "0.005"}
        | changes
    )


@pytest.mark.parametrize("task", some_long(TASKS))
def test_a_task_from_start_to_end(data, tmp_path, task):
    chosen = settings(data, task, run__cpu_tensors="true")
    done = run("smoke", tmp_path / "run", "--skip-unfit", **chosen)
    assert done.process.returncode == 0, done.process.stdout + done.process.stderr
    (record,) = done.records
    measured = record.measurement
    assert measured.scores == ()  # the weights are random: scores would mean nothing
    assert measured.epochs[-1].train_loss < measured.epochs[0].train_loss
    assert done.directory.read_preparation().flops is not None
    # Tensors alone, by the same code without data: the CPU's own count of a two-step pass.
    of_cpu = measured.memory.peak_cpu_tensors_bytes
    assert record.predicted.tensors_bytes == pytest.approx(of_cpu, rel=0.05)


PACKINGS = ["none", "concatenate", "padding-free"]


def test_packing_is_an_axis(data, tmp_path):
    chosen = settings(data, "causal-lm", grid__packing=json.dumps(PACKINGS))
    chosen |= {"grid__train_size": "[24]", "grid__max_length": "[12]"}
    done = run("smoke", tmp_path / "run", **chosen)
    assert done.process.returncode == 0, done.process.stdout + done.process.stderr
    by_packing = {record.cell.packing: record.measurement for record in done.records}
    assert set(by_packing) == set(PACKINGS)
    tokens = {
        packing: (
            sum(phases[name].real_tokens for name in ("first_steps", "train")),
            sum(phases[name].padded_tokens for name in ("first_steps", "train")),
        )
        for packing, measured in by_packing.items()
        for phases in [measured.ranks[0].phases]
    }
    assert tokens["none"][0] < tokens["none"][1]
    # Rows of 12 tokens without a gap; and the same texts as unpacked ones, without padding.
    assert tokens["concatenate"] == (2 * 24 * 12, 2 * 24 * 12)
    assert tokens["padding-free"] == (tokens["none"][0], tokens["none"][0])
    counts = {
        packing: m.ranks[0].phases["evaluation"].real_tokens for packing, m in by_packing.items()
    }
    assert len(set(counts.values())) == 1, "evaluation examples are never packed"


@pytest.mark.long
def test_a_language_model_learns_and_says_how_well(data, tmp_path):
    """SmolLM2 itself, few steps: the answer is the prompt's first word, which it has to find."""
    chosen = settings(data, "causal-lm")
    chosen = {k: v for k, v in chosen.items() if not k.startswith("workload__config")} | {
        "workload__model": "offline:smollm2",
        "workload__tokenizer": "offline:smollm2",
        "workload__weights": "pretrained",
        "workload__text_column": "prompt",
        "workload__completion_column": "answer",
        "training__learning_rate": "0.0005",
        "grid__max_length": "[24]",
        "grid__train_size": "[32]",
    }
    done = run("smoke", tmp_path / "run", **chosen)
    assert done.process.returncode == 0, done.process.stdout + done.process.stderr
    (record,) = done.records
    scores = {score.name: score for score in record.measurement.scores}
    assert set(scores) == {"token_accuracy", "perplexity", "exact_match"}
    assert scores["exact_match"].value > scores["exact_match"].guess
    assert scores["perplexity"].value == pytest.approx(
        np.exp(record.measurement.eval_loss), rel=0.1
    )
    assert "exact match" in (done.directory.path / "report.md").read_text()
