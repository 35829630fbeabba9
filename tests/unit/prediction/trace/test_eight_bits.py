"""LoRA beside a body in 8 bits: as large as the real model of bitsandbytes, and the buffers of its products."""

import pytest
import torch

from ftbench.prediction.trace.bitsandbytes_package import bitsandbytes_on_card
from ftbench.prediction.trace.eight_bit_products import MOST_OUTLIER_COLUMNS, EightBitProducts
from ftbench.prediction.trace.events import SETUP, Kind
from ftbench.prediction.trace.trace_trainer import trace_trainer
from ftbench.prediction.trace.tracer import Target, trace, tracing
from ftbench.worker.recipe.method import with_method
from ftbench.worker.recipe.model import load_model
from ftbench.worker.recipe.quantization import QuantizedBody
from tests.factories import task as task_of_texts
from tests.traced import traced_cell
from tests.unit.prediction.trace.test_four_bits import LINEAR, of_role

FLOAT = 4


def cell(model="llama", **settings):
    half = {"dtype": "bfloat16", "bf16": True, "method": "lora", "quantization": "int8"}
    return traced_cell(model, **(half | settings))


def traced(of, outlier_columns=MOST_OUTLIER_COLUMNS):
    target = Target(padding=False, outlier_columns=outlier_columns)
    return trace_trainer(of, target, steps=2, evaluation=False)


def real_model(of):
    """The model of a run, on the processor."""
    body = QuantizedBody(torch.bfloat16, torch.device("cpu"), "int8")
    task = task_of_texts()
    loaded = load_model(
        of.model,
        ("0", "1"),
        task,
        attn_implementation="sdpa",
        dtype=of.dtype,
        quantized=body,
        pad_token_id=0,
    )
    return with_method(loaded.model, "lora", task, of.lora)


def in_memory(model):
    """The bytes of all that a model keeps: parameters, buffers and the scales of its weights."""
    kept = [*model.parameters(), *model.buffers()]
    kept += [p.SCB for p in model.parameters() if getattr(p, "SCB", None) is not None]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}.values()
    )


@pytest.mark.parametrize("model", ["llama", "bert", "distilbert", "gpt2"])
def test_it_is_as_large_as_the_real_model(model):
    of = cell(model)
    assert at_setup(traced(of)) == in_memory(real_model(of))


def at_setup(found):
    """The bytes of parameters before the first step, in which a layer casts its bias to the inputs' type."""
    roles = found.roles()
    return sum(
        int(nbytes)
        for (kind, block, site), nbytes in zip(found.rows(), found.nbytes, strict=True)
        if kind == Kind.ALLOCATE
        and roles[block] == "parameters"
        and found.sites[site].phase == SETUP
    )


def test_with_outliers_a_product_has_autocast_s_type_and_without_that_of_its_inputs():
    most, none = (traced(cell(), columns).peak_bytes for columns in (MOST_OUTLIER_COLUMNS, 0))
    assert most < none
    same = cell(bf16=False)  # without autocast, outliers are more to keep
    most, none = (traced(same, columns).peak_bytes for columns in (MOST_OUTLIER_COLUMNS, 0))
    assert 0 < most - none < 0.05 * none


ROWS, INNER, OUTER = 24, 64, 160


def product(*, inner=INNER, columns=0):
    """Allocations of one product, as sizes, in order."""
    products = EightBitProducts(columns)

    def factory(device):
        values = torch.zeros(ROWS, inner, device=device, dtype=torch.float16)
        weight = torch.zeros(OUTER, inner, device=device, dtype=torch.int8)
        scales = torch.zeros(OUTER, device=device)

        def step():
            rows, row_scales, outliers = products.quantize(values, 6.0)
            return products.multiply(values, rows, weight, row_scales, scales, outliers)[0]

        return step

    return trace(factory, steps=1)


def made(found):
    inputs = {ROWS * INNER * 2, OUTER * INNER, OUTER * FLOAT}
    sizes = [
        int(nbytes)
        for (kind, _, _), nbytes in zip(found.rows(), found.nbytes, strict=True)
        if kind == Kind.ALLOCATE
    ]
    return [nbytes for nbytes in sizes if nbytes not in inputs]


def test_the_buffers_of_a_product():
    sizes = made(product())
    assert ROWS * FLOAT in sizes  # scales of the rows
    assert sizes.count(ROWS * INNER) == 2  # rows of 8 bits, and what is an outlier
    assert ROWS * OUTER * FLOAT in sizes  # the product in int32
    assert ROWS * OUTER * 2 in sizes


def test_outlier_columns_are_dequantized():
    columns = 7
    more = set(made(product(columns=columns))) - set(made(product()))
    assert {ROWS * columns * 2, OUTER * columns, OUTER * columns * FLOAT} <= more


def test_the_package_s_layer_runs_with_its_own_gradient():
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def factory(device):
        weight = torch.zeros(OUTER, INNER, device=device, dtype=torch.float16)
        rows, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight)
        layer = bitsandbytes.nn.Linear8bitLt(
            INNER, OUTER, bias=False, has_fp16_weights=False, threshold=6.0, device="meta"
        )
        layer.weight = bitsandbytes.nn.Int8Params(rows, requires_grad=False, CB=rows, SCB=scales)
        inputs = torch.nn.Parameter(torch.zeros(ROWS, INNER, device=device, dtype=torch.float16))

        def step():
            layer(inputs).sum().backward()

        return step

    with tracing(Target()) as tracer, bitsandbytes_on_card(tracer):
        step = factory(Target().shown_device)
        tracer.begin()
        tracer.next_step()
        step()
        found = tracer.finish()
    # The weight as a whole in the type of the inputs, for the gradient of the inputs.
    assert INNER * OUTER * 2 in [int(n) for n in found.nbytes]


def test_weights_have_a_byte_and_a_scale_per_row():
    full = traced(cell(quantization="none", dtype="float32", bf16=False))
    saved = of_role(full, "parameters") - of_role(traced(cell()), "parameters")
    rows = saved - 3 * sum(LINEAR)
    assert rows < 0
    assert rows % FLOAT == 0
