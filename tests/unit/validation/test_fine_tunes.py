"""Rows of fine-tunes: the cell of each, what is refused, and errors of planted rows."""

import pandas as pd
import pytest

from ftbench.worker.recipe.model import load_config
from tests.factories import task
from tests.validation import fine_tunes
from tests.validation.fine_tune_errors import fine_tune_table
from tests.validation.fine_tunes import MODELS, NotPredictedError, cell_of

# Parameters of the public models, as their pages say.
PARAMETERS = {
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "NousResearch/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
}


def row(**changes):
    fields = {
        "model": "mistralai/Mistral-7B-v0.1",
        "method": "full",
        "framework_config": "none",
        "num_gpus": "1",
        "gpu": "A100-80GB",
        "torch_dtype": "bfloat16",
        "bf16_flag": "",
        "per_device_batch": "4",
        "max_seq_len": "4096",
        "lora_r": "",
        "target_modules": "",
        "versions": "torch 2.4.1 transformers 4.48.1 accelerate 1.0.1",
    }
    return fine_tunes._row(fields | changes)


@pytest.mark.parametrize("model", PARAMETERS)
def test_the_configs_are_of_the_public_models(model):
    import torch

    of, source = task("causal-lm"), cell_of(row(model=model)).model
    with torch.device("meta"):
        made = of.auto_model.from_config(load_config(source, (), of), attn_implementation="eager")
    assert made.num_parameters() == PARAMETERS[model]


def test_a_row_is_a_cell_of_the_recipe():
    cell = cell_of(
        row(method="lora", lora_r="16.0", target_modules="q_proj v_proj", bf16_flag="True")
    )
    assert (cell.max_length, cell.per_device_train_batch_size) == (4096, 4)
    assert (cell.dtype, cell.packing, cell.attn_implementation) == (
        "bfloat16",
        "concatenate",
        "flash_attention_2",
    )
    assert (cell.lora.r, cell.lora.target_modules) == (16, r".*\.(q_proj|v_proj)")
    assert cell.settings["bf16"]
    assert (
        cell_of(
            row(
                framework_config="accelerated-peft-bnb",
                method="lora",
                lora_r="8",
                target_modules="q_proj",
            )
        ).quantization
        == "nf4"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_gpus": "2"}, "several cards"),
        ({"model": "a/b"}, "no config"),
        ({"framework_config": "foak-fast-kernels"}, "own kernels"),
    ],
)
def test_what_is_not_predicted_says_why(changes, words):
    with pytest.raises(NotPredictedError, match=words):
        cell_of(row(**changes))


def test_versions_of_transformers_are_read():
    assert row(versions="torch 2.4.1 transformers 4.45.2 accelerate 0.34").transformers == (
        4,
        45,
        2,
    )
    assert row(versions="").transformers == ()


def test_every_config_belongs_to_a_model_with_a_name():
    assert all("--" in file.stem for file in MODELS.glob("*.json"))


def test_errors_of_planted_rows():
    rows = pd.DataFrame(
        {
            "model": ["a/b"] * 4,
            "method": ["full"] * 4,
            "framework_config": ["none"] * 4,
            "peak_allocated_bytes": ["1000", "2000", "", "500"],
            "outcome": ["ok", "ok", "failed (OOM or error)", "ok"],
            "predicted_allocated_bytes": [1010, 2000, 9000, None],
            "predicted_allocated_low_bytes": [1005, 1990, 9000, None],
            "predicted_allocated_high_bytes": [1020, 2010, 9000, None],
            "predicted_oom": [0, 0, 0, None],
            "not_predicted": ["", "", "", "several cards"],
        }
    )
    table = fine_tune_table(rows)
    # Errors of 1 % and 0 %; the first lies below its interval; the third is said to fit, but died.
    assert "| all | 2 | 0.5 % | 1 % | 1 of 2 | 1.25 % | 1 of 3 |" in table
    assert "1 rows not predicted: several cards" in table
