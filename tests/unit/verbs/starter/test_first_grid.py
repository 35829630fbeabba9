import pytest

from ftbench.plan.grid import expand
from ftbench.plan.schedule import schedule_of
from ftbench.records.first_look import StepTime, TextFacts
from ftbench.records.token_facts import USUAL_LENGTHS, token_facts
from ftbench.verbs.starter.first_grid import BATCH, grids, seconds_of
from tests.factories import data_source, model_source, profile

STEP_S = 0.01  # of a batch of eight texts, per token of a text


def facts(lengths=(40,) * 100, *, timed=USUAL_LENGTHS, **changes):
    made = {
        "train_pool": 480,
        "eval_pool": 120,
        "eval_split": "from-train",
        "tokens": token_facts(lengths, USUAL_LENGTHS, of=len(lengths)),
        "times": tuple(
            StepTime(max_length=n, step_s=STEP_S * n, forward_s=STEP_S * n / 4) for n in timed
        ),
        "parameters": 1_000_000,
        "batch": BATCH,
        "load_s": 1.0,
        **changes,
    }
    return TextFacts(**made)


def first(**changes):
    return next(iter(grids(facts(**changes))))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((10,) * 100, (32,)),  # nothing is longer than the shortest length
        ((10,) * 60 + (100,) * 40, (32, 64, 128)),
        ((60,) * 90 + (200,) * 10, (64, 128, 256)),
        ((200,) * 100, (128, 256)),  # shorter ones cut every text
        ((700,) * 100, (256, 512)),  # and so do all
        ((20,) * 97 + (400,) * 3, (32,)),  # few texts are longer
    ],
)  # fmt: skip
def test_lengths_are_those_that_the_texts_ask_for(lengths, expected):
    assert first(lengths=lengths).lengths == expected


def test_accuracy_is_shown_where_few_texts_are_cut():
    grid = first(lengths=(10,) * 70 + (60,) * 20 + (200,) * 10)
    assert grid.lengths == (64, 128, 256) or 64 in grid.lengths
    assert grid.curve_length == 64


def test_training_examples_double_up_to_the_pool():
    assert first().sizes == (128, 256)
    assert first(train_pool=100_000).sizes == (128, 256, 512, 1024)
    assert first(train_pool=70).sizes == ()


@pytest.mark.parametrize("pool", [1, 3, 8, 15, 16, 64, 65])
def test_a_small_pool_is_never_asked_for_more_than_it_has(pool):
    for grid in grids(facts(train_pool=pool, eval_pool=1)):
        assert grid.cost_size <= pool
        assert max(grid.sizes, default=0) <= pool
        assert max(grid.batches) <= pool
        assert grid.eval_size == 1


def cells_of(grid):
    blocks = {"grid": grid.blocks(), "workload": {"eval_size": grid.eval_size}}
    made = profile(**blocks)
    data = data_source(eval_size=grid.eval_size)
    return expand(made, model_source(), data).cells


def test_grids_become_smaller_and_faster():
    known = facts(lengths=(10,) * 60 + (100,) * 40)
    found = list(grids(known))
    assert len(found) > 5
    seconds = [seconds_of(cells_of(grid), known) for grid in found]
    assert sorted(seconds, reverse=True) == seconds
    assert seconds[-1] < seconds[0] / 5
    assert len(found[-1].lengths) == len(found[-1].batches) == 1
    assert found[-1].sizes == ()


def test_seconds_are_steps_and_evaluations_by_the_schedule():
    known = facts(load_s=0.0, parameters=0)
    (cell,) = cells_of(list(grids(known))[-1])
    job = schedule_of(cell)
    computed = (
        job.steps * STEP_S * cell.max_length
        + job.evaluations * job.eval_documents * STEP_S * cell.max_length / 4 / BATCH
    )
    beside = seconds_of([], known) + 4.0  # the preparation, and the start of a process
    assert seconds_of([cell], known) == pytest.approx(computed + beside)


def test_without_a_time_of_a_length_there_are_no_seconds():
    known = facts(timed=())
    (grid, *_) = grids(known)
    assert grid.lengths == (32,)
    assert seconds_of(cells_of(grid), known) is None


def test_a_model_that_reads_less_than_the_usual_lengths():
    short = facts(timed=(20,), tokens=token_facts([30] * 9, [20], of=9), limit=20)
    assert next(iter(grids(short))).lengths == (20,)
