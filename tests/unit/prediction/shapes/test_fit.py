import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbench.prediction.shapes.fit import (
    FEWEST_TRACES,
    MOST_TERMS,
    TERMS,
    TERMS_OF_ONE_ROW,
    FitError,
    fit_events,
)
from ftbench.prediction.trace.events import BACKWARD, FORWARD, Kernel, Kind, Site, TraceBuilder
from ftbench.prediction.trace.tracer import trace
from tests.unit.prediction.modules import events

SHAPES = [(3, 40), (5, 80), (7, 200), (2, 136), (4, 320)]
AT = Site(FORWARD, 1, "", "")
KIB = 1024


def planted(*sizes, kernel=None, phase=FORWARD):
    """Traces of a step with these sizes, each a function of batch and length, freed in the same order."""

    def at(batch, length):
        builder = TraceBuilder()
        for size in sizes:
            if kernel is not None:
                with builder.kernel(kernel(batch, length), AT):
                    builder.allocate(size(batch, length), AT)
            else:
                builder.allocate(size(batch, length), AT._replace(phase=phase))
        for block, size in enumerate(sizes):
            builder.free(block, size(batch, length), AT)
        return builder.build()

    return at


def fitted(at, shapes=SHAPES):
    return fit_events({shape: at(*shape) for shape in shapes})


def assert_the_same(one, other):
    assert one.same_events(other)
    assert one.nbytes.tolist() == other.nbytes.tolist()
    assert one.kernels == other.kernels
    assert one.peak_bytes == other.peak_bytes


def ceil32(length):
    return -(-length // 32) * 32


SIZES = {
    "weights": lambda b, s: 4 * 30522 * 768,
    "labels": lambda b, s: 8 * b,
    "positions": lambda b, s: 8 * s,
    "hidden": lambda b, s: 3072 * b * s,
    "mask": lambda b, s: 4 * s * s,
    "scores": lambda b, s: 48 * b * s * s,
    "row sums": lambda b, s: 48 * b * ceil32(s),
    "two terms": lambda b, s: 4096 + 12 * b,
    "two larger ones": lambda b, s: 7 * b * s + 5 * b * s * s,
    "nothing": lambda b, s: 0,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 8), (6, 100), (64, 512), (4096, 8192)])
def test_planted_sizes_are_found_exactly(size, shape):
    at = planted(size)
    assert_the_same(fitted(at).at(*shape), at(*shape))


def test_an_odd_number_of_bytes_in_the_terabytes():
    at = planted(lambda b, s: 3 * b * s * s + 1)
    found = fitted(at).at(2**13, 2**14)
    assert found.peak_bytes == 3 * 2**41 + 1


@st.composite
def sums(draw):
    """A size of one or two terms with whole coefficients."""
    names = draw(st.lists(st.sampled_from(list(TERMS)), min_size=1, max_size=2, unique=True))
    chosen = [(TERMS[name], draw(st.integers(1, 10**6))) for name in names]
    return lambda b, s: sum(factor * term(b, s) for term, factor in chosen)


# What others do on this machine is none of this test's affair.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(sums(), min_size=1, max_size=6),
    st.tuples(st.integers(1, 512), st.integers(1, 4096)),
)
def test_any_sizes_of_two_terms_are_found_at_any_shape(sizes, shape):
    at = planted(*sizes)
    found = fitted(at)
    assert_the_same(found.at(*shape), at(*shape))
    assert found.peak_bytes(*shape) == at(*shape).peak_bytes


def test_the_peak_moves_to_another_event_as_shapes_grow():
    # Weights' gradients first, scores from some length on: no polynomial of the peak itself.
    def at(batch, length):
        builder = TraceBuilder()
        weights, scores = 10**6, 48 * batch * length**2
        builder.free(builder.allocate(weights, AT), weights, AT)
        builder.free(builder.allocate(scores, AT), scores, AT)
        return builder.build()

    found = fitted(at)
    for batch, length in itertools.product((1, 2, 3, 8), (16, 64, 102, 103, 512)):
        assert found.peak_bytes(batch, length) == max(10**6, 48 * batch * length**2)


def test_the_sizes_of_kernels_are_functions_too():
    def kernel(batch, length):
        return Kernel("aten::mm", (batch * length, 768, 3072), (1, 4), True)

    at = planted(SIZES["hidden"], SIZES["weights"], kernel=kernel)
    assert_the_same(fitted(at).at(9, 77), at(9, 77))
    assert fitted(at).at(9, 77).kernels[1].sizes == (693, 768, 3072)


def test_kernels_without_sizes():
    at = planted(
        SIZES["hidden"], kernel=lambda b, s: Kernel("aten::_foreach_norm", (), (2, 9), False)
    )
    assert_the_same(fitted(at).at(9, 77), at(9, 77))


# Steps whose batches have different lengths


def test_what_a_step_allocates_and_launches_has_the_length_of_its_own_batch():
    """Before the first step it is the first batch's; of steps beyond the last batch, the last one's."""

    def at(batch, length):
        builder = TraceBuilder()
        steps = [AT._replace(step=number) for number in range(4)]
        blocks = []
        for site in steps:
            with builder.kernel(Kernel("aten::mm", (length, 64 + site.step), (4,), False), site):
                blocks.append(builder.allocate(1000 * batch * length, site))
        builder.free(blocks[1], 1000 * batch * length, steps[2])
        builder.free(blocks[0], 1000 * batch * length, steps[3])
        return builder.build()

    told = fitted(at).in_order(3, [64, 16])
    allocated = told.nbytes[told.kind == Kind.ALLOCATE]
    assert allocated.tolist() == [3000 * length for length in (64, 64, 16, 16)]
    assert told.nbytes[told.kind == Kind.FREE].tolist() == [192_000, 192_000]
    assert [kernel.sizes for kernel in told.kernels] == [(64, 64), (64, 65), (16, 66), (16, 67)]
    assert told.peak_bytes == 3000 * (64 + 64 + 16 + 16)


# What cannot be fitted


def test_too_few_traces():
    at = planted(SIZES["hidden"])
    with pytest.raises(FitError, match="too few") as refused:
        fitted(at, SHAPES[: FEWEST_TRACES - 1])
    assert (refused.value.got, refused.value.expected) == ("4", "at least 5")
    with pytest.raises(FitError, match="too few"):
        fit_events({})


@pytest.mark.parametrize("odd_one_out", range(len(SHAPES)))
def test_a_step_that_takes_another_course_at_one_shape(odd_one_out):
    at, other = planted(SIZES["hidden"]), planted(SIZES["hidden"], SIZES["labels"])
    traces = {shape: at(*shape) for shape in SHAPES}
    shape = SHAPES[odd_one_out]
    traces[shape] = other(*shape)
    with pytest.raises(FitError, match="more than sizes") as refused:
        fit_events(traces)
    assert refused.value.got == str(shape if odd_one_out else SHAPES[1])


def test_the_same_events_at_another_place_are_another_course():
    traces = {shape: planted(SIZES["hidden"])(*shape) for shape in SHAPES}
    traces[SHAPES[-1]] = planted(SIZES["hidden"], phase=BACKWARD)(*SHAPES[-1])
    with pytest.raises(FitError, match="more than sizes"):
        fit_events(traces)


@pytest.mark.parametrize(
    "size",
    [
        lambda b, s: b**3,
        lambda b, s: s**3,
        lambda b, s: b * s + s + 7,  # three terms
        lambda b, s: b * ceil32(s) + b * s + s,
        lambda b, s: -(-b * s // 3),  # no whole multiple
        lambda b, s: 2 * b * s // 3,
        lambda b, s: 512 * (-(-b * s // 512)),  # rounded up
        lambda b, s: max(5000, 40 * b * s),
        lambda b, s: 10**6 - b * s,  # shrinks
    ],
)
def test_a_size_that_is_no_sum_of_two_terms(size):
    at = planted(SIZES["weights"], size)
    with pytest.raises(FitError, match="two terms") as refused:
        fitted(at)
    assert str(SHAPES[1]) in refused.value.got
    assert str(size(*SHAPES[1])) in refused.value.got


def test_one_byte_in_one_trace_is_enough_to_refuse():
    at = planted(SIZES["scores"])
    traces = {shape: at(*shape) for shape in SHAPES}
    traces[SHAPES[2]] = planted(lambda b, s: SIZES["scores"](b, s) + 1)(*SHAPES[2])
    with pytest.raises(FitError, match="two terms"):
        fit_events(traces)


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(batch, 32 * batch) for batch in (2, 3, 4, 5, 7)], SIZES["positions"]),  # S is 32 B
        ([(3, 64), (5, 96), (7, 192), (2, 160), (4, 320)], SIZES["hidden"]),  # ceil32(S) is S
        (
            [(3, 40), (5, 72), (7, 200), (2, 136), (4, 328)],
            lambda b, s: b * ceil32(s) + b,
        ),  # S + 24
    ],
)
def test_shapes_that_cannot_tell_two_sizes_apart(shapes, size):
    with pytest.raises(FitError, match="do not determine") as refused:
        fitted(planted(size), shapes)
    assert str(shapes[0]) in refused.value.got


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_traces_of_one_length_hold_for_that_length(size):
    at = planted(size)
    found = fitted(at, [(batch, 40) for batch in (2, 3, 4, 5, 7)])
    assert_the_same(found.at(64, 40), at(64, 40))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_traces_of_one_batch_size_hold_for_that_size(size):
    at = planted(size)
    found = fitted(at, [(4, length) for length in (40, 80, 136, 200, 320)])
    assert_the_same(found.at(4, 512), at(4, 512))


@pytest.mark.parametrize("terms", [TERMS, TERMS_OF_ONE_ROW])
def test_the_choice_of_terms_is_the_only_one(terms):
    # Two sums of two terms that agree on all shapes would be a dependency of four terms. Some are dependent
    # everywhere, such as S, 1 and S - 1: then both sums are the same function.
    def rank(shapes, four):
        columns = np.array([[term(*shape) for term in terms.values()] for shape in shapes], float)
        chosen = columns[:, four]
        return np.linalg.matrix_rank(chosen / np.linalg.norm(chosen, axis=0))

    everywhere = list(itertools.product((1, 2, 3, 5, 8, 13), (2, 7, 32, 33, 64, 100, 257)))
    for four in itertools.combinations(range(len(terms)), 2 * MOST_TERMS):
        assert rank(SHAPES, four) == rank(everywhere, four)


# A model


def bert(batch, length):
    """A small BERT with a batch that is full, two steps of SGD."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        attn_implementation="eager",
    )

    def factory(device):
        model = BertForSequenceClassification(config).to(device)
        used = torch.optim.SGD(model.parameters(), lr=0.1)
        tokens = torch.ones(batch, length, dtype=torch.int64)

        def step():
            there = tokens.to(device)
            labels = torch.zeros(batch, dtype=torch.int64).to(device)
            output = model(input_ids=there, attention_mask=torch.ones_like(there), labels=labels)
            output.loss.backward()
            used.step()
            used.zero_grad()
            return output

        return step

    return trace(factory, steps=2)


@pytest.fixture(scope="module")
def fitted_bert():
    return fitted(bert)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.integers(2, 64), length=st.integers(2, 500))
def test_a_model_at_any_shape_is_its_own_trace_event_by_event(fitted_bert, batch, length):
    assert_the_same(fitted_bert.at(batch, length), bert(batch, length))


def test_the_peak_at_any_shape_is_that_of_the_events(fitted_bert):
    for batch, length in itertools.product((1, 2, 9, 64, 700), (1, 8, 33, 512)):
        assert fitted_bert.peak_bytes(batch, length) == fitted_bert.at(batch, length).peak_bytes


def test_the_template_is_not_touched(fitted_bert):
    before = events(fitted_bert.template)
    fitted_bert.at(64, 512)
    assert events(fitted_bert.template) == before
    assert (fitted_bert.template.kind == Kind.KERNEL).any()
