"""Baselines: which cells are one, what is written, and what is refused when read."""

import json

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gate.baseline import Baseline, baseline_of, baseline_of_steps, references
from ftbench.gate.baseline_file import (
    SCHEMA_VERSION,
    baseline_path,
    baseline_text,
    read_baseline,
    write_baseline,
)
from ftbench.plan.gpus import find_gpu
from ftbench.plan.groups import common_facets, groups_of
from ftbench.plan.settings import differing
from ftbench.records.prediction import LargestBatch
from tests.factories import breakdown, figure, grid, part, predictions, profile

AXES = {
    "max_length": [16, 32],
    "per_device_train_batch_size": [4, 8],
    "train_size": [64],
}


def made(*gpus, peaks=None, blocks=(AXES,), **changes):
    """Return the baseline of a grid in which a cell's peak is length x batch KiB."""
    cells = grid(grid=list(blocks))
    found = predictions(cells, *gpus, parts=True)
    sized = tuple(
        prediction.model_copy(
            update={
                "tensors": figure(1).model_copy(
                    update={"value_bytes": (peaks or default_peak)(cell)}
                )
            }
        )
        for cell, prediction in zip(cells.cells, found.cells, strict=True)
    )
    found = found.model_copy(update={"cells": sized} | changes)
    return baseline_of(profile(), cells, found, [find_gpu(name) for name in gpus])


def default_peak(cell):
    return cell.max_length * cell.per_device_train_batch_size * 1024


def test_cells_are_named_by_length_and_batch():
    ((settings, cells),) = groups_of(grid(grid=[AXES]).cells)
    assert settings == {}
    assert list(cells) == [
        "length 16, batch 4",
        "length 16, batch 8",
        "length 32, batch 4",
        "length 32, batch 8",
    ]


def test_cells_of_which_memory_is_the_same_are_one():
    cells = grid(grid=[AXES | {"seed": [1, 2], "learning_rate": [1e-5, 1e-3]}]).cells
    ((_, named),) = groups_of(cells)
    assert len(cells) == 16
    assert len(named) == 4


def test_what_the_c_library_does_moves_no_predicted_byte():
    cells = grid(grid=[AXES | {"malloc": ["default", "keep"]}]).cells
    ((_, named),) = groups_of(cells)
    assert len(named) == 4
    assert made().workload == made(blocks=[AXES | {"malloc": ["keep"]}]).workload


def test_runs_of_before_had_the_default():
    """Runs are told apart by it, but one that says nothing of it is one that left it alone."""
    usual, kept = (grid(grid=[AXES | {"malloc": [m]}]).cells for m in ("default", "keep"))
    before = {name: value for name, value in common_facets(usual, dict).items() if name != "malloc"}
    assert differing(before, common_facets(usual, dict)) == []
    assert differing(before, common_facets(kept, dict)) == ["malloc"]


def test_what_moves_memory_makes_groups():
    cells = grid(grid=[AXES | {"attn_implementation": ["sdpa", "eager"], "bf16": [False, True]}])
    settings = [settings for settings, _ in groups_of(cells.cells)]
    assert len(settings) == 4
    assert {"attn_implementation": "eager", "bf16": True} in settings


def test_documents_tell_cells_apart_where_they_differ():
    ((_, cells),) = groups_of(grid(grid=[AXES | {"train_size": [2, 64]}]).cells)
    assert "length 16, batch 4, documents 2" in cells


def test_the_largest_cell_stands_for_its_group():
    cells = grid(grid=[AXES])
    (name,) = references(cells)
    (largest,) = (cell for cell in cells.cells if cell.cell_id == name)
    assert (largest.max_length, largest.per_device_train_batch_size) == (32, 8)


def test_slopes_are_bytes_a_sample_and_a_token():
    (group,) = made().groups
    assert group.slopes["bytes a sample at length 32, batch 4 to 8"] == 32 * 1024
    assert group.slopes["bytes a token at batch 8, length 16 to 32"] == 1024


def test_cards_have_bytes_and_what_fits():
    (group,) = made(
        "t4",
        largest=(
            LargestBatch(
                cell_id=references(grid(grid=[AXES]))[0],
                gpu="t4",
                max_length=32,
                certain=100,
                possible=101,
                reserved=None,
            ),
        ),
    ).groups
    card = group.cells["length 16, batch 4"].cards["t4"]
    assert card.requested_bytes > 0
    assert card.verdict == "fits"
    assert group.largest == {"t4": {"length 32": 100}}


def test_a_largest_batch_is_of_all_cells_that_it_is_the_same_for():
    """Cells of other epochs need the same memory: they are one to a prediction and to a baseline."""
    blocks = [AXES | {"num_train_epochs": [1, 2]}]
    cells = grid(grid=blocks).cells
    long = tuple(cell.cell_id for cell in cells if cell.max_length == 32)
    found = LargestBatch(
        cell_id=long[0],
        cell_ids=long,
        gpu="t4",
        max_length=32,
        certain=100,
        possible=101,
        reserved=None,
    )
    groups = made("t4", blocks=blocks, largest=(found,)).groups
    assert [group.largest for group in groups] == [{"t4": {"length 32": 100}}]


def test_a_baseline_says_what_may_move_bytes():
    found = made("t4")
    assert found.versions == {"torch": "2.13.0"}
    assert found.architectures == {"t4": "7.5"}
    assert found.workload["padding"] == "max_length"
    assert "learning_rate" not in found.workload


def test_fused_attention_is_named():
    fused = part("aten::_scaled_dot_product_efficient_attention")
    found = made()
    group = found.groups[0].model_copy(update={"parts": (part(), fused)})
    assert group.attention == ("aten::_scaled_dot_product_efficient_attention",)


# The file


def test_what_is_written_is_read_again(tmp_path):
    found = made("t4", blocks=[AXES | {"attn_implementation": ["sdpa", "eager"]}])
    write_baseline(found, tmp_path / "a" / "quick.json")
    assert read_baseline(tmp_path / "a" / "quick.json") == found
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["quick.json"]


def test_lines_of_code_are_not_written(tmp_path):
    found = made()
    sourced = breakdown(part(source="net.py:7")).parts
    group = found.groups[0].model_copy(update={"parts": sourced})
    assert "net.py" not in baseline_text(found.model_copy(update={"groups": (group,)}))


def test_a_cell_and_a_part_are_a_line_each():
    text = baseline_text(made("t4"))
    lines = text.splitlines()
    assert sum('"length 16, batch 4": {"tensors_bytes": 65536' in line for line in lines) == 1
    assert sum("activations | layer.* | aten::mm | float32" in line for line in lines) == 1
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION


def test_one_figure_more_is_one_line_of_a_diff():
    def other(cell):
        return default_peak(cell) + (cell.max_length == 16 and cell.examples_per_step == 4)

    before, after = (
        baseline_text(made(peaks=peaks)).splitlines() for peaks in (default_peak, other)
    )
    differing = [line for line in after if line not in before]
    cells = [line for line in differing if "batch 4" in line and "tensors_bytes" in line]
    assert len(cells) == 1
    assert len(before) == len(after)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("[]", "not a baseline that this version"),
        ('{"schema_version": 2}', "schema_version 2"),
        ('{"schema_version": 1}', "not a baseline"),
        ('{"schema_version": 1, "groups": [{"parts": {"a": {}}}]}', "not a baseline"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, said):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match=said):
        read_baseline(file)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(BaselineError) as error:
        read_baseline(tmp_path / "x.json")
    assert "ftbench baseline write" in str(error.value)


def test_where_it_is_kept():
    assert baseline_path("quick").as_posix() == "reports/baselines/quick.json"


def test_cells_that_were_refused_are_left_out():
    cells = grid(grid=[AXES])
    found = predictions(cells, parts=True)
    some = found.model_copy(update={"cells": found.cells[1:]})
    (group,) = baseline_of(profile(), cells, some).groups
    assert len(group.cells) == 3
    none = found.model_copy(update={"cells": found.cells[:1]})
    assert baseline_of(profile(), cells, none).groups == ()


def test_a_part_of_the_cells_keeps_their_names_and_lengths():
    blocks = [AXES | {"attn_implementation": ["sdpa", "eager"]}]
    cells = grid(grid=blocks)
    chosen = cells.only({"attn_implementation": "eager", "max_length": 16}).cells
    (group,) = made(blocks=blocks).only(cells, chosen).groups
    assert group.name == "attn_implementation eager"
    assert list(group.cells) == ["length 16, batch 4", "length 16, batch 8"]
    found = predictions(cells, parts=True)
    (again,) = baseline_of(profile(), cells, found, chosen=chosen).groups
    assert list(again.cells) == list(group.cells)
    assert references(cells, chosen) == (chosen[1].cell_id,)


def test_largest_batches_go_with_the_last_cell_of_their_length():
    group = (
        made().groups[0].model_copy(update={"largest": {"t4": {"length 16": 9, "length 32": 4}}})
    )
    left = group.without({"length 32, batch 4", "length 32, batch 8"})
    assert left.largest == {"t4": {"length 16": 9}}


def test_a_kernel_that_is_none_is_no_baseline(tmp_path):
    file = tmp_path / "x.json"
    write_baseline(made(), file)
    file.write_text(
        file.read_text().replace('"attention_kernel": null', '"attention_kernel": "foo"')
    )
    with pytest.raises(BaselineError, match="not a baseline"):
        read_baseline(file)


def test_a_group_is_found_by_its_settings():
    found = made(blocks=[AXES | {"attn_implementation": ["sdpa", "eager"]}])
    assert isinstance(found, Baseline)
    assert found.group({"attn_implementation": "eager"}).name == "attn_implementation eager"
    assert found.group({}) is None


def test_steps_that_are_no_cell_are_a_group_of_one():
    parts = breakdown(part(), phase="forward")
    found = baseline_of_steps("mine", 123, parts, [("torch", "2.13.0+cpu")])
    (group,) = found.groups
    assert (found.profile, found.versions, found.workload) == ("mine", {"torch": "2.13.0"}, {})
    assert (group.name, group.reference, group.slopes) == ("", "step", {})
    assert group.cells["step"].tensors_bytes == 123
    assert group.breakdown == parts


def test_cards_are_in_the_order_of_their_names_whatever_was_asked_for():
    assert list(made("t4", "a100-40gb").architectures) == ["a100-40gb", "t4"]
    assert made("a100-40gb").architectures == {"a100-40gb": "8.0"}


def test_the_kernel_of_attention_that_was_asked_for_is_kept():
    cells = grid(grid=[AXES])
    found = predictions(cells, parts=True)
    assert baseline_of(profile(), cells, found, attention_kernel="math").attention_kernel == "math"
    assert baseline_of(profile(), cells, found).attention_kernel is None


def test_parts_are_written_in_the_order_of_their_names():
    group = made().groups[0]
    parts = breakdown(part("aten::b"), part("aten::a"), part("aten::c")).parts
    found = made().model_copy(update={"groups": (group.model_copy(update={"parts": parts}),)})
    (written,) = json.loads(baseline_text(found))["groups"]
    assert [name.split(" | ")[2] for name in written["parts"]] == ["aten::a", "aten::b", "aten::c"]
    assert "cards" not in written["cells"]["length 16, batch 4"]
    assert "measured" not in json.loads(baseline_text(found))


def test_each_level_is_indented_by_one_space():
    lines = baseline_text(made()).splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("{", ' "schema_version": 1,', "}")
    place = next(n for n, line in enumerate(lines) if line.startswith(' "groups"'))
    assert lines[place + 1].startswith("  {")
    assert lines[place + 2].startswith('   "')
    assert sum(line.startswith('    "length 16, batch 4"') for line in lines) == 1


@pytest.mark.parametrize("text", ["", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_a_file_that_is_refused_is_named(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BaselineError) as caught:
        read_baseline(file)
    assert caught.value.where == str(file)


def test_a_file_that_is_missing_too_large_or_cannot_be_written_is_named(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    with pytest.raises(BaselineError) as missing:
        read_baseline(file)
    write_baseline(made(), file)
    size = file.stat().st_size
    monkeypatch.setattr("ftbench.gate.baseline_file.MAX_BYTES", size)
    assert read_baseline(file) == made()
    monkeypatch.setattr("ftbench.gate.baseline_file.MAX_BYTES", size - 1)
    with pytest.raises(BaselineError) as large:
        read_baseline(file)
    with pytest.raises(BaselineError) as unwritable:
        write_baseline(made(), file / "below")
    assert missing.value.where == large.value.where == str(file)
    assert unwritable.value.where == str(file / "below")
