"""Which shapes are traced, and what the others are read off; with planted traces, so that none is slow."""

import dataclasses
import itertools
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from ftbench.base.errors import PredictionError
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.shapes import shapes as module
from ftbench.prediction.shapes.fit import TERMS, fit_events
from ftbench.prediction.shapes.shapes import ShapeTracer, trace_shapes
from ftbench.prediction.trace.events import FORWARD, Kernel, Site, TraceBuilder
from ftbench.prediction.trace.tracer import Target
from tests.factories import cell

AT = Site(FORWARD, 1, "layer", "aten::op")
STEP_2 = AT._replace(step=2)


def step(batch, length, *, extra=0):
    """A trace of a step whose sizes grow as a transformer's do."""
    builder = TraceBuilder()
    sizes = [4 * 30522, 3072 * batch * length, 48 * batch * length**2, 8 * batch, *[100] * extra]
    with builder.kernel(Kernel("aten::mm", (batch * length, 64, 64), (0, 4), False), AT):
        blocks = [builder.allocate(size, AT) for size in sizes]
    for block, size in zip(blocks, sizes, strict=True):
        builder.free(block, size, AT)
    return builder.build()


@dataclasses.dataclass(frozen=True)
class Planted(ShapeTracer):
    """A workload that is traced by a function of batch and length."""

    of: Callable = step

    def trace(self, shape):
        return self.of(*shape)


def planted(of=step, **fields):
    return Planted(cell(**fields), Target(), SequenceLengths(), of=of)


class Runs:
    """Runs jobs here and remembers what was asked for."""

    def __init__(self):
        self.shapes = []

    def __call__(self, function, jobs):
        self.shapes += jobs
        return [function(job) for job in jobs]


def product(batches, lengths):
    return {(batch, length) for batch in batches for length in lengths}


def assert_all_told(shape_traces, shapes, of=step):
    for shape in shapes:
        told, seen = shape_traces.at(shape), of(*shape)
        assert told.same_events(seen)
        assert told.nbytes.tolist() == seen.nbytes.tolist()
        assert told.kernels == seen.kernels
        assert shape_traces.peak_bytes(shape) == seen.peak_bytes


# Shapes


@pytest.mark.parametrize(
    ("attention", "shape", "regular"),
    [
        ("sdpa", (2, 8), True),
        ("sdpa", (8, 128), True),
        ("sdpa", (1, 128), False),
        ("sdpa", (8, 100), False),  # the rows of a mask are padded
        ("sdpa", (8, 1), False),
        ("eager", (8, 100), True),
        ("eager", (1, 100), False),
        ("eager", (8, 1), False),
    ],
)
def test_shapes_that_take_the_course_of_most(attention, shape, regular):
    assert planted(attn_implementation=attention).regular(shape) == regular


def test_a_cell_of_another_shape():
    made = cell(max_length=16, per_device_train_batch_size=4).with_shape(7, 48)
    assert made.max_length == 48
    assert made.per_device_train_batch_size == 7
    assert made.training == tuple(sorted(made.training))
    assert made.with_shape(4, 16) == cell(max_length=16, per_device_train_batch_size=4)


lengths_asked_for = st.lists(st.integers(1, 4096), min_size=1, max_size=12)


@given(lengths_asked_for)
def test_what_a_fit_is_made_from_lies_within_what_is_asked_for(lengths):
    shapes = module._fit_shapes(lengths)
    assert len({batch for batch, _ in shapes}) == len(shapes) == 5
    assert len({length for _, length in shapes}) >= 4
    for batch, length in shapes:
        assert batch > 1
        assert length % 8 == 0
        assert 16 <= length <= max(*lengths, 48)


@settings(max_examples=25)
@given(lengths_asked_for, st.integers(2, 500), st.integers(2, 500))
@example([16, 32], 100, 4)
@example([16, 144], 100, 40)  # all at one place in a tile, if they were spread evenly
def test_what_a_fit_is_made_from_tells_every_size_apart(lengths, batch, eighths):
    def every_term(batch, length):
        builder, terms = TraceBuilder(), [term(batch, length) for term in TERMS.values()]
        for term in terms:
            builder.allocate(512 * term, AT)
        for one, other in itertools.combinations(terms, 2):
            builder.allocate(3 * one + 5 * other, AT)
        return builder.build()

    fitted = fit_events({shape: every_term(*shape) for shape in module._fit_shapes(lengths)})
    shape = (batch, 8 * eighths)
    assert fitted.at(*shape).nbytes.tolist() == every_term(*shape).nbytes.tolist()


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([16, 32], [16, 24, 32, 40, 48]),  # never less than five lengths, eight apart
        ([128, 8], [16, 40, 72, 96, 128]),  # in tiles of 32: at 16, 8, 8, 0 and 0
        ([100], [64, 72, 80, 88, 96]),  # multiples of eight within what is asked for
        ([16, 144], [16, 24, 64, 104, 144]),  # spread evenly they would all be at 16 in a tile
    ],
)
def test_where_the_lengths_of_a_fit_lie(lengths, expected):
    assert sorted(length for _, length in module._fit_shapes(lengths)) == expected


# Courses


def test_a_few_shapes_are_traced_one_by_one():
    runs, shapes = Runs(), product([4, 8], [16, 32])
    shape_traces = trace_shapes(planted(), shapes, runs, every_batch=False)
    assert sorted(runs.shapes) == sorted(shapes)
    assert shape_traces.everywhere is None
    assert shape_traces.fitted(16) is None
    assert_all_told(shape_traces, shapes)


@pytest.mark.parametrize(("count", "fitted"), [(5, False), (6, True)])
def test_more_shapes_than_a_fit_is_made_from_are_fitted(count, fitted):
    shapes = {(4, 32 * n) for n in range(1, count + 1)}
    shape_traces = trace_shapes(planted(), shapes, Runs(), every_batch=False)
    assert (shape_traces.everywhere is not None) is fitted
    assert set(shape_traces.traced) == (set() if fitted else shapes)


def test_a_shape_that_was_traced_is_told_by_its_trace_and_not_by_a_fit():
    """A batch of one takes a course of its own, whatever a fit says of its length."""

    def alone(batch, length):
        return step(batch, length, extra=3 * (batch == 1))

    shapes = product([1, 4, 8, 16], [64, 128])
    shape_traces = trace_shapes(planted(alone), shapes, Runs(), every_batch=True)
    assert shape_traces.fitted(64) is not None
    assert shape_traces.peak_bytes((1, 64)) == alone(1, 64).peak_bytes
    assert_all_told(shape_traces, shapes, alone)


def test_only_what_no_fit_gives_is_traced_once_more():
    runs, shapes = Runs(), product([2, 6, 8], [32, 64, 128])
    trace_shapes(planted(by_shape), shapes, runs, every_batch=False)
    # Five batches of each length and one to hold them against were traced before: 2 among them.
    assert sorted(runs.shapes[-2:]) == [(6, 128), (8, 128)]


def test_many_shapes_are_read_off_a_few_traces():
    runs, shapes = Runs(), product([2, 4, 8, 16, 32], [32, 64, 128, 256])
    shape_traces = trace_shapes(planted(), shapes, runs, every_batch=False)
    assert len(runs.shapes) == 6  # five, and one that they are held against
    assert shape_traces.traced == {}
    assert_all_told(shape_traces, shapes)


def test_every_batch_is_told_even_of_one_shape():
    runs = Runs()
    shape_traces = trace_shapes(planted(), {(8, 64)}, runs, every_batch=True)
    assert len(runs.shapes) == 6
    fitted = shape_traces.fitted(64)
    assert fitted.at(1000, 64).nbytes.tolist() == step(1000, 64).nbytes.tolist()


def test_the_shape_that_a_fit_is_held_against_is_none_that_it_was_made_from():
    lengths = [32, 64, 128, 256]
    # The largest shape asked for is one that a fit is made from: (4, 256).
    assert (4, 256) in module._fit_shapes(lengths * 2)
    runs, shapes = Runs(), product([2, 3, 4], lengths)
    trace_shapes(planted(), shapes, runs, every_batch=False)
    assert len(set(runs.shapes)) == 6


def test_odd_shapes_are_traced_by_themselves():
    runs = Runs()
    shapes = product([1, 4, 8, 16], [64, 128]) | {(4, 100)}
    shape_traces = trace_shapes(planted(), shapes, runs, every_batch=False)
    assert set(shape_traces.traced) == {(1, 64), (1, 128), (4, 100)}
    assert_all_told(shape_traces, shapes)


def by_length(batch, length):
    """Another course from 100 tokens on."""
    return step(batch, length, extra=length >= 100)


def test_lengths_that_take_courses_of_their_own_are_fitted_one_by_one():
    shapes = product([2, 4, 8, 16], [32, 64, 128, 256])
    shape_traces = trace_shapes(planted(by_length), shapes, Runs(), every_batch=True)
    assert shape_traces.everywhere is None
    assert set(shape_traces.by_length) == {32, 64, 128, 256}
    assert_all_told(shape_traces, shapes, by_length)
    assert shape_traces.fitted(128).peak_bytes(99, 128) == by_length(99, 128).peak_bytes
    assert shape_traces.fitted(48) is None


def by_shape(batch, length):
    """A course that nothing can be told of beyond 100 tokens: it goes by the batch."""
    return step(batch, length, extra=batch if length >= 100 else 0)


def test_lengths_that_cannot_be_fitted_are_traced():
    shapes = product([2, 6, 8], [32, 64, 128])
    shape_traces = trace_shapes(planted(by_shape), shapes, Runs(), every_batch=False)
    assert shape_traces.fitted(128) is None
    assert shape_traces.fitted(64) is not None
    assert set(shape_traces.traced) == {(2, 128), (6, 128), (8, 128)}
    assert_all_told(shape_traces, shapes, by_shape)


def off_by_a_byte(batch, length):
    """A course that the shapes of a fit agree on, and the largest asked for does not."""
    builder = TraceBuilder()
    builder.allocate(100 + (batch > 7), AT)
    return builder.build()


def test_a_fit_that_another_shape_contradicts_is_not_believed():
    shapes = product([2, 4, 8], [32, 64])
    shape_traces = trace_shapes(planted(off_by_a_byte), shapes, Runs(), every_batch=False)
    assert shape_traces.everywhere is None


def masked(batch, length):
    """Masks are padded where a length is no multiple of eight, whatever the batch."""
    return step(batch, length, extra=2 * (length % 8 > 0))


def test_every_batch_of_a_length_that_takes_a_course_of_its_own():
    shapes = product([1, 4, 8], [64, 100])
    shape_traces = trace_shapes(planted(masked), shapes, Runs(), every_batch=True)
    assert shape_traces.everywhere is not None
    assert set(shape_traces.by_length) == {100}
    assert_all_told(shape_traces, shapes, masked)
    for batch, length in ((77, 64), (77, 100)):
        assert shape_traces.fitted(length).at(batch, length).same_events(masked(batch, length))
        assert (
            shape_traces.fitted(length).peak_bytes(batch, length)
            == masked(batch, length).peak_bytes
        )


def test_nothing_is_told_of_all_batches_where_there_is_no_telling():
    def unruly(batch, length):
        return step(batch, length, extra=batch * (length % 8 > 0))

    shape_traces = trace_shapes(planted(unruly), {(4, 64), (4, 100)}, Runs(), every_batch=True)
    assert shape_traces.fitted(64) is not None
    assert shape_traces.fitted(100) is None
    assert shape_traces.peak_bytes((4, 100)) == unruly(4, 100).peak_bytes


# Orders of lengths


def two_steps(batch, length):
    builder = TraceBuilder()
    first = builder.allocate(1000 * batch * length, AT)
    builder.free(first, 1000 * batch * length, AT)
    builder.allocate(1000 * batch * length, STEP_2)
    return builder.build()


def test_orders_of_lengths_are_told_from_a_fit():
    shape_traces = trace_shapes(planted(two_steps), {(4, 64)}, Runs(), every_batch=True)
    (one, other) = shape_traces.in_orders(4, [(16, 64), (64, 16)])
    assert one.nbytes.tolist() == [64_000, 64_000, 256_000]
    assert other.nbytes.tolist() == [256_000, 256_000, 64_000]


def test_orders_are_not_told_of_single_documents_or_without_a_fit():
    fitted = trace_shapes(planted(two_steps), {(4, 64)}, Runs(), every_batch=True)
    assert fitted.in_orders(1, [(16, 64)]) == []
    traced = trace_shapes(planted(two_steps), {(4, 64)}, Runs(), every_batch=False)
    assert traced.in_orders(4, [(16, 64)]) == []


# What a workload hands to the Trainer's trace


@pytest.fixture
def asked(monkeypatch):
    """What `trace_trainer` is called with, and a trace that is not made."""
    calls = []

    def trace_trainer(cell, target, *, batches, ranks):
        calls.append((cell, target, batches))
        return step(2, 8)

    monkeypatch.setattr(module, "trace_trainer", trace_trainer)
    return calls


def test_a_shape_is_traced_with_the_labels_of_its_data(asked):
    sequence_lengths = SequenceLengths(labels=("a", "b", "c"), lengths=(5, 200))
    ShapeTracer(cell(), Target(compute_capability=(9, 0)), sequence_lengths).trace((6, 48))
    ((traced, target, batches),) = asked
    assert (traced.per_device_train_batch_size, traced.max_length) == (6, 48)
    assert target.compute_capability == (9, 0)
    assert (batches.lengths, batches.labels) == ((48,), ("a", "b", "c"))


def test_the_work_of_a_shape_is_counted_for_its_cell(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "count_work", lambda *asked: calls.append(asked) or "the work")
    sequence_lengths = SequenceLengths(labels=("a", "b", "c"), lengths=(5, 200))
    target = Target(compute_capability=(9, 0))
    assert ShapeTracer(cell(), target, sequence_lengths).work((6, 48)) == "the work"
    ((counted, of, batches),) = calls
    assert (counted.per_device_train_batch_size, counted.max_length) == (6, 48)
    assert (of, batches.lengths, batches.labels) == (target, (48,), ("a", "b", "c"))


@pytest.mark.parametrize("raised", [ValueError("no such head"), PredictionError("not covered")])
def test_a_model_that_cannot_be_traced_is_a_prediction_error(monkeypatch, raised):
    def trace_trainer(*_, **__):
        raise raised

    monkeypatch.setattr(module, "trace_trainer", trace_trainer)
    with pytest.raises(PredictionError) as caught:
        ShapeTracer(cell(), Target(), SequenceLengths()).trace((6, 48))
    if isinstance(raised, PredictionError):
        assert caught.value is raised  # in its own words
        return
    assert caught.value.__cause__ is raised
    assert "no such head" in str(caught.value)
    assert caught.value.where == "m"  # the model, as the profile names it
    assert all(word in caught.value.got for word in ("ValueError", "6", "48"))


def test_a_model_that_looks_at_its_data_is_refused(monkeypatch):
    def trace_trainer(*_, **__):
        raise DynamicOutputShapeException("aten.unique_consecutive.default")

    monkeypatch.setattr(module, "trace_trainer", trace_trainer)
    with pytest.raises(PredictionError, match="depend on the content of a batch") as caught:
        ShapeTracer(cell(), Target(), SequenceLengths()).trace((6, 48))
    assert caught.value.got == "aten.unique_consecutive.default"
    assert caught.value.where == "m"


def of_one(batch, length):
    """A step that has one event less for one example."""
    return step(batch, length, extra=batch > 1)


MANY = [32 * (1 + number) for number in range(9)]


def test_many_lengths_of_one_example_are_read_off_a_few_traces():
    run = Runs()
    shapes = product((1, 2, 6), MANY)
    found = trace_shapes(planted(of_one), shapes, run, every_batch=True)
    assert len(run.shapes) == 12
    assert_all_told(found, shapes, of=of_one)
    assert len([shape for shape in found.traced if shape[0] == 1]) <= 6


def uneven_of_one(batch, length):
    """Steps of one example that have other events at each length."""
    return step(batch, length, extra=length // 32 if batch == 1 else 0)


def test_lengths_of_one_example_that_cannot_be_fitted_are_traced_once_each():
    run = Runs()
    shapes = product((1, 2, 6), MANY)
    found = trace_shapes(planted(uneven_of_one), shapes, run, every_batch=True)
    assert len(run.shapes) == len(set(run.shapes))
    assert_all_told(found, shapes, of=uneven_of_one)
    assert {length for batch, length in found.traced if batch == 1} >= set(MANY)


def of_other_ranks(batch, length):
    """The same step with another size of what does not depend on the shape, and more of it."""
    builder = TraceBuilder()
    sizes = [4 * 7631, 3072 * batch * length, 48 * batch * length**2, 8 * batch]
    with builder.kernel(Kernel("aten::mm", (batch * length, 64, 64), (0, 4), False), AT):
        blocks = [builder.allocate(size, AT) for size in sizes]
    sent = [builder.allocate(4, AT._replace(operator="send")) for _ in range(8)]
    for block, size in zip((*blocks, *sent), (*sizes, *[4] * 8), strict=True):
        builder.free(block, size, AT)
    return builder.build()


def test_ranks_of_a_workload_alike_take_two_traces_for_each_fit():
    shapes = product((1, 2, 6), MANY)
    known = trace_shapes(planted(), shapes, Runs(), every_batch=True)
    run = Runs()
    found = trace_shapes(planted(of_other_ranks), shapes, run, every_batch=True, alike=[known])
    assert len(run.shapes) == 4
    assert_all_told(found, shapes, of=of_other_ranks)


def test_a_length_of_its_own_is_corrected_by_itself():
    shapes = product((2, 6), [*MANY, 100])
    known = trace_shapes(planted(), shapes, Runs(), every_batch=True)
    run = Runs()
    found = trace_shapes(planted(of_other_ranks), shapes, run, every_batch=True, alike=[known])
    assert {shape for shape in run.shapes if shape[1] == 100} >= {(3, 100), (11, 100)}
    assert_all_told(found, [(50, 100), *shapes], of=of_other_ranks)


def with_other_terms(batch, length):
    """A step in which another number of ranks changes what a size depends on."""
    builder = TraceBuilder()
    for size in (4 * 30522, 3072 * batch * length, 48 * batch * length**2, 8 * length + batch):
        builder.allocate(size, AT)
    return builder.build()


def test_a_workload_that_no_known_one_is_like_is_traced_as_a_whole():
    shapes = product((2, 6), MANY)
    known = trace_shapes(planted(), shapes, Runs(), every_batch=True)
    run = Runs()
    found = trace_shapes(planted(with_other_terms), shapes, run, every_batch=True, alike=[known])
    assert len(run.shapes) == len(set(run.shapes)) == 6  # two were tried before
    assert_all_told(found, shapes, of=with_other_terms)
    again = Runs()
    trace_shapes(planted(with_other_terms), shapes, again, every_batch=True, alike=[known, found])
    assert len(again.shapes) == 2


def test_a_workload_alike_without_a_fit_costs_no_trace():
    few = trace_shapes(planted(), [(2, 64)], Runs(), every_batch=False)
    run = Runs()
    trace_shapes(planted(), [(2, 64)], run, every_batch=True, alike=[few])
    assert len(run.shapes) == 6
