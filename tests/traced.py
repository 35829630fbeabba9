"""Cells for tests that trace: two small models of a cell's own recipe, a second or so to trace."""

from ftbench.plan.cell import Cell
from ftbench.plan.grid import expand
from ftbench.plan.profile import Quantization, TaskName, WeightsDtype
from ftbench.plan.sources import resolve_model
from tests.factories import data_source, profile

LAYERS = 2
# A batch outweighs such a model: hidden states of width 64, and a vocabulary that holds no more than
# the tokens of the documents that a trace is made with.
VOCABULARY = 1100
CONFIGS = {
    "bert": {
        "num_hidden_layers": LAYERS,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
    },
    "llama": {
        "num_hidden_layers": LAYERS,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "t5": {"num_layers": LAYERS, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4},
    "bart": {
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "d_model": 64,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    },
    "gpt2": {"n_layer": LAYERS, "n_embd": 64, "n_head": 4},
    "distilbert": {"n_layers": LAYERS, "dim": 64, "hidden_dim": 128, "n_heads": 4},
}


def traced_cell(
    model: str,
    attention: str = "sdpa",
    *,
    batch: int = 8,
    length: int = 64,
    eval_size: int = 16,
    config: dict[str, int] | None = None,
    method: str = "full",
    dtype: WeightsDtype = "float32",
    quantization: Quantization = "none",
    task: TaskName = "text-classification",
    packing: str = "none",
    **training: object,
) -> Cell:
    """Return a cell of a small model with random weights; `training` are its settings."""
    columns = (
        {"completion_column": "target", "max_target_length": 24} if task == "seq2seq-lm" else {}
    )
    axes = {
        "max_length": [length],
        "per_device_train_batch_size": [batch],
        "train_size": [16 * batch],
    }
    of = profile(
        workload={
            "model": f"architecture:{model}",
            "tokenizer": "offline:minilm-l6",
            "weights": "random",
            "task": task,
            **columns,
            "config": CONFIGS[model] | {"vocab_size": VOCABULARY} | (config or {}),
        },
        grid=[axes],
        training=training,
        attn_implementation=attention,
        method=method,
        packing=packing,
        dtype=dtype,
        quantization=quantization,
    )
    return expand(
        of,
        resolve_model(of.workload),
        data_source(eval_size=eval_size, task=task, **columns),
    ).cells[0]
