"""Quantization: a frozen body with weights of 4 or 8 bits. bitsandbytes quantizes each as it reaches the device.

In 4 bits (NF4), as in QLoRA (Dettmers et al. 2023), weights of linear layers are in blocks of 64, each with a scale
that is quantized as well (double quantization). In 8 bits (LLM.int8, Dettmers et al. 2022) each row has a scale;
inputs are quantized, too, but for columns with outliers. All else, and the head, stays as it is.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

from ftbench.base.errors import ProfileError
from ftbench.plan.profile import Quantization
from ftbench.worker.recipe.method import head_modules

_SPREAD = 0.02  # of random weights if the config says nothing: transformers' usual one


@dataclasses.dataclass(frozen=True)
class QuantizedBody:
    """How a model's body is quantized: the type that products are computed in, and the device of the weights."""

    compute_dtype: torch.dtype
    device: torch.device
    kind: Quantization = "nf4"
    storage: torch.dtype = (
        torch.uint8
    )  # FSDP1 flattens packed weights with others, of which all have one type

    def config(self, skeleton: PreTrainedModel) -> BitsAndBytesConfig:
        """Return the settings for transformers; `skeleton` is the model, of which no weight is read."""
        skipped = head_modules(skeleton)
        if self.kind == "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.compute_dtype,
            bnb_4bit_quant_storage=self.storage,
            llm_int8_skip_modules=skipped,
        )

    def loading(self, skeleton: PreTrainedModel) -> dict[str, Any]:
        """Return the arguments of `from_pretrained` that quantize a model while it is loaded."""
        return {"quantization_config": self.config(skeleton), "device_map": {"": self.device}}

    def with_random_weights(self, skeleton: PreTrainedModel) -> PreTrainedModel:
        """Return a model without memory (`skeleton`, on the device `meta`) with random weights, quantized in turn.

        So it takes what a checkpoint takes that is quantized while it is loaded: one weight at most is whole.
        """
        quantizer = AutoHfQuantizer.from_config(self.config(skeleton), pre_quantized=False)
        dtype = (
            skeleton.dtype
        )  # of a checkpoint's tensors as they are loaded; replaced layers have another
        quantizer.preprocess_model(model=skeleton, device_map={"": self.device}, dtype=dtype)
        for module in skeleton.modules():
            if hasattr(module, "source_cls"):  # transformers' mark of layers that it has replaced
                self._quantize(module, dtype, getattr(skeleton.config, "initializer_range", None))
            self._materialise(module)
        skeleton.initialize_weights()
        skeleton.tie_weights()
        skeleton.hf_quantizer = quantizer  # as `from_pretrained` does; the Trainer asks it
        quantizer.postprocess_model(skeleton)
        return skeleton

    def _quantize(self, module: Any, dtype: torch.dtype, spread: float | None) -> None:
        """Give a layer random weights of this standard deviation, quantized, and a bias of zeros."""
        whole = torch.empty(module.weight.shape, dtype=dtype, device=self.device)
        whole.normal_(std=spread or _SPREAD)
        if self.kind == "int8":
            _give_8_bits(module, whole)
        else:
            _give_4_bits(module, whole, self.storage)
        if module.bias is not None:
            zeros = torch.zeros(module.bias.shape, dtype=dtype, device=self.device)
            module.bias = torch.nn.Parameter(zeros, requires_grad=False)
        for part in (module, *module.parameters()):
            part._is_hf_initialized = True

    def _materialise(self, module: torch.nn.Module) -> None:
        """Give a module's own parameters and buffers memory, where they have none; values come later."""
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type == "meta":
                made = torch.empty(parameter.shape, dtype=parameter.dtype, device=self.device)
                module.register_parameter(name, torch.nn.Parameter(made))
        for name, buffer in list(module.named_buffers(recurse=False)):
            kept = name not in module._non_persistent_buffers_set
            empty = torch.empty(buffer.shape, dtype=buffer.dtype, device=self.device)
            module.register_buffer(name, empty, persistent=kept)


def _give_4_bits(module: Any, whole: torch.Tensor, storage: torch.dtype) -> None:
    """Quantize a layer's weight to NF4, packed in elements of `storage` (`Params4bit._quantize`, nn/modules.py)."""
    bitsandbytes = importlib.import_module("bitsandbytes")
    packed, state = bitsandbytes.functional.quantize_4bit(
        whole, compress_statistics=True, quant_type="nf4", quant_storage=storage
    )
    module.quant_state = state
    module.weight = bitsandbytes.nn.Params4bit(
        packed,
        quant_state=state,
        compress_statistics=True,
        quant_type="nf4",
        quant_storage=storage,
        module=module,
        bnb_quantized=True,
    )


def _give_8_bits(module: Any, whole: torch.Tensor) -> None:
    """Quantize a layer's weight to 8 bits (`Int8Params._quantize` in bitsandbytes/nn/modules.py)."""
    bitsandbytes = importlib.import_module("bitsandbytes")
    half = whole.to(torch.float16, copy=True)  # by way of the host, in transformers' loading
    rows, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(half)
    module.weight = bitsandbytes.nn.Int8Params(rows, requires_grad=False, CB=rows, SCB=scales)


def require_bitsandbytes(wanted: Iterable[Quantization]) -> None:
    """Raise ProfileError if quantized weights are requested and bitsandbytes is not installed."""
    kinds = sorted(set(wanted) - {"none"})
    if kinds and importlib.util.find_spec("bitsandbytes") is None:
        raise ProfileError(
            "quantized weights need the package bitsandbytes, which is not installed",
            where="quantization",
            got=", ".join(kinds),
            hint="python -m pip install 'ftbench[bitsandbytes]'",
        )
