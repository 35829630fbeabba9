"""Settings that cannot go together: which are refused, and why."""

import pytest
import torch

from ftbench.base.errors import ProfileError
from tests.factories import cell


@pytest.mark.parametrize(
    ("dtype", "why"), [("float16", "cannot unscale float16"), ("bfloat16", "no kernel on CUDA")]
)
def test_scaled_gradients_need_float32_weights(dtype, why):
    with pytest.raises(ProfileError, match=why) as refused:
        cell(dtype=dtype, fp16=True)
    assert refused.value.where == "dtype"
    assert refused.value.got == f"{dtype}, with fp16 = true"


def test_the_reason_is_that_of_torch():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    with pytest.raises(ValueError, match="unscale FP16 gradients"):
        scaler.unscale_(torch.optim.SGD([weight]))


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_needs_half_precision(attention):
    with pytest.raises(ProfileError, match="float16 and bfloat16 only") as refused:
        cell(attn_implementation=attention)
    assert refused.value.where == "attn_implementation"
    for half in ({"bf16": True}, {"fp16": True}, {"dtype": "float16"}, {"dtype": "bfloat16"}):
        assert cell(attn_implementation=attention, **half).attn_implementation == attention


@pytest.mark.parametrize("method", ["full", "head"])
def test_quantized_weights_need_lora(method):
    with pytest.raises(ProfileError, match="cannot be trained") as refused:
        cell(quantization="nf4", method=method)
    assert refused.value.where == "quantization"
    assert cell(quantization="nf4", method="lora").quantization == "nf4"


@pytest.mark.parametrize("settings", [{"bf16": True}, {}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_all_else_goes_together(dtype, settings):
    assert cell(dtype=dtype, **settings).dtype == dtype
    assert cell(fp16=True).product_dtype == "float16"
