"""Files of format 1, as `ftbench baseline write` made them: every figure is read, and is of the same cell.

`format_1/memory.json` is the reference profile's, with fewer cells and parts; `format_1/smoke.json` has measured
runs, and cells that differ in training examples.
"""

import json
from pathlib import Path

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline_file import read_baseline, write_baseline
from ftbench.gating.compare import compare
from ftbench.gating.compare_runs import compare_measured
from ftbench.gating.measured_runs import kept_runs
from ftbench.gating.places import NamedSteps
from tests.unit.gating.made import shape

FOLDER = Path(__file__).parent / "format_1"
NAMES = ["memory", "smoke"]


def data_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def cell_name(cell):
    """Return the name that format 1 had for a cell."""
    size = "" if cell.train_size is None else f", documents {cell.train_size}"
    return f"length {cell.max_length}, batch {cell.per_device_train_batch_size}{size}"


def slope_name(slope):
    if slope.axis == "max_length":
        return f"bytes a token at batch {slope.fixed}, length {slope.low} to {slope.high}"
    return f"bytes a sample at length {slope.fixed}, batch {slope.low} to {slope.high}"


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_read(name):
    old, found = data_of(name), read_baseline(FOLDER / f"{name}.json")
    for key in ("profile", "versions", "architectures", "attention_kernel", "workload"):
        assert getattr(found, key) == old[key]
    for before, group in zip(old["groups"], found.groups, strict=True):
        cells = {
            cell_name(one.cell): one.model_dump(mode="json", exclude={"cell"}, exclude_none=True)
            for one in group.cells
        }
        assert cells == before["cells"]
        assert {slope_name(one): one.bytes_per_unit for one in group.slopes} == before["slopes"]
        sizes = {}
        for one in group.largest:
            sizes.setdefault(one.gpu, {})[f"length {one.max_length}"] = one.batch
        assert sizes == before["largest"]
        assert cell_name(group.reference) == before["reference"]
        assert {one.name: one.nbytes for one in group.parts} == before["parts"]
        assert group.moment.model_dump() == before["moment"]
        assert group.settings == before["settings"]


def test_measured_runs_are_read():
    old, found = data_of("smoke")["measured"], read_baseline(FOLDER / "smoke.json").measured
    assert (found.machine, found.workload) == (old["machine"], old["workload"])
    assert [one.cell for one in found.cells] == [shape(16, 8, 16), shape(16, 8, 32)]
    for one in found.cells:
        before = old["cells"][""][cell_name(one.cell)]
        assert {name: list(values) for name, values in one.figures.items()} == before["figures"]
        assert (one.settings, one.score) == ({}, "accuracy")
        assert {seed: s.value for seed, s in one.scores.items()} == before["accuracies"]
        assert {round(s.standard_error, 4) for s in one.scores.values()} == {0.1225}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_judged_as_the_same_file_in_the_present_format_is(name, tmp_path):
    old = read_baseline(FOLDER / f"{name}.json")
    write_baseline(old, tmp_path / "new.json")
    new = read_baseline(tmp_path / "new.json")
    assert new == old
    assert compare(old, new).exit_code == 0
    cell = new.groups[0].cells[0]
    more = cell.model_copy(update={"tensors_bytes": cell.tensors_bytes + 1})
    group = new.groups[0].model_copy(update={"cells": (more, *new.groups[0].cells[1:])})
    (change,) = compare(old, new.model_copy(update={"groups": (group, *new.groups[1:])})).failures
    assert (change.place.cell, change.after - change.before) == (cell.cell, 1)


def test_its_runs_are_judged():
    runs = kept_runs(read_baseline(FOLDER / "smoke.json").measured)
    result = compare_measured("smoke", runs, runs)
    assert (result.exit_code, len(result.judged)) == (0, 2)


def changed(tmp_path, change, name="smoke"):
    data, file = data_of(name), tmp_path / "x.json"
    change(data)
    file.write_text(json.dumps(data))
    return file


def test_steps_of_a_test_are_read(tmp_path):
    def as_steps(data):
        group = data["groups"][0]
        group |= {"cells": {"step": {"tensors_bytes": 7}}, "slopes": {}, "reference": "step"}
        del group["largest"], data["measured"]

    (group,) = read_baseline(changed(tmp_path, as_steps)).groups
    assert (group.reference, group.cells[0].cell) == (NamedSteps(name="step"),) * 2


def test_a_module_s_name_may_hold_the_separator(tmp_path):
    def add(data):
        data["groups"][0]["parts"] = {"gradients | a | b |  | float32": {"peak": 5}}

    (part,) = read_baseline(changed(tmp_path, add)).groups[0].parts
    assert (part.role, part.module, part.operator, part.dtype) == (
        "gradients",
        "a | b",
        "",
        "float32",
    )


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("attn_implementation eager, bf16 on", {"attn_implementation": "eager", "bf16": True}),
        ("learning_rate 1e-05", {"learning_rate": 1e-5}),
        ("num_train_epochs 2.0, seed 3", {"num_train_epochs": 2.0, "seed": 3}),
        ("malloc default, max_grad_norm default", {"malloc": "default", "max_grad_norm": None}),
        ("config.n_layers 2, lora.r 8", {"config.n_layers": 2, "lora.r": 8}),
        (
            'model revision sha256:3a, where [["a", "b"], ["c", "d"]]',
            {"model revision": "sha256:3a", "where": '[["a", "b"], ["c", "d"]]'},
        ),
    ],
)
def test_groups_of_runs_had_their_settings_in_words(tmp_path, words, settings):
    def rename(data):
        data["measured"]["cells"] = {words: data["measured"]["cells"][""]}

    found = read_baseline(changed(tmp_path, rename)).measured
    assert {json.dumps(one.settings) for one in found.cells} == {json.dumps(settings)}


def in_group(key, value):
    return lambda data: data["groups"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (in_group("cells", {"length 16": {"tensors_bytes": 1}}), "groups.0.cells ... 'length 16'"),
        (
            in_group("cells", {"length 16, batch 4": {}}),
            "groups.0.cells.length 16, batch 4.tensors",
        ),
        (in_group("cells", {"length 0, batch 4": {"tensors_bytes": 1}}), "max_length"),
        (in_group("slopes", {"bytes a sample at length 64": 1}), "groups.0.slopes ... 'bytes a"),
        (in_group("largest", {"t4": {"batch 64": 1}}), "groups.0.largest.t4 ... 'batch 64'"),
        (in_group("reference", "the largest"), "groups.0.reference ... 'the largest'"),
        (in_group("parts", {"a | b | c": {}}), "groups.0.parts ... 'a | b | c'"),
        (in_group("parts", {"a | b | c | d": {"x": 1}}), "groups.0.parts.a | b | c | d.x"),
        (
            lambda data: data["measured"]["cells"].update(fast=data["measured"]["cells"][""]),
            "measured.cells ... 'fast'",
        ),
        (
            lambda data: data["measured"]["cells"][""].update(
                first={"figures": {}, "accuracies": {}}
            ),
            "measured.cells. ... 'first'",
        ),
        (lambda data: data.pop("groups"), "groups: Field required"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, change, place):
    file = changed(tmp_path, change)
    with pytest.raises(BaselineError) as caught:
        read_baseline(file)
    assert caught.value.where == str(file)
    assert caught.value.what.startswith("not a baseline: ")
    assert all(words in caught.value.what for words in place.split(" ... "))
