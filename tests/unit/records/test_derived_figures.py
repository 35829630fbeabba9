"""Figures that a function reads: energy, the kernel's share, page faults, scores."""

import pytest

from ftbench.plan.scores import HEADLINES, SCORES
from ftbench.records.figures import BY_NAME, energy_j, value_of, withheld_with
from tests.factories import measurement, score


def with_phase(name="train", **changes):
    """A measurement with these figures of a phase."""
    measured = measurement()
    phases = measured.phases | {name: measured.phases[name].model_copy(update=changes)}
    return measured.with_rank(phases=phases)


def with_energy(*joules):
    """A measurement whose phases used so much, in order."""
    measured = measurement()
    phases = {
        name: phase.model_copy(update={"energy_j": used})
        for (name, phase), used in zip(measured.phases.items(), joules, strict=True)
    }
    return measured.with_rank(phases=phases)


def test_energy_is_the_sum_of_all_phases():
    assert energy_j(with_energy(1.0, 2.0, 30.0, 4.0, 0.5)) == 37.5


@pytest.mark.parametrize("joules", [(None,) * 5, (1.0, 2.0, None, 4.0, 5.0)])
def test_energy_without_one_phase_is_not_known(joules):
    assert energy_j(with_energy(*joules)) is None


def test_energy_without_phases_is_not_known():
    assert energy_j(measurement().with_rank(phases={})) is None


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"kernel_s": 0.3, "cpu_s": 2.0}, 0.15),
        ({"kernel_s": 0.3, "cpu_s": 0.5}, 0.6),
        ({"kernel_s": None, "cpu_s": 2.0}, None),
        ({"kernel_s": 0.3, "cpu_s": 0.0}, None),
    ],
)
def test_the_kernels_share_is_of_the_processor_time_of_training(changes, share):
    found = value_of(BY_NAME["kernel_share"], with_phase(**changes))
    assert found == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"page_faults": 600, "steps": 40}, 15.0),
        ({"page_faults": 0, "steps": 40}, 0.0),
        ({"page_faults": None, "steps": 40}, None),
        ({"page_faults": 600, "steps": 0}, None),
    ],
)
def test_page_faults_are_per_step_of_training(changes, faults):
    assert value_of(BY_NAME["page_faults_per_step"], with_phase(**changes)) == faults


@pytest.mark.parametrize("name", ["kernel_share", "page_faults_per_step"])
def test_without_training_there_is_neither(name):
    measured = measurement()
    others = {key: phase for key, phase in measured.phases.items() if key != "train"}
    assert value_of(BY_NAME[name], measured.with_rank(phases=others)) is None
    of_another = with_phase("evaluation", kernel_s=1.0, cpu_s=2.0, page_faults=9, steps=3)
    assert value_of(BY_NAME[name], of_another) is None


@pytest.mark.parametrize("kind", SCORES, ids=lambda kind: kind.name)
def test_each_score_has_its_column(kind):
    figure = BY_NAME[kind.column]
    assert figure.word == kind.word
    assert figure.path == f"scores.{kind.name}"
    assert figure.unit == ("share" if kind.scale == "share" else "")
    assert figure.narrow == (0 if kind in HEADLINES else 2)


@pytest.mark.parametrize("kind", SCORES, ids=lambda kind: kind.name)
def test_a_score_is_read_by_its_name(kind):
    measured = measurement(scores=(score(kind.name, 0.25),))
    assert value_of(BY_NAME[kind.column], measured) == 0.25
    assert value_of(BY_NAME[kind.column], measurement(scores=())) is None


def test_the_error_and_the_guess_are_those_of_the_first_score():
    first = score("accuracy", 0.75, standard_error=0.02, guess=0.5)
    second = score("f1_macro", 0.7, standard_error=0.09, guess=0.3)
    measured = measurement(scores=(first, second))
    assert value_of(BY_NAME["score_se"], measured) == 0.02
    assert value_of(BY_NAME["score_guess"], measured) == 0.5
    assert value_of(BY_NAME["score_se"], measurement(scores=())) is None


@pytest.mark.parametrize(
    ("path", "columns"),
    [("phases.train.wall_s", ("wall_s",)), ("nothing", ("nothing",)), ("a.b.c", ("c",))],
)
def test_a_path_that_no_column_has_is_named_by_its_end(path, columns):
    assert withheld_with(path) == columns
