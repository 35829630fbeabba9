"""Entities and their F1, against seqeval's definition worked out by hand."""

import numpy as np
import pytest

from ftbench.worker.tasks.entity_scoring import entities, f1, has_entities


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        # An entity begins with I after O, or where the type changes.
        ("O I-PER I-PER", {("PER", 1, 2)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),
        # IOBES: E ends an entity, S is one; what follows begins another.
        ("B-PER E-PER I-PER", {("PER", 0, 1), ("PER", 2, 2)}),
        ("S-LOC S-LOC I-LOC", {("LOC", 0, 0), ("LOC", 1, 1), ("LOC", 2, 2)}),
        ("O E-LOC", {("LOC", 1, 1)}),
        ("B-a-b I-a-b", {("a-b", 0, 1)}),
        ("B-PER", {("PER", 0, 0)}),
    ],
)
def test_entities_of_a_sequence(tags, found):
    assert entities(tags.split()) == found


def test_tags_of_entities_are_told_from_other_classes():
    assert has_entities(["O", "B-PER", "I-PER"])
    assert not has_entities(["NOUN", "VERB"])
    assert not has_entities(["O", "B-PER", "NOUN"])
    assert not has_entities(["O"])


def test_f1_is_over_all_entities_of_all_examples():
    references = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["O"]]
    answers = [["B-PER", "I-PER", "O"], ["B-LOC", "O"], ["O"]]
    found = f1(references, answers, "O")
    # 1 right of 2 wanted and 2 answered.
    assert found.value == 2 * 1 / (2 + 2)
    assert found.guess == 0.0
    assert f1(references, references, "O").value == 1.0


def test_without_an_entity_the_score_is_0_and_has_no_error():
    found = f1([["O"], ["O"]], [["O"], ["O"]], "O")
    assert (found.value, found.standard_error) == (0.0, None)


def test_the_error_is_that_of_a_bootstrap():
    generator = np.random.default_rng(0)
    tags = np.array(["O", "B-A", "B-B"])
    wanted = [list(row) for row in tags[generator.integers(0, 3, (300, 6))]]
    noise = tags[generator.integers(0, 3, (300, 6))]
    kept = generator.random((300, 6)) < 0.6
    given = [list(np.where(k, w, n)) for k, w, n in zip(kept, wanted, noise, strict=True)]
    found = f1(wanted, given, "O")
    values = [
        f1([wanted[i] for i in rows], [given[i] for i in rows], "O").value
        for rows in generator.integers(0, 300, (300, 300))
    ]
    assert found.standard_error == pytest.approx(np.std(values), rel=0.2)
