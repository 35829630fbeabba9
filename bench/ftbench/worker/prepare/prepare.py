"""The prepare stage, which runs once before the first cell, in a worker of its own.

It checks model and data, so that bad input is rejected before anything runs; tokenises each length into the
cache of the library datasets; counts FLOPs; and measures the matmul peak.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ftbench.base.errors import ProfileError, WorkloadError, nearest_name
from ftbench.plan.cell import Cell
from ftbench.plan.profile import Method, WeightsDtype
from ftbench.records.measurement import RunWarning
from ftbench.records.messages import (
    Preparation,
    PrepareRequest,
    Progress,
    StepFlops,
    TokenisedPools,
    tokenised_key,
)
from ftbench.worker.data.facts import describe_pools
from ftbench.worker.data.pools import Pools, load_pools, require_sizes
from ftbench.worker.data.tokenised import tokenise
from ftbench.worker.measure.device import DTYPES, measure_matmul, torch_device
from ftbench.worker.prepare.environment import read_environment
from ftbench.worker.prepare.flops import fit_flops
from ftbench.worker.prepare.optimizer_packages import refuse_batched_scores, require_optimizer
from ftbench.worker.process.malloc import require_mallopt
from ftbench.worker.recipe.finetune import training_arguments
from ftbench.worker.recipe.gguf import quantised_warnings
from ftbench.worker.recipe.method import require_peft, with_method
from ftbench.worker.recipe.model import (
    attention_for,
    length_limit,
    load_config,
    load_model,
    model_class,
    require_room,
)
from ftbench.worker.recipe.model_files import require_model_files
from ftbench.worker.recipe.packing import refuse_cache, require_apart
from ftbench.worker.recipe.quantization import require_bitsandbytes
from ftbench.worker.recipe.tokenizer import (
    load_tokenizer,
    padding_warnings,
    require_own_tokenizer,
    unknown_share,
    unknown_warnings,
)
from ftbench.worker.recipe.trackers import require_packages
from ftbench.worker.tasks.protocol import Task
from ftbench.worker.tasks.tasks import task_of

if TYPE_CHECKING:
    from peft import PeftModel

# Examples that the tokenizer is judged by.
_JUDGED = 1000
# More tokens than any tokenizer adds to a text.
_SPECIAL = 8
FLOPS_ABSENT = "the model's FLOPs are not a quadratic in the sequence length"


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Preparation` for a `PrepareRequest`, both as JSON data.

    Raises WorkloadError or ProfileError if the workload or the settings cannot be used.
    """
    began = time.perf_counter()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    request = PrepareRequest.model_validate(body)
    cells = request.cells
    data = cells[0].data  # a profile has one model and one data set
    device = torch_device(request.device)
    environment = read_environment(device)

    require_peft(cell.method for cell in cells)
    require_bitsandbytes(cell.quantization for cell in cells)
    require_mallopt(cell.malloc for cell in cells)
    emit(Progress(phase="reading the data"))
    _check_settings(cells, request)
    task = task_of(data)
    pools = load_pools(data)
    require_sizes(cells, pools)

    emit(Progress(phase="loading the model"))
    tokenizer, model, warnings = _model_that_fits(cells, pools, task)
    emit(Progress(phase="tokenising"))
    tokenised = _tokenise(cells, pools, tokenizer)

    emit(Progress(phase="counting FLOPs"))
    full, by_method = _count_all_flops(model, cells, task, tokenizer)

    emit(Progress(phase="measuring the matmul peak"))
    dtypes = {cell.product_dtype for cell in cells}
    return Preparation(
        environment=environment,
        labels=pools.labels,
        parameters=model.num_parameters(),
        train_pool=len(pools.train),
        eval_pool=len(pools.evaluation),
        eval_split=pools.eval_split,
        warnings=tuple(warnings),
        data=describe_pools(pools, cells),
        tokenised=tokenised,
        flops=full.coefficients,
        flops_absent=full.absent,
        flops_by_method=by_method,
        peak_matmul_flops={dtype: measure_matmul(device, dtype) for dtype in sorted(dtypes)},
        seconds=time.perf_counter() - began,
    ).model_dump(mode="json")


def _model_that_fits(
    cells: Sequence[Cell], pools: Pools, task: Task
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, list[RunWarning]]:
    """Return the tokenizer, the model with eager attention, and warnings about both.

    Raises WorkloadError or ProfileError if they do not fit each other, the data, the cells or the machine.
    """
    source = cells[0].model
    require_model_files(source)
    config = load_config(source, pools.labels, task)
    model_class(config, task)
    tokenizer = load_tokenizer(source)
    own_tokenizer = source.tokenizer == source.source
    _check_lengths(cells, length_limit(config, tokenizer, own_tokenizer=own_tokenizer))
    require_own_tokenizer(tokenizer, config, source)
    warnings = quantised_warnings(source) + padding_warnings(tokenizer, config)
    warnings += unknown_warnings(
        unknown_share(tokenizer, task.plain_texts(pools.train[:_JUDGED])), source
    )
    _check_attention(cells, config, task)
    dtype = _widest_dtype(cells)
    require_room(source, pools.labels, task, dtype)
    # Each attention implementation of the cells is tried; the last, eager, is used to count the FLOPs.
    for attention in (*sorted({cell.attn_implementation for cell in cells} - {"eager"}), "eager"):
        model = load_model(
            source,
            pools.labels,
            task,
            attn_implementation=attention,
            dtype=dtype,
            pad_token_id=tokenizer.pad_token_id,
        ).model
        if any(_is_flattened(cell) and cell.attn_implementation == attention for cell in cells):
            require_apart(model, source.source.reference)
    return tokenizer, model, warnings


def _is_flattened(cell: Cell) -> bool:
    return cell.packing == "padding-free"


def _widest_dtype(cells: Sequence[Cell]) -> WeightsDtype:
    """Return the type of the largest weights of the cells."""
    return max((cell.dtype for cell in cells), key=lambda dtype: DTYPES[dtype].itemsize)


def _count_all_flops(
    model: PreTrainedModel,
    cells: Sequence[Cell],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[StepFlops, dict[Method, StepFlops]]:
    """Return the FLOPs of full fine-tuning, and those of the other methods of the cells."""
    longest = max(cell.max_length for cell in cells)
    full = _count_flops(model, longest, task, tokenizer)
    others = {cell.method: cell.lora for cell in cells if cell.method != "full"}
    return full, {  # in this order, one model is enough: LoRA makes the head trainable again
        method: _count_flops(with_method(model, method, task, lora), longest, task, tokenizer)
        for method, lora in sorted(others.items())
    }


def _count_flops(
    model: PreTrainedModel | PeftModel,
    longest: int,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> StepFlops:
    """Return the FLOPs by length, or the reason that they are not known, which does not stop a run."""

    try:
        flops = fit_flops(model, longest, lambda length: _example(task, tokenizer, length))
    except Exception as error:  # an unusual model may raise anything for plain token ids
        traceback.print_exc()
        return StepFlops(absent=f"the FLOPs could not be counted: {type(error).__name__}: {error}")
    return StepFlops(coefficients=flops, absent=FLOPS_ABSENT if flops is None else None)


def _example(task: Task, tokenizer: PreTrainedTokenizerBase, length: int) -> dict[str, Any]:
    """Return an artificial example of a length that may be too short for the tokenizer's special tokens."""
    enough = max(length, _SPECIAL)
    of, longer = (task.example(tokenizer, "a " * n, n) for n in (enough, enough + 1))
    return {
        name: value[:length] if value != longer[name] and isinstance(value, list) else value
        for name, value in of.items()
    }


def _check_settings(cells: Sequence[Cell], request: PrepareRequest) -> None:
    """Raise ProfileError if a cell's settings contradict each other or have no meaning."""
    for cell in {cell.training: cell for cell in cells}.values():
        require_packages(cell.settings)
        refuse_cache(cell)
        require_optimizer(cell.settings)
        refuse_batched_scores(cell.settings)
        try:
            training_arguments(
                cell, seed=cell.seed, output=request.scratch, use_cpu=request.device == "cpu"
            )
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            raise ProfileError(
                f"transformers rejects these settings: {error}",
                where="training",
                got=", ".join(f"{k}={v!r}" for k, v in cell.settings.items()),
            ) from error
        best = str(cell.settings["metric_for_best_model"]).removeprefix("eval_")
        given = ("loss", *task_of(cell.data).scores)
        if cell.settings["load_best_model_at_end"] and best not in given:
            raise ProfileError(
                "no such metric",
                where="training.metric_for_best_model",
                got=best,
                expected=f"one of {', '.join(given)}, which evaluation computes",
                nearest=nearest_name(best, given),
            )


def _check_lengths(cells: Sequence[Cell], limit: int | None) -> None:
    """Raise WorkloadError if a cell's length exceeds the model's limit."""
    longest = max(cell.max_length for cell in cells)
    if limit is not None and longest > limit:
        raise WorkloadError(
            "longer than the model can read",
            where="grid.max_length",
            got=str(longest),
            expected=f"at most {limit}, the limit of {cells[0].model.source.reference}",
        )


def _check_attention(cells: Sequence[Cell], config: PreTrainedConfig, task: Task) -> None:
    """Raise ProfileError for an attention that the model lacks.

    The default, sdpa, stands for the best that the model has, so it is refused only beside another.
    """
    asked = sorted({cell.attn_implementation for cell in cells})
    for name in asked:
        if attention_for(config, task, name) != name and len(asked) > 1:
            raise ProfileError(
                "the model does not have this attention: its cells would be those of eager",
                where="grid.attn_implementation",
                got=name,
                expected="eager alone",
            )


def _tokenise(
    cells: Sequence[Cell], pools: Pools, tokenizer: PreTrainedTokenizerBase
) -> dict[str, TokenisedPools]:
    """Return the Arrow files of each (padding, length), with the examples of its largest cell."""
    data = cells[0].data
    rules = data.model_dump(
        mode="json", exclude={"source": {"reference", "location"}, "eval_size": True}
    )
    tokenised = {}
    for key, cell in {tokenised_key(cell): cell for cell in cells}.items():
        train_size = max(c.train_size for c in cells if tokenised_key(c) == key)
        files = {
            name: tokenise(
                pool,
                count,
                task=task_of(data),
                tokenizer=tokenizer,
                max_length=cell.max_length,
                padding=cell.padding,
                packing=cell.packing,
                evaluation=name == "evaluation",
                identity={"data": rules, "tokenizer": cell.model.tokenizer.revision, "pool": name},
            )
            for name, pool, count in (
                ("train", pools.train, train_size),
                ("evaluation", pools.evaluation, data.eval_size),
            )
        }
        tokenised[key] = TokenisedPools(
            train=str(files["train"]), evaluation=str(files["evaluation"])
        )
    return tokenised
