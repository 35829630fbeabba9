"""Glossary: the terms that a report uses, each with its meaning."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator


@dataclasses.dataclass(frozen=True)
class Term:
    """A term and its meaning. `pattern` finds it in a text; without one the term itself is looked for."""

    name: str
    meaning: str
    pattern: str = ""

    @property
    def found_by(self) -> str:
        """Return the regular expression that finds the term as a word."""
        return rf"(?<![\w-])(?:{self.pattern or re.escape(self.name)})(?![\w-])"


# A term that contains another stands before it: it is looked for first.
TERMS = (
    Term(
        "cell",
        "One combination of all settings, such as a length, a batch and a number of training examples.",
        "cells?",
    ),
    Term("seed", "The number that decides all that is random in a run.", "seeds?"),
    Term(
        "replicate",
        "A run of a cell with a seed of its own. A repeat has the same seed again.",
        "replicates?",
    ),
    Term(
        "95 % interval",
        "A range that holds the true value in 95 of 100 cases.",
        r"95 % (?:bootstrap )?intervals?|intervals?",
    ),
    Term(
        "standard error",
        "How far a figure typically lies from the true one, because it is of a sample.",
        "standard errors?",
    ),
    Term(
        "not distinguishable",
        "The difference is within noise: its interval holds 'no difference'. It does not mean 'the same'.",
    ),
    Term(
        "guessing",
        "What a model scores that does not read the text: it always answers the most frequent class, or the mean.",
    ),
    Term(
        "front",
        "The cells that are worth their cost: the score is above that of every cheaper cell by more than noise.",
    ),
    Term(
        "dominated",
        "A cell that costs no more has a higher score, and is better by more than noise in one of the two.",
    ),
    Term("lead", "The score less that of the nearest cheaper cell.", "leads?"),
    Term("accuracy", "The share of evaluation examples that are answered correctly."),
    Term(
        "macro F1",
        "The mean over the classes of F1, the harmonic mean of precision and recall: small classes count as much as"
        " large ones.",
    ),
    Term("Pearson r", "The linear correlation of answers and labels: 1 is perfect, 0 is none."),
    Term(
        "Spearman rho",
        "The correlation of the ranks of answers and labels: 1 is the same order, 0 is none.",
    ),
    Term("eval loss", "The loss on the evaluation examples."),
    Term(
        "step",
        "One update of the weights: forward, backward and optimizer over one batch.",
        r"step time|step \(median\)|steps?",
    ),
    Term(
        "first steps",
        "The first two steps, a phase of their own: the optimizer's state and caches are made in them.",
    ),
    Term(
        "warm-up",
        "The steps whose times are left out: the first two, and later ones that are still unsteady.",
    ),
    Term(
        "padded tokens",
        "Tokens with those that only fill a text up to the length of its batch.",
        r"padded tokens(?:/s)?",
    ),
    Term("tokens/s", "Tokens of texts that are trained on in a second, without padding."),
    Term("samples/s", "Training examples that are trained on in a second."),
    Term(
        "MFU",
        "Model FLOPs utilisation: the FLOPs that training needs, as a share of those that the device could do.",
    ),
    Term(
        "RSS",
        "Resident set size: the memory of a process that is in RAM, shared libraries included.",
    ),
    Term(
        "PSS",
        "Proportional set size: as RSS, but memory that several processes share is divided among them.",
    ),
    Term(
        "CPU tensors",
        "The memory that torch's tensors on the CPU take, without Python and libraries.",
    ),
    Term("allocated", "The memory that tensors hold on the card, by torch's allocator."),
    Term(
        "reserved",
        "The memory that torch's allocator has taken from the card: what is allocated, and what is kept for later.",
    ),
    Term(
        "context",
        "The memory that the card's driver takes for a process, beside what torch reserves.",
        "CUDA context|context",
    ),
    Term("ledger", "The memory of a cell, phase by phase and reading by reading."),
    Term("page faults", "Requests of a process for memory that the kernel first has to provide."),
    Term(
        "held out",
        "Left out of a fit, to check it on what it was not given.",
        "held[- ]out",
    ),
    Term(
        "checkpoint",
        "The file of the weights that fine-tuning starts from, or that a run saves.",
        "checkpoints?",
    ),
    Term(
        "revision",
        "The hash or the commit of exactly the model or the data that were used.",
        "revisions?",
    ),
    Term(
        "LoRA",
        "Low-rank adaptation: the weights stay as they are, and small matrices beside them are trained.",
        "LoRA|lora",
    ),
)


class FirstUses:
    """Finds each of some terms once: where a report uses it first, if its texts are given in order."""

    def __init__(self, terms: Collection[Term]):
        self._left = {f"t{number}": term for number, term in enumerate(terms)}

    def parts(self, text: str) -> Iterator[tuple[str, Term | None]]:
        """Yield a text in parts: each with the term that it is the first use of, or None."""
        begin = 0
        while (found := self._next(text, begin)) is not None:
            place, term = found
            yield text[begin : place.start()], None
            yield place[0], term
            begin = place.end()
        yield text[begin:], None

    def _next(self, text: str, begin: int) -> tuple[re.Match[str], Term] | None:
        if not self._left:
            return None
        any_left = "|".join(f"(?P<{name}>{term.found_by})" for name, term in self._left.items())
        found = re.compile(any_left).search(text, begin)
        if found is None or found.lastgroup is None:
            return None
        return found, self._left.pop(found.lastgroup)


def terms_of(texts: Iterable[str]) -> tuple[Term, ...]:
    """Return the terms that texts use, in alphabetical order."""
    uses = FirstUses(TERMS)
    found = [term for text in texts for _, term in uses.parts(text) if term is not None]
    return tuple(sorted(found, key=lambda term: term.name.lower()))
