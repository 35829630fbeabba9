"""What the tests of the gate make: shapes, places and baselines of a small grid."""

from ftbench.gating.places import Place
from ftbench.gating.predicted import baseline_of, select
from ftbench.plan.gpus import find_gpu
from ftbench.plan.groups import CellShape
from tests.factories import figure, grid, predictions

AXES = {
    "max_length": [16, 32],
    "per_device_train_batch_size": [4, 8],
    "train_size": [64],
}


def shape(length=16, batch=4, train_size=None):
    return CellShape(max_length=length, per_device_train_batch_size=batch, train_size=train_size)


def place(length=16, batch=4, **settings):
    return Place(settings, shape(length, batch))


def default_peak(cell):
    return cell.max_length * cell.per_device_train_batch_size * 1024


def baseline_made(*gpus, peaks=default_peak, blocks=(AXES,), kernel=None, **changes):
    """Return the baseline of a grid in which a cell's peak is length x batch KiB."""
    cells = grid(grid=list(blocks))
    found = predictions(cells, *gpus, parts=True)
    sized = tuple(
        prediction.model_copy(
            update={"tensors": figure(1).model_copy(update={"value_bytes": peaks(cell)})}
        )
        for cell, prediction in zip(cells.cells, found.cells, strict=True)
    )
    found = found.model_copy(update={"cells": sized} | changes)
    cards = [find_gpu(name) for name in gpus]
    return baseline_of("quick", select(cells), found, cards, attention_kernel=kernel)
