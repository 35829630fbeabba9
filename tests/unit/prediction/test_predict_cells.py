"""Predictions of cells: which share traces, what is refused, which batch is the largest. Planted traces."""

import dataclasses

import pytest

from ftbench.base.errors import PredictionError, WorkloadError
from ftbench.plan.gpus import find_gpu
from ftbench.prediction import predict_cells as module
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.predict_cells import predict
from ftbench.prediction.shapes import shapes as shape_traces
from ftbench.prediction.simulate.cards import card_of, verdict_of
from ftbench.prediction.simulate.simulation import simulate_all
from ftbench.prediction.trace.events import BACKWARD, FORWARD, SETUP, Kernel, Site, TraceBuilder
from ftbench.records.prediction import PredictRequest
from tests.factories import cell_work, data_source, grid

KIB, MIB, GIB = 1024, 1024**2, 1024**3
WEIGHTS = 400 * MIB
ROW = 60 * KIB  # of activations, for a token
PRODUCT = Kernel("aten::mm", (2, 3, 4), (0, 4), False)


def trained(batch, *lengths):
    """A trace: weights, then in each step activations of a batch of this length, and gradients."""
    builder = TraceBuilder()
    builder.roles[builder.allocate(WEIGHTS, Site(SETUP, 0, "", "aten::empty"))] = "parameters"
    for step, length in enumerate(lengths, start=1):
        forward, backward = (
            Site(FORWARD, step, "m", "aten::mm"),
            Site(BACKWARD, step, "m", "aten::t"),
        )
        size = ROW * batch * length
        with builder.kernel(PRODUCT, forward):
            kept = builder.allocate(size, forward)
        gradients = builder.allocate(WEIGHTS, backward)
        builder.free(kept, size, backward)
        builder.free(gradients, WEIGHTS, backward)
    return builder.build()


class Planted:
    """In the place of `trace_trainer`: makes a trace by hand, and remembers what was asked for."""

    def __init__(self):
        self.calls = []
        self.refuse = lambda cell, target: None

    def __call__(self, cell, target, *, batches, ranks=None):
        self.calls.append((cell, target, batches))
        self.refuse(cell, target)
        lengths = [*batches.lengths, *[batches.lengths[-1]] * 3][:3]
        return trained(cell.per_device_train_batch_size, *lengths)

    @property
    def shapes(self):
        return [(c.per_device_train_batch_size, b.lengths[0]) for c, _, b in self.calls]


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    traced = Planted()
    monkeypatch.setattr(shape_traces, "trace_trainer", traced)
    return traced


def cells(training=None, **axes):
    block = {
        "max_length": [16, 32],
        "per_device_train_batch_size": [4, 8],
        "train_size": [64],
    } | axes
    return grid(grid=[block], training=training or {}).cells


def gpus(*names):
    return [find_gpu(name) for name in names]


def asking(of, *names, **options):
    return predict(of, gpus(*names), request=PredictRequest(cells=of, gpus=gpus(*names), **options))


# Padding


@pytest.mark.parametrize(
    ("padding", "lengths", "padded"),
    [
        ("max_length", (), [(16, True), (32, True)]),  # nothing is known
        ("max_length", (8, 48), [(16, True), (32, True)]),
        ("max_length", (20, 48), [(16, False), (32, True)]),
        ("max_length", (48, 48), [(16, False), (32, False)]),
        ("longest", (48, 48), [(16, True), (32, True)]),
    ],
)
def test_batches_without_padding_are_traced_as_such(planted, padding, lengths, padded):
    of = cells(padding=[padding])
    found = predict(of, sequence_lengths=SequenceLengths(lengths=lengths))
    assert [one.cell_id for one in found.cells] == [one.cell_id for one in of]
    traced = {(cell.max_length, target.padding) for cell, target, _ in planted.calls}
    if padding == "max_length":
        assert sorted(traced) == padded
    assert {told for _, told in traced} == {told for _, told in padded}


@pytest.mark.parametrize("longest", [48, 8])
def test_flash_attention_has_an_interval_if_there_is_padding(planted, monkeypatch, longest):
    """The planted trace of the fewest tokens is of one token per example."""

    def by_tokens(cell, target, *, batches, ranks):
        lengths = (1,) * 3 if target.tokens == "fewest" else (cell.max_length,) * 3
        return trained(cell.per_device_train_batch_size, *lengths)

    monkeypatch.setattr(shape_traces, "trace_trainer", by_tokens)
    axes = {"attn_implementation": ["flash_attention_2"], "max_length": [16]}
    of = cells({"bf16": True}, per_device_train_batch_size=[4], **axes)
    found = predict(of, sequence_lengths=SequenceLengths(lengths=(longest, 48)))
    (tensors,) = (one.tensors for one in found.cells)
    most, least = (trained(4, *[length] * 3).peak_bytes for length in (16, 1))
    padded = longest < 16
    assert (tensors.low_bytes, tensors.value_bytes) == (least if padded else most, most)
    assert tensors.certainty == ("interval" if padded else "exact")
    assert any("removes padding" in note for note in found.notes) is padded


# Predictions


def test_every_cell_has_a_prediction_in_its_order():
    of = cells()
    found = predict(of, gpus("t4", "h100"))
    assert [one.cell_id for one in found.cells] == [one.cell_id for one in of]
    assert found.refused == ()
    for one, prediction in zip(of, found.cells, strict=True):
        assert [card.gpu for card in prediction.cards] == ["t4", "h100"]
        trace = trained(one.per_device_train_batch_size, *[one.max_length] * 3)
        tensors = prediction.tensors
        assert tensors.value_bytes == tensors.low_bytes == tensors.high_bytes == trace.peak_bytes
        assert tensors.certainty == "exact"
        for card in prediction.cards:
            assert card.reserved.value_bytes >= card.allocated.value_bytes
            assert card.allocated.value_bytes >= card.requested.value_bytes >= tensors.value_bytes
            assert card.verdict == "fits"


def test_figures_are_those_of_the_simulation():
    (one,) = cells(max_length=[32], per_device_train_batch_size=[8])
    (found,) = predict([one], gpus("h100")).cells
    card = card_of(find_gpu("h100"))
    simulated = simulate_all([trained(8, 32, 32, 32)], card.runtime, card.capacities)
    reserved = found.cards[0].reserved
    assert reserved.value_bytes == simulated.first.peak_reserved_bytes
    assert (reserved.low_bytes, reserved.high_bytes) == simulated.interval("peak_reserved_bytes")


def test_without_a_card_there_are_tensors_alone():
    assert {one.cards for one in predict(cells()).cells} == {()}


def test_cells_of_one_shape_share_their_trace(planted):
    found = predict(cells(seed=[1, 2, 3]), gpus("t4"))
    assert len(found.cells) == 12
    assert sorted(planted.shapes) == [(4, 16), (4, 32), (8, 16), (8, 32)]
    assert {one.source for one in found.cells} == {"traced"}


def test_many_cells_are_told_from_few_traces(planted):
    of = cells(max_length=[16, 32, 64, 128], per_device_train_batch_size=[1, 2, 4, 8, 16, 32])
    found = predict(of, gpus("t4"))
    assert len(planted.calls) == 5 + 1 + 4  # a fit, what it is held against, and batches of one
    by_source = dict.fromkeys(("traced", "fitted"), 0)
    for one, prediction in zip(of, found.cells, strict=True):
        by_source[prediction.source] += 1
        trace = trained(one.per_device_train_batch_size, *[one.max_length] * 3)
        assert prediction.tensors.value_bytes == trace.peak_bytes
    assert by_source == {"traced": 4, "fitted": 20}


def test_a_cell_that_is_asked_for_twice_is_there_once():
    of = cells()
    assert len(predict([*of, *of]).cells) == len(of)


def test_a_batch_is_no_larger_than_the_subset(planted):
    predict(cells(max_length=[16], per_device_train_batch_size=[100], train_size=[8]))
    assert planted.shapes == [(8, 16)]


def test_the_data_say_how_many_labels_there_are(planted):
    predict(cells(), sequence_lengths=SequenceLengths(labels=("a", "b", "c")))
    assert {batches.labels for _, _, batches in planted.calls} == {("a", "b", "c")}


def test_processes_come_to_the_same():
    of = cells(max_length=[16, 32, 64, 128], per_device_train_batch_size=[1, 2, 4, 8])
    alone, shared = (asking(of, "t4", "l4", processes=n, largest_batch=True) for n in (1, 2))
    assert alone == shared


def test_where_it_does_not_fit():
    large, small = cells(max_length=[512], per_device_train_batch_size=[1024, 8], train_size=[4096])
    found = predict([large, small], gpus("t4", "h100"))
    verdicts = {c.gpu: c.verdict for c in found.of(large.cell_id).cards}
    assert verdicts == {"t4": "does not fit", "h100": "fits"}
    assert {c.verdict for c in found.of(small.cell_id).cards} == {"fits"}
    card = found.of(large.cell_id).cards[0]
    assert card.reserved.value_bytes <= card.capacity_high_bytes


def test_too_close_to_call():
    gpu = find_gpu("t4")
    least, most = card_of(gpu).capacity
    batch = ((least + most) // 2 - 2 * WEIGHTS) // (ROW * 64)
    (one,) = cells(max_length=[64], per_device_train_batch_size=[batch], train_size=[10**5])
    (found,) = predict([one], [gpu]).cells
    assert found.cards[0].verdict == "too close to call"


def test_expandable_segments_are_passed_on():
    of = cells(max_length=[32], per_device_train_batch_size=[7])
    usual, expandable = (
        asking(of, "t4", expandable_segments=on).cells[0].cards[0].reserved.value_bytes
        for on in (False, True)
    )
    assert expandable != usual


def test_compositions_only_where_they_are_asked_for():
    of = cells()
    assert {one.composition for one in predict(of).cells} == {None}
    for one in asking(of, explain=True).cells:
        roles = {share.name: share.nbytes for share in one.composition.roles}
        assert sum(roles.values()) == one.tensors.value_bytes
        assert roles["parameters"] == WEIGHTS


def test_cards_of_other_generations_are_joined():
    of = cells({"bf16": True})
    found = predict(of, gpus("h100", "t4", "a100-40gb"))
    for one in found.cells:
        assert [card.gpu for card in one.cards] == ["h100", "t4", "a100-40gb"]


def test_versions_are_named():
    assert {"torch", "transformers"} <= dict(predict(cells()).versions).keys()


def test_progress_is_told():
    said = []
    predict(cells(attn_implementation=["eager", "sdpa"]), on_progress=said.append)
    assert said == ["tracing m", "simulating 4 cells"] * 2


# Refusals


def test_what_is_not_covered_is_refused_one_by_one(planted):
    of = cells(optim=["adamw_torch", "galore_adamw"])
    found = predict(of, gpus("t4"))
    refused = [one for one in of if one.value("optim") == "galore_adamw"]
    assert [one.cell_id for one in found.refused] == [one.cell_id for one in refused]
    assert all("training.optim" in one.reason for one in found.refused)
    assert len(found.cells) == len(of) - len(refused) == 4
    assert {cell.value("optim") for cell, _, _ in planted.calls} == {"adamw_torch"}


@pytest.mark.parametrize("error", [PredictionError, WorkloadError])
def test_what_a_trace_refuses_is_refused_with_its_group(planted, error):
    def refuse(cell, target):
        if cell.attn_implementation == "sdpa":
            raise error("this attention is not to be had", where="workload.model")

    planted.refuse = refuse
    of = cells(attn_implementation=["eager", "sdpa"])
    found = predict(of, gpus("t4"))
    assert {one.cell_id for one in found.refused} == {
        one.cell_id for one in of if one.attn_implementation == "sdpa"
    }
    assert {one.reason for one in found.refused} == {
        "on t4: workload.model: this attention is not to be had"
    }
    assert len(found.cells) == len(found.refused) == 4


def refuse_on(*capabilities):
    def refuse(cell, target):
        if target.compute_capability in capabilities:
            raise PredictionError("no such kernel")

    return refuse


@pytest.mark.parametrize(("refusing", "answering"), [((9, 0), "t4"), ((7, 0), "h100")])
def test_a_card_that_refuses_a_cell_keeps_no_other_card_from_answering(
    planted, refusing, answering
):
    planted.refuse = refuse_on(refusing)
    of = cells({"bf16": True})
    found = predict(of, gpus("t4", "h100"))
    assert found.refused == ()
    assert {card.gpu for one in found.cells for card in one.cards} == {answering}
    assert len(found.cells) == len(found.refused_cards) == len(of)
    assert {answering, *found.refused_cards[0].gpus} == {"t4", "h100"}
    compared = found.on_every_card()
    assert compared.cells == compared.refused_cards == ()
    assert [one.cell_id for one in compared.refused] == [one.cell_id for one in of]


def test_a_cell_that_all_cards_refuse_is_refused(planted):
    planted.refuse = refuse_on((7, 0), (9, 0))
    of = cells({"bf16": True})
    found = predict(of, gpus("t4", "h100"))
    assert found.cells == found.refused_cards == ()
    assert {one.reason for one in found.refused} == {"on t4: no such kernel"}


def test_a_model_that_cannot_be_traced_is_refused_and_the_error_is_in_the_log(planted, capfd):
    def fail(cell, target):
        raise ZeroDivisionError("no positions left")

    planted.refuse = fail
    found = predict(of := cells())
    assert not found.cells
    assert len(found.refused) == len(of)
    assert "no positions left" in found.refused[0].reason
    assert "ZeroDivisionError" in capfd.readouterr().err


# Batches of varying length

DOCUMENTS = SequenceLengths(lengths=tuple(range(8, 64)))


def longest(**axes):
    block = {"max_length": [128], "per_device_train_batch_size": [4], "padding": ["longest"]}
    return cells(**(block | axes))


@pytest.mark.parametrize("names", [(), ("t4",)])
def test_a_batch_is_padded_to_the_longest_document(planted, names):
    (found,) = predict(longest(), gpus(*names), sequence_lengths=DOCUMENTS).cells
    assert (4, 63) in planted.shapes  # the longest of the documents, not max_length
    assert found.tensors.value_bytes == trained(4, 63, 63, 63).peak_bytes


@pytest.mark.parametrize("names", [(), ("t4",)])
def test_varying_lengths_are_an_interval(names):
    (found,) = predict(longest(), gpus(*names), sequence_lengths=DOCUMENTS).cells
    assert found.tensors.certainty == "interval"
    assert found.tensors.low_bytes < found.tensors.high_bytes == found.tensors.value_bytes
    for card in found.cards:
        assert card.requested.low_bytes < card.requested.high_bytes
        assert card.reserved.low_bytes <= card.reserved.value_bytes <= card.reserved.high_bytes


def test_without_documents_there_is_one_order():
    (found,) = predict(longest(), gpus("t4")).cells
    assert found.tensors.certainty == "interval"  # nobody knows the lengths
    assert found.tensors.value_bytes == trained(4, 128, 128, 128).peak_bytes


def test_variables_of_the_environment_are_said_to_be_ignored(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cells = grid(
        grid=[{"max_length": [16], "per_device_train_batch_size": [4], "train_size": [64]}]
    )
    lengths = SequenceLengths()
    request = PredictRequest(cells=cells.cells, gpus=(find_gpu("t4"),))
    assert any(
        "CUBLAS_WORKSPACE_CONFIG" in note for note in module._notes(cells.cells, lengths, request)
    )
    without = PredictRequest(cells=cells.cells, gpus=())
    assert not any("CUBLAS" in note for note in module._notes(cells.cells, lengths, without))


def test_notes_say_what_was_assumed():
    assert predict(cells()).notes == ()
    (note,) = predict(longest(), sequence_lengths=DOCUMENTS).notes
    assert "random orders" in note
    (note,) = predict(longest()).notes
    assert "not known" in note
    (note,) = asking(cells(), data_at_hand=False).notes
    assert "could not be read" in note


@pytest.mark.parametrize(
    ("eval_size", "keep_logits", "said"), [(10_000, True, 1), (10_000, False, 0), (8, True, 0)]
)
def test_a_long_evaluation_s_reserved_memory_is_a_lower_bound(eval_size, keep_logits, said):
    data = data_source(task="causal-lm", eval_size=eval_size, keep_logits=keep_logits)
    of = [cell.model_copy(update={"data": data}) for cell in cells()]
    notes = module._notes(of, SequenceLengths(), PredictRequest(cells=tuple(of)))
    assert sum("lower bound" in note for note in notes) == said


# The largest batch


def test_the_largest_batch_of_every_length_and_card():
    of = cells(max_length=[512, 128, 256])
    found = asking(of, "h100", "t4", largest_batch=True)
    assert [(one.max_length, one.gpu) for one in found.largest] == [
        (length, gpu) for length in (128, 256, 512) for gpu in ("h100", "t4")
    ]
    by = {(one.gpu, one.max_length): one for one in found.largest}
    for gpu in ("t4", "h100"):
        sizes = [by[gpu, length].certain for length in (128, 256, 512)]
        assert sizes[0] > sizes[1] > sizes[2] > 0
    for length in (128, 256, 512):
        assert by["t4", length].possible < by["h100", length].certain
    ids = {one.cell_id: one for one in of}
    for one in found.largest:
        assert ids[one.cell_id].max_length == one.max_length
        assert one.certain <= one.possible
        assert one.reserved.value_bytes <= card_of(find_gpu(one.gpu)).capacity[0]


def test_lengths_that_documents_make_one_have_a_line_each():
    of = longest(max_length=[128, 256])
    request = PredictRequest(cells=of, gpus=gpus("t4"), largest_batch=True)
    found = predict(of, gpus("t4"), sequence_lengths=DOCUMENTS, request=request)
    assert [one.max_length for one in found.largest] == [128, 256]
    assert found.largest[0].certain == found.largest[1].certain


SMALL = dataclasses.replace(card_of(find_gpu("t4")), name="small", capacity=(900 * MIB, 940 * MIB))


def verdict(batch, length, card=SMALL):
    simulated = simulate_all([trained(batch, *[length] * 3)], card.runtime, card.capacities)
    return verdict_of(simulated)


@pytest.mark.parametrize(
    ("length", "capacity"),
    [
        (8, (900, 940)),
        (64, (900, 940)),
        (128, (900, 940)),
        (8, (1000, 1001)),
        (512, (900, 940)),
        (2048, (900, 905)),
        (64, (100, 300)),
    ],
)
def test_the_largest_batch_is_the_one_of_a_search_through_all(monkeypatch, length, capacity):
    card = dataclasses.replace(SMALL, capacity=(capacity[0] * MIB, capacity[1] * MIB))
    monkeypatch.setattr(module, "card_of", lambda gpu, version: card)
    of = cells(max_length=[length], per_device_train_batch_size=[4])
    (found,) = asking(of, "t4", largest_batch=True).largest
    told = {batch: verdict(batch, length, card) for batch in range(1, 600)}
    assert told[599] == "does not fit"
    assert found.certain == max((b for b, v in told.items() if v == "fits"), default=0)
    assert found.possible == max((b for b, v in told.items() if v != "does not fit"), default=0)
    assert (found.reserved is None) == (found.certain == 0)
    if found.reserved is not None:
        assert found.reserved.high_bytes <= card.capacity[0]


def test_the_largest_batch_of_a_length_that_cannot_be_told_is_left_out(monkeypatch):
    def unruly(cell, target, *, batches, ranks):
        builder = TraceBuilder()
        for _ in range(cell.per_device_train_batch_size):
            builder.allocate(100, Site(FORWARD, 1, "", ""))
        return builder.build()

    monkeypatch.setattr(shape_traces, "trace_trainer", unruly)
    found = asking(cells(), "t4", largest_batch=True)
    assert len(found.cells) == 4
    assert found.largest == ()


# Work


@pytest.fixture
def counted(monkeypatch):
    """In the place of `count_work`: remembers the shapes that were asked for."""
    shapes = []

    def count(cell, target, batches):
        shapes.append((cell.per_device_train_batch_size, *batches.lengths))
        return cell_work(checkpoint_bytes=batches.lengths[0])

    monkeypatch.setattr(shape_traces, "count_work", count)
    return shapes


def test_work_is_counted_where_that_is_asked_for(counted):
    asked = cells()
    assert predict(asked).cells[0].work is None
    assert counted == []
    found = predict(asked, request=PredictRequest(cells=asked, work=True))
    assert [one.work.checkpoint_bytes for one in found.cells] == [16, 16, 32, 32]
    assert sorted(counted) == [(4, 16), (4, 32), (8, 16), (8, 32)]
    assert found.cells[0].least_work is None


def test_where_lengths_vary_the_least_work_is_of_documents_of_the_mean_length(counted):
    asked = cells(max_length=[32], padding=["longest"])
    sequence_lengths = SequenceLengths(lengths=(8, 24, 40), complete=True)
    request = PredictRequest(cells=asked, work=True)
    found = predict(asked, sequence_lengths=sequence_lengths, request=request).cells[0]
    assert found.work.checkpoint_bytes == 32
    assert found.least_work.checkpoint_bytes == 16  # of 8, 24 and 32, rounded down to eight
