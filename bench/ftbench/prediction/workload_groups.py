"""Groups of cells that one set of traces serves, and the devices that they are traced for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from ftbench.plan.cell import Cell
from ftbench.plan.settings import memory_view, without_defaults
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.shapes.fit import Shape
from ftbench.prediction.simulate.cards import Card
from ftbench.prediction.trace.flash_attention import FLASH_ATTENTION_2
from ftbench.prediction.trace.tracer import Target
from ftbench.records.prediction import PredictRequest


def with_least_data(cell: Cell, target: Target) -> Target | None:
    """Return the target whose data need the least memory, None if the memory of a cell does not depend on data.

    Attention that removes padding leaves the fewest tokens; products with weights of 8 bits have no outliers.
    """
    removes = cell.attn_implementation in FLASH_ATTENTION_2 and target.padding
    if not removes and cell.quantization != "int8":
        return None
    tokens = "fewest" if removes else target.tokens
    return dataclasses.replace(target, tokens=tokens, outlier_columns=0)


def workload_groups(cells: Sequence[Cell], sequence_lengths: SequenceLengths) -> list[list[Cell]]:
    """Return cells by workload; cells of a workload differ only in shape and in settings without effect on memory.

    If no example is shorter than a cell's length, its batches have neither padding nor a mask.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        identity = (workload_of_any_number(cell, sequence_lengths), cell.num_processes)
        groups.setdefault(json.dumps(identity), []).append(cell)
    return list(groups.values())


def workload_of_any_number(cell: Cell, sequence_lengths: SequenceLengths) -> str:
    """Return a name that cells have in common whose workloads differ at most in the number of processes.

    One process is a workload apart: it has no strategy.
    """
    identity = (
        cell.model.model_dump(mode="json"),
        cell.data.eval_size,
        cell.padding,
        cell.packing,
        cell.attn_implementation,
        cell.method,
        cell.lora.model_dump() if cell.lora else None,
        cell.dtype,
        cell.quantization,
        cell.parallel.model_dump() if cell.parallel else None,
        has_padding(cell, sequence_lengths),
        memory_view(without_defaults(cell.settings)),
    )
    return json.dumps(identity, sort_keys=True)


def has_padding(cell: Cell, sequence_lengths: SequenceLengths) -> bool:
    """Return whether batches can have padding, as all have that are padded to their longest example."""
    return cell.padding == "longest" or sequence_lengths.padded(cell.max_length)


def targets_of(
    cell: Cell, cards: Sequence[Card], request: PredictRequest
) -> list[tuple[Target, list[Card]]]:
    """Return the devices to trace: one for all cards that choose the same attention kernels.

    Liger-Kernel makes a buffer for the multiprocessors of a card; it is traced for the most that they have.
    In float32, all cards choose the same.
    """
    if request.on_cpu:
        return [(Target(device="cpu"), [])]
    groups: dict[tuple[int, int], list[Card]] = {}
    half = cell.product_dtype != "float32"
    for card in cards:
        capability = card.runtime.compute_capability if half else (8, 0)
        groups.setdefault(_generation(capability), []).append(card)
    groups = groups or {(8, 0): []}
    return [
        (
            Target(
                compute_capability=capability,
                attention=request.attention,
                multiprocessors=_multiprocessors(cell, its),
                torch_version=request.assume_torch,
            ),
            its,
        )
        for capability, its in groups.items()
    ]


def _multiprocessors(cell: Cell, cards: Sequence[Card]) -> int:
    """Return the most multiprocessors of cards, if a cell's memory depends on them."""
    usual = Target().multiprocessors
    if not cell.settings.get("use_liger_kernel"):
        return usual
    return max((card.runtime.multiprocessors for card in cards), default=usual)


# Compute capabilities at which `choose_attention` changes: cuDNN first on 9.x and 10.x, wide heads on 12.x
# and 8.6 to 8.9, bfloat16 and flash from 8.0 on, tensor cores from 7.0 on.
_GENERATIONS = ((12, 0), (9, 0), (8, 6), (8, 0), (7, 0), (0, 0))


def _generation(capability: tuple[int, int]) -> tuple[int, int]:
    """Return the lowest capability that chooses the same attention kernels."""
    return next(first for first in _GENERATIONS if capability >= first)


def shape_of(cell: Cell, sequence_lengths: SequenceLengths) -> Shape:
    """Return the batch and length of a cell's largest step."""
    batch = min(cell.per_device_train_batch_size, cell.train_size)
    varies = cell.batches_vary and cell.packing != "concatenate"
    longest = sequence_lengths.longest(cell.max_length, cell.train_size)
    return batch, longest if varies else cell.max_length
