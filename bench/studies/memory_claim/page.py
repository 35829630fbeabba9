"""Page: what the claim about memory comes to, as a document."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from studies.memory_claim import tables
from studies.memory_claim.figures import BATCH, length_figure, share_figure, sizes_figure
from studies.memory_claim.growth import ClaimData, Setting
from studies.memory_claim.headline import headline, over_by_hand
from studies.memory_claim.names import MODELS

TITLE = "Is memory quadratic in length, and linear in parameters?"


def page(answers: ClaimData, measured: Mapping[str, int]) -> Document:
    """Return the page; `measured` has the peaks of CPU tensors by cell id, where there are any."""
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
        Section("Again", _AGAIN),
    )
    empty = pd.DataFrame()
    return Document(title=TITLE, sections=sections, cells=empty, ledger=empty)


def _shared(model: str) -> list[Setting]:
    return [
        Setting(model, attention, True, checkpointing, BATCH)
        for checkpointing in (False, True)
        for attention in ("eager", "sdpa")
    ]


_LENGTH = (
    "A power of 1 is linear growth, of 2 quadratic: a doubling multiplies by 2 to that power. In brackets the"
    " power of all that is no parameter, gradient or optimizer state; it is left out where the peak moves from"
    " one moment of the step to another, since the two are not of one kind.",
    "The peaks are exact, so the laws are no fits: three lengths give the coefficients, and every further one"
    " agrees to the byte; a dash stands where no fourth did.",
)
_BY_HAND = (
    "By hand: eager attention keeps the scores of every head and layer after the softmax (4 bytes), and where"
    " attention has dropout its result (4) and mask (1) as well; DistilBERT's has, ModernBERT's has not. Fused"
    " attention keeps its mask in float32, 4 bytes a layer for all heads."
)
_OVER = (
    " What is over is there at the peak only, in bytes a token²: {over}. In ModernBERT with eager attention"
    " 2 x 12 x 4 of them are two more tensors of scores of the last layer, in the softmax's backward. The rest are"
    " masks that are still there, one in DistilBERT and two in ModernBERT (in full batches one): of 4 bytes (eager)"
    " or 1 (sdpa)."
)
_SHARE = (
    "At short lengths the peak is where the last gradient is made and all of the state is there. At long ones it"
    " is where the backward pass begins, before most gradients are made: what is there is then nearer to 12 bytes"
    " a parameter. So the peak is no sum of 16 bytes a parameter and activations, but nearly the larger of that"
    " and of 12 bytes a parameter with activations.",
)
_SIZES = (
    "State bytes are those of the smallest step (batch 2, length 64). What is over 16 are AdamW's step counters,"
    " 4 bytes a parameter tensor, and the model's buffers. The power is that of the whole peak with parameters"
    " from one size to the next.",
)
_CARDS = (
    "Tensors are exact; requested, allocated and reserved are simulated by the allocator's rules"
    " (docs/prediction.md). In float32 every card's sdpa takes the memory-efficient kernel: flash attention takes"
    " half precision only, and no mask.",
)
_OPTIONS = (
    "Autocast keeps parameters, gradients and state in float32, and half-precision copies of the weights besides:"
    " it halves neither state nor all activations. SGD without momentum has no state, Adafactor's is two vectors a"
    " matrix; their smallest peaks have temporaries of the optimizer's step in them.",
)


_AGAIN = (
    "`nox -s claim` writes this page; it needs no GPU and no hub. What is measured comes from"
    " `ftbench run attention-scaling --only train_size=8` and `ftbench report results/attention-scaling"
    " --format csv --out reports/attention-scaling/measured`, in that order before it.",
)


def _hand_words(answers: ClaimData) -> str:
    over = over_by_hand(answers)
    return _BY_HAND + (_OVER.format(over=over) if over else " Nothing is over.")


def _beside_words(measured: Mapping[str, int]) -> tuple[str, ...]:
    like = (
        "Like with like: both are of CPU kernels, and of full batches, since the pass that counts tensors trains on"
        " the longest documents. They are not the figures above: on a CPU dropout keeps float32 masks, and sdpa"
        " with dropout takes the formula that stores all scores, as eager attention does."
    )
    run = "`ftbench run attention-scaling --only train_size=8`"
    return (like, f"Measured by {run}." if measured else f"Not measured yet: {run} does.")


def _assumed(answers: ClaimData) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in answers.versions)
    return (
        "Predicted, not measured on a GPU: none was at hand. The figures are the peaks of what tensors ask for in"
        " the real Trainer's steps, traced without data; workspaces inside kernels, the allocator's slack and the"
        " CUDA context are not in them, but for the table of cards.",
        "float32, AdamW (fused, transformers' default), padding to max_length, random weights, two labels."
        " Vocabulary and parameters are those of the architectures' configs, whatever the tokenizer.",
        f"Libraries: {versions}.",
    )
