"""What is known of a batch: values of tensors that follow from it, in every batch that stands for others."""

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace import batch_values
from ftbench.prediction.trace.tracer import Target, tracing

MASKS = ((1, 1, 1, 0), (1, 1, 0, 0))
TOKENS = ((5, 7, 7, 2), (9, 8, 2, 0))
END = 2


class Asking(torch.nn.Module):
    """A model whose forward is a question."""

    def __init__(self, question):
        super().__init__()
        self._question = question

    def forward(self, **batch):
        return self._question(**batch)


def asked(question, device="cpu", **columns):
    """Return the answer of a question about a batch of one row; `columns` has two batches of each."""
    target = Target(device=device)
    with tracing(target) as tracer:
        batch = {}
        for name, rows in columns.items():
            batch[name] = torch.zeros(1, len(rows[0]), dtype=torch.int64, device="cpu")
            with torch.utils._python_dispatch._disable_current_modes():
                values = [torch.tensor([row]) for row in rows]
            tracer.batch_values.know(batch[name], values)
        batch = {name: tensor.to(target.torch_device) for name, tensor in batch.items()}
        tracer.begin()
        tracer.next_step()
        answer = Asking(question)(**batch)
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else answer
        del batch, answer
        tracer.finish()
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda tokens: tokens.eq(END).sum(1).unique_consecutive().shape[0], 1),
        (lambda tokens: tokens.eq(END).nonzero(), (1, 2)),
        (lambda tokens: torch.randn(1, 4, 3, device=tokens.device)[tokens.eq(END), :], (1, 3)),
        (lambda tokens: int(tokens.eq(END).sum()), 1),
        (lambda tokens: bool(tokens.eq(END).any()), True),
        (lambda tokens: bool((tokens > 100).any()), False),
        (lambda tokens: (tokens >= 0).long().sum().item(), 4),
        # In place, through a view, and overwritten.
        (lambda tokens: tokens.clone().fill_(3).sum().item(), 12),
        (lambda tokens: tokens.masked_fill(tokens != END, 0).max().item(), 2),
    ],
)
def test_what_all_batches_agree_on_is_answered(question, answer, device):
    assert asked(question, device, tokens=TOKENS) == answer


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "question",
    [
        lambda mask: mask.nonzero(),
        lambda mask: int(mask.sum()),
        lambda mask: mask.sum(1).tolist(),
        lambda mask: torch.randn(1, 4, 3, device=mask.device)[mask.bool()],
    ],
)
def test_the_amount_of_padding_is_refused(question, device):
    with pytest.raises(PredictionError) as refusal:
        asked(question, device, mask=MASKS)
    assert refusal.value.where.startswith("aten.")
    assert "test_batch_values.py:" in refusal.value.got  # the line that asks


@pytest.mark.parametrize("number", [lambda x: x.argmax().item(), lambda x: x.nonzero()])
def test_a_number_that_is_computed_from_weights_is_refused(number):
    with pytest.raises(PredictionError):
        asked(lambda tokens: number(torch.randn(1, 4) * tokens), tokens=TOKENS)


def test_a_tensor_that_is_overwritten_by_unknown_values_is_not_known_any_more():
    def question(tokens):
        copy = tokens.clone()
        view = copy[:, 1:]
        view.copy_(torch.randn(1, 3).argsort())
        return int(copy.sum())

    with pytest.raises(PredictionError):
        asked(question, tokens=TOKENS)


def test_padding_is_known_as_such():
    assert asked(lambda mask: bool((mask == 1).all()), mask=MASKS) is False
    full = ((1, 1, 1, 1), (1, 1, 1, 1))
    assert asked(lambda mask: bool((mask == 1).all()), mask=full) is True


def test_a_later_batch_is_known_like_the_first():
    """The collator makes it as a constant, of values that stand for no other batch."""
    with tracing(Target(device="cpu")) as tracer:
        for _ in range(2):
            mask = torch.tensor([[1, 1, 1, 1]])
            with torch.utils._python_dispatch._disable_current_modes():
                values = [torch.tensor([row]) for row in MASKS]
            tracer.batch_values.know(mask, values)
            assert tracer.batch_values.numbers(mask.sum()) == {3, 2}
            del mask


LARGE = 300  # tokens: a mask of every pair has more elements than are computed at once


def pairs(tokens):
    return tokens[:, :, None] == tokens[:, None, :]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda tokens: int(pairs(tokens).sum()), LARGE**2),
        (lambda tokens: pairs(tokens).logical_not().nonzero(), (0, 3)),
        (lambda tokens: bool((pairs(tokens)[:, 1:, :-1] & True).all()), True),
        # Written to after others followed from it, and after a view of it was made.
        (lambda tokens: _written_later(tokens), LARGE**2),
        (lambda tokens: _written_through_a_view(tokens), LARGE**2 - LARGE),
        (lambda tokens: _after_many(tokens, 200), LARGE**2 * 200),
    ],
)
def test_large_values_are_answered_as_well(question, answer, device):
    assert asked(question, device, tokens=((7,) * LARGE, (9,) * LARGE)) == answer


def _written_later(tokens):
    first = pairs(tokens).long()
    second = first + 0
    first.mul_(0)
    return int(second.sum()) + int(first.sum())


def _written_through_a_view(tokens):
    mask = pairs(tokens).long()
    mask[:, 0].mul_(0)
    return int(mask.sum())


def _after_many(tokens, number):
    found = pairs(tokens).long() * 0
    for _ in range(number):
        found = found + 1
    return int(found.sum())


def test_large_values_are_not_computed_unless_a_model_asks(monkeypatch):
    run = []
    original = batch_values._run
    monkeypatch.setattr(
        batch_values, "_run", lambda func, arguments: run.append(func) or original(func, arguments)
    )

    def question(tokens):
        mask = (pairs(tokens) | True).logical_not()
        return tuple(mask.shape)

    assert asked(question, tokens=((7,) * LARGE, (9,) * LARGE)) == (1, LARGE, LARGE)
    computed = {str(func) for func in run}
    assert not computed & {"aten.eq.Tensor", "aten.bitwise_or.Scalar", "aten.logical_not.default"}
