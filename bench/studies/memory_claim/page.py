"""The page with the results of the claim about memory, as a document."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from studies.memory_claim import tables
from studies.memory_claim.figures import BATCH, length_figure, share_figure, sizes_figure
from studies.memory_claim.growth import ClaimData, SeriesSetting
from studies.memory_claim.headline import headline, over_by_hand
from studies.memory_claim.names import MODELS

TITLE = "Is memory quadratic in length, and linear in parameters?"


def page(answers: ClaimData, measured: Mapping[str, int]) -> Document:
    """Return the page; `measured` has the measured peaks of CPU tensors by cell id."""
    sections = (
        Section("What was found", headline(answers, measured)),
        Section(
            "When is memory quadratic in length, when linear?",
            (*_LENGTH, _hand_words(answers)),
            (
                *(tables.exponents_table(answers, model) for model in MODELS),
                tables.laws_table(answers),
            ),
            tuple(length_figure(answers, model) for model in MODELS),
        ),
        Section(
            "What share is parameters, gradients and optimizer state?",
            _SHARE,
            tuple(tables.shares_table(answers, model, _shared(model)) for model in MODELS),
            (share_figure(answers),),
        ),
        Section(
            "How does the total grow with parameters?",
            _SIZES,
            (
                tables.sizes_table(
                    "Sizes of BERT (batch x length; sdpa, full batches)", answers.family
                ),
                tables.sizes_table("Deeper, at width 768", answers.depths),
                tables.sizes_table("Wider, at 12 layers", answers.widths),
            ),
            (sizes_figure(answers),),
        ),
        Section(
            "On cards",
            _CARDS,
            tuple(tables.cards_table(answers, model, BATCH) for model in MODELS),
        ),
        Section("Other optimizers, half precision", _OPTIONS, (tables.options_table(answers),)),
        Section(
            "Measured and predicted, on the CPU",
            _beside_words(measured),
            (tables.beside_table(answers, measured),),
        ),
        Section("What the figures assume", _assumed(answers)),
        Section("How to reproduce this page", _AGAIN),
    )
    empty = pd.DataFrame()
    return Document(title=TITLE, sections=sections, cells=empty, ledger=empty)


def _shared(model: str) -> list[SeriesSetting]:
    return [
        SeriesSetting(model, attention, True, checkpointing, BATCH)
        for checkpointing in (False, True)
        for attention in ("eager", "sdpa")
    ]


_LENGTH = (
    "A power of 1 is linear growth, of 2 quadratic: a doubling multiplies by 2 to that power. In brackets is the"
    " power without parameters, gradients and optimizer state; it is left out if the peak moves from"
    " one moment of the step to another, since the two cannot be compared then.",
    "The peaks are exact, so the formulas are not fits: three lengths give the coefficients, and every further one"
    " agrees to the byte; a dash means that no fourth length agreed.",
)
_BY_HAND = (
    "By hand: eager attention keeps the scores of every head and layer after the softmax (4 bytes), and where"
    " attention has dropout its result (4) and mask (1) as well; DistilBERT's has, ModernBERT's has not. Fused"
    " attention keeps its mask in float32, 4 bytes per layer for all heads."
)
_OVER = (
    " Bytes beyond the count exist at the peak only, in bytes per token²: {over}. In ModernBERT with eager"
    " attention 2 x 12 x 4 of them are two more tensors of scores of the last layer, in the softmax's backward."
    " The rest are masks that are still live, one in DistilBERT and two in ModernBERT (in full batches one): of"
    " 4 bytes (eager) or 1 (sdpa)."
)
_SHARE = (
    "At short lengths the peak is reached when the last gradient is made and all of the state exists. At long"
    " ones it is reached when the backward pass begins, before most gradients are made: the state is then"
    " nearer to 12 bytes per parameter. So the peak is not the sum of 16 bytes per parameter and activations,"
    " but nearly the larger of that and of 12 bytes per parameter with activations.",
)
_SIZES = (
    "State bytes are those of the smallest step (batch 2, length 64). The bytes above 16 are AdamW's step counters,"
    " 4 bytes per parameter tensor, and the model's buffers. The power is that of the whole peak with parameters"
    " from one size to the next.",
)
_CARDS = (
    "Tensors are exact; requested, allocated and reserved are simulated by the allocator's rules"
    " (docs/prediction.md). In float32 every card's sdpa takes the memory-efficient kernel: flash attention takes"
    " half precision only, and no mask.",
)
_OPTIONS = (
    "Autocast keeps parameters, gradients and state in float32, and adds half-precision copies of the weights:"
    " it halves neither state nor all activations. SGD without momentum has no state, Adafactor's is two"
    " vectors per matrix; their smallest peaks have temporaries of the optimizer's step in them.",
)


_AGAIN = (
    "`nox -s claim` writes this page; it needs no GPU and no hub. The measured figures come from"
    " `ftbench run attention-scaling --only train_size=8` and `ftbench report results/attention-scaling"
    " --format csv --out reports/attention-scaling/measured`, in that order before it.",
)


def _hand_words(answers: ClaimData) -> str:
    over = over_by_hand(answers)
    return _BY_HAND + (_OVER.format(over=over) if over else " Nothing is over.")


def _beside_words(measured: Mapping[str, int]) -> tuple[str, ...]:
    like = (
        "Both figures are those of CPU kernels and full batches, since the pass that counts tensors trains on"
        " the longest examples. They differ from the figures above: on a CPU dropout keeps float32 masks, and sdpa"
        " with dropout takes the formula that stores all scores, as eager attention does."
    )
    run = "`ftbench run attention-scaling --only train_size=8`"
    return (like, f"Measured by {run}." if measured else f"Not measured yet: {run} does.")


def _assumed(answers: ClaimData) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in answers.versions)
    return (
        "Predicted, not measured on a GPU. The figures are the peaks of the bytes that tensors request in"
        " the real Trainer's steps, traced without data; workspaces inside kernels, the allocator's slack and the"
        " CUDA context are included only in the table of cards.",
        "float32, AdamW (fused, transformers' default), padding to max_length, random weights, two labels."
        " Vocabulary and parameters are those of the architectures' configs, whatever the tokenizer.",
        f"Libraries: {versions}.",
    )
