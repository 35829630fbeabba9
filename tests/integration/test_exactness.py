"""A trace of the CPU's memory against the real Trainer, which torch's profiler watches.

Eager attention multiplies its scores by a number. Torch makes that a tensor of one double, by no
operator, so no dispatch mode sees it; autograd keeps it. All of the differences below are these:

    bytes   cells of eager attention, two layers
    -16     that peak in forward or backward: one for each layer
    -24     checkpointing: the same, which hooks for saved tensors leave alone ("avoid wrapped numbers
            from being leaked", torch/csrc/autograd/saved_variable.cpp), and the recomputed block's
    -12     DistilBERT's evaluation, which peaks in that product: the double, and its copy in float32
      0     BERT's evaluation, and Adafactor, which peaks in the optimizer's step

With sdpa every cell agrees to the byte, but those of LoRA, which multiplies what comes out of each
pair of its matrices by such a number, too: six modules a layer here, so twelve doubles.

    bytes   cells of LoRA, two layers
    -96     BERT, which peaks in the last layer norm: twelve doubles (its pooler's comes later)
    -100    DistilBERT, which peaks in the last of these products: they, and its number in float32

Weights in half precision are as exact. Where LoRA's float32 meets them on the CPU, torch makes copies in
the common type, which the tracer makes as well. Products in bfloat16 take a workspace of oneDNN's on
processors with instructions for them (up to 0.4 MB in these cells), which no operator shows: oneDNN is off here.

The generator's states that checkpointing keeps, 5056 bytes a block, are noted by the tracer itself.
"""

import functools
from dataclasses import dataclass, field

import pytest
import torch

from ftbench.base.units import KIB
from ftbench.prediction.trace import trace_trainer as trainer
from ftbench.prediction.trace.tracer import Target
from tests.cpu_peak import peak_of_training
from tests.integration.conftest import some_long
from tests.traced import LAYERS, traced_cell

pytestmark = pytest.mark.integration

STEPS = 2
LINEAR = 6  # modules of a layer that LoRA adapts
UNSEEN = {("lora", "bert"): 8 * LINEAR * LAYERS, ("lora", "distilbert"): 8 * LINEAR * LAYERS + 4}
LIMIT = 8 * KIB


@dataclass(frozen=True)
class Option:
    """What a cell differs in: its settings, its shape, and whether its documents are padded."""

    settings: dict[str, object] = field(default_factory=dict)
    shape: dict[str, object] = field(default_factory=dict)
    padded: bool = False


WHOLE_VOCABULARY = {"config": {"vocab_size": 30522}}
OPTIONS = {
    "plain": Option(),
    "padded": Option(shape={"batch": 6, "length": 72}, padded=True),
    "checkpointing": Option(
        {"gradient_checkpointing": True, "optim": "adamw_torch"}, {"batch": 16, "length": 64}
    ),
    "checkpointing, padded": Option(
        {"gradient_checkpointing": True}, {"batch": 4, "length": 256}, padded=True
    ),
    "accumulation": Option(
        {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1},
        {"batch": 4, "length": 96},
    ),
    "bf16": Option({"bf16": True}, {"batch": 12, "length": 40}),
    "adafactor": Option({"optim": "adafactor"}, {"batch": 2, "length": 16, **WHOLE_VOCABULARY}),
    "lomo": Option({"optim": "lomo"}, {"batch": 2, "length": 16, **WHOLE_VOCABULARY}),
    "sgd": Option({"optim": "sgd", "max_grad_norm": 0.0}, {"batch": 3, "length": 136}),
    "evaluation": Option(
        {"per_device_eval_batch_size": 64}, {"batch": 1, "length": 48, "eval_size": 128}
    ),
}
CELLS = [
    (model, attention, option)
    for model in ("bert", "distilbert")
    for attention in ("eager", "sdpa")
    for option in OPTIONS
]


@dataclass(frozen=True)
class Comparison:
    """A cell's peak as measured, its trace, and where that peaks."""

    measured: int
    trace: object

    @property
    def difference(self):
        return self.trace.peak_bytes - self.measured

    @property
    def place(self):
        return self.trace.sites[self.trace.site[self.trace.peak_event]]

    @property
    def share_of_batch(self):
        """The share of the peak that comes with the documents: all but the model and its training."""
        roles = self.trace.roles()
        live = self.trace.live_at(self.trace.peak_event)
        of_batch = [
            row
            for row in live
            if roles[self.trace.block[row]] in ("activations", "temporaries", "inputs")
        ]
        return self.trace.nbytes[of_batch].sum() / self.trace.peak_bytes


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small tensors are no work for two, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def compared(model, attention, name):
    option = OPTIONS[name]
    cell = traced_cell(model, attention, **option.shape, **option.settings)
    target = Target(device="cpu", padding=option.padded)
    return Comparison(
        peak_of_training(cell, padded=option.padded, steps=STEPS),
        trainer.trace_trainer(cell, target, steps=STEPS),
    )


@pytest.mark.parametrize("model", ["bert", "distilbert"])
@pytest.mark.parametrize("method", ["head", "lora"])
def test_the_trace_agrees_where_weights_are_frozen(model, method):
    cell = traced_cell(model, method=method)
    target = Target(device="cpu", padding=False)
    found = Comparison(
        peak_of_training(cell, padded=False, steps=STEPS),
        trainer.trace_trainer(cell, target, steps=STEPS),
    )
    assert found.difference == -UNSEEN.get((method, model), 0)
    if (method, model) == ("lora", "distilbert"):  # the product that the last four bytes are of
        assert found.place.operator == "aten::mul"
        assert found.place.module.endswith(f"layer.{LAYERS - 1}.ffn.lin2")


@pytest.mark.parametrize("model", ["bert", "distilbert"])
def test_the_trace_of_a_regression_agrees(model):
    """One output and the mean squared error, where a classifier has its classes and cross-entropy."""
    cell = traced_cell(model, task="text-regression")
    target = Target(device="cpu", padding=False)
    trace = trainer.trace_trainer(cell, target, steps=STEPS)
    assert trace.peak_bytes == peak_of_training(cell, padded=False, steps=STEPS)
    assert any("mse_loss" in site.operator for site in trace.sites)


# GPT-2's activation multiplies by three numbers per layer, of 8 bytes each, BART by one; LoRA by one for each
# adapted module. In masked-lm with bf16 autocast 2 KiB are missing, which nobody has explained yet.
LANGUAGE = {
    "plain": Option(),
    "padded": Option(padded=True),
    "checkpointing": Option({"gradient_checkpointing": True}),
    "accumulation": Option({"gradient_accumulation_steps": 2}, {"batch": 4}),
    "bf16": Option({"bf16": True}),
    "lora": Option({"method": "lora"}),
    "evaluation": Option({"per_device_eval_batch_size": 32}, {"batch": 1, "eval_size": 64}),
}
PACKED = {
    "concatenated": Option({"packing": "concatenate"}),
    "padding-free": Option({"packing": "padding-free"}, {"batch": 6, "length": 40}),
}
TASKS = {
    "causal-lm": ("llama", "gpt2"),
    "masked-lm": ("bert", "distilbert"),
    "seq2seq-lm": ("t5", "bart"),
    "token-classification": ("bert", "distilbert"),
}
OF_TOKENS = [
    (task, model, option)
    for task, models in TASKS.items()
    for model in models
    for option in (LANGUAGE | PACKED if task == "causal-lm" else LANGUAGE)
]


@pytest.mark.parametrize(("task", "model", "option"), some_long(OF_TOKENS, every=12))
def test_the_trace_of_a_task_of_tokens_agrees(task, model, option):
    """Outputs for each token, and an evaluation that keeps one or two numbers of each."""
    of = (LANGUAGE | PACKED)[option]
    shape = of.shape | (WHOLE_VOCABULARY if task == "masked-lm" else {})  # random words are any
    cell = traced_cell(model, task=task, **shape, **of.settings)
    trace = trainer.trace_trainer(cell, Target(device="cpu", padding=of.padded), steps=STEPS)
    found = Comparison(peak_of_training(cell, padded=of.padded, steps=STEPS), trace)
    assert abs(found.difference) <= (2 * KIB if option == "bf16" else KIB // 2)
    if option == "evaluation":
        assert found.place.phase == "evaluation"


HALF = [
    *((model, "sdpa", "full") for model in ("bert", "distilbert", "llama", "gpt2")),
    *((model, "eager", "full") for model in ("bert", "llama")),
    ("llama", "sdpa", "lora"),
]
# Numbers that products are multiplied by: eager attention's, GPT-2's activations', LoRA's.
NUMBERS = {"eager": 8 * LAYERS, "gpt2": 8 * 3 * LAYERS, "lora": 8 * 7 * LAYERS + 4}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("model", "attention", "method"), some_long(HALF, every=3))
def test_the_trace_of_weights_in_half_precision_agrees(model, attention, method, dtype):
    cell = traced_cell(model, attention, method=method, dtype=dtype)
    with torch.backends.mkldnn.flags(enabled=False):
        measured = peak_of_training(cell, padded=False, steps=STEPS)
    target = Target(device="cpu", padding=False)
    found = Comparison(measured, trainer.trace_trainer(cell, target, steps=STEPS))
    unseen = sum(NUMBERS.get(part, 0) for part in (model, attention, method))
    assert -unseen <= found.difference <= 0
    single = trainer.trace_trainer(cell.model_copy(update={"dtype": "float32"}), target, steps=1)
    assert found.trace.peak_bytes < 0.9 * single.peak_bytes


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_the_trace_of_lora_on_a_decoder_agrees(model):
    cell = traced_cell(model, method="lora")
    target = Target(device="cpu", padding=False)
    trace = trainer.trace_trainer(cell, target, steps=STEPS)
    measured = peak_of_training(cell, padded=False, steps=STEPS)
    assert -NUMBERS["lora"] - NUMBERS.get(model, 0) <= trace.peak_bytes - measured <= 0


@pytest.mark.parametrize(
    ("task", "model", "settings", "columns"),
    [
        ("text-classification", "bert", {}, {}),
        ("causal-lm", "llama", {}, {}),
        ("causal-lm", "llama", {}, {"keep_logits": True}),
        ("causal-lm", "gpt2", {"per_device_eval_batch_size": 4}, {"keep_logits": True}),
        ("causal-lm", "llama", {"eval_do_concat_batches": False}, {"keep_logits": True}),
        ("token-classification", "bert", {}, {"keep_logits": True}),
    ],
)
def test_an_evaluation_keeps_what_the_trainer_keeps_of_all_examples(task, model, settings, columns):
    """Nine batches, of which a trace runs two or four."""
    cell = traced_cell(
        model, task=task, batch=1, length=32, eval_size=72, columns=columns, **settings
    )
    trace = trainer.trace_trainer(cell, Target(device="cpu", padding=False), steps=STEPS)
    found = Comparison(peak_of_training(cell, padded=False, steps=STEPS), trace)
    assert found.difference == 0
    if columns and not settings and task == "causal-lm":
        assert found.place.phase == "evaluation"


def test_what_is_moved_to_the_host_is_not_kept():
    def peak(**settings):
        of = traced_cell(
            "llama", task="causal-lm", batch=1, length=32, columns={"keep_logits": True}, **settings
        )
        return trainer.trace_trainer(of, Target(padding=False), steps=STEPS).peak_bytes

    whole = peak(eval_size=72)
    for batches in (1, 2, 5):
        some = peak(eval_size=72, eval_accumulation_steps=batches)
        assert some == peak(eval_size=8 * batches) < whole


def test_there_are_enough_cells():
    assert len(CELLS) >= 24


@pytest.mark.parametrize(("model", "attention", "option"), some_long(CELLS, every=9))
def test_the_trace_agrees_with_the_trainer(model, attention, option):
    found = compared(model, attention, option)
    assert abs(found.difference) <= LIMIT
    unseen = 8 * (LAYERS + 1) if attention == "eager" else 0
    assert -unseen <= found.difference <= 0, "a difference that the table above does not explain"


@pytest.mark.long
def test_the_peaks_are_at_different_places():
    # Else a trace that is right about one moment would pass.
    places = {compared(*cell).place for cell in CELLS}
    assert {place.phase for place in places} >= {"forward", "backward", "optimizer", "evaluation"}
    assert len({place.operator for place in places}) >= 5


@pytest.mark.long
def test_most_peaks_come_with_the_documents():
    shares = [compared(*cell).share_of_batch for cell in CELLS]
    assert sum(share > 0.5 for share in shares) > len(CELLS) / 2
