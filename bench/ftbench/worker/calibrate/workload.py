"""A workload that needs no network: an encoder with random weights, its tokenizer, and texts of random words."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ftbench.records.calibration import Workload, WorkloadRequest
from ftbench.records.messages import Progress

_WORDS = 30_517  # with the special tokens, as many as BERT has
_TEXTS = 512
_WORDS_PER_TEXT = 300  # more than the longest cell has tokens, so that no step has padding
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The widths of MiniLM-L6 for a CPU, and those of BERT base for a card.
_SIZES = {
    "cpu": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
    "cuda": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
}


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Write a model and its data into folders of the request's, and return the `Workload` as JSON data."""
    request = WorkloadRequest.model_validate(body)
    emit(Progress(phase="making a model and texts"))
    folder = Path(request.folder)
    made = Workload(model=str(folder / "model"), data=str(folder / "data"))
    _write_texts(Path(made.data) / "train.csv")
    _write_model(Path(made.model), request.device)
    return made.model_dump(mode="json")


def _write_texts(file: Path) -> None:
    draw = random.Random(0)
    file.parent.mkdir(parents=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for place in range(_TEXTS):
            words = (f"w{draw.randrange(_WORDS)}" for _ in range(_WORDS_PER_TEXT))
            writer.writerow((f"t{place} {' '.join(words)}", place % 2))


def _write_model(folder: Path, kind: str) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig.from_dict({"num_attention_heads": 12, **_SIZES[kind]})
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = (*_SPECIAL, *(f"w{number}" for number in range(_WORDS)))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **dict(
            zip(
                ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
                _SPECIAL,
                strict=True,
            )
        ),
    ).save_pretrained(folder)
