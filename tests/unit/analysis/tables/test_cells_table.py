import pandas as pd
import pytest

from ftbench.analysis.tables.cells_table import (
    OF_RECORD,
    PREDICTED,
    cells_table,
    headline_memory,
    varying_axes,
)
from ftbench.plan.training_arguments import training_fields
from ftbench.records.figures import BY_NAME
from ftbench.records.record import Failure
from tests.factories import cell, measurement, record

# Promised to every reader of cells.csv.
COLUMNS = [
    "cell_id",
    "status",
    "max_length",
    "per_device_train_batch_size",
    "train_size",
    "seed",
    "eval_accuracy",
    "eval_pearson",
    "eval_loss",
    "total_s",
    "train_s",
    "step_median_s",
    "samples_per_s",
    "tokens_per_s",
    "mfu",
    "peak_rss_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_process_bytes",
    "predicted_allocated_bytes",
    "predicted_reserved_bytes",
    "warnings",
]


def test_the_promised_columns_come_first():
    assert list(cells_table([record()]).columns)[: len(COLUMNS)] == COLUMNS


def test_no_figure_has_the_name_of_a_setting():
    assert not {*BY_NAME, *PREDICTED, *OF_RECORD} & training_fields().keys()


def test_an_axis_of_warm_up_is_a_column_of_its_own():
    table = cells_table([record(cell(warmup_steps=steps)) for steps in (0, 10)])
    assert list(table["warmup_steps"]) == [0, 10]
    assert list(table["step_warmup_steps"]) == [2, 2]


def test_figures_are_those_of_the_record():
    row = cells_table([record()]).iloc[0]
    assert row["eval_accuracy"] == 0.75
    assert row["step_median_s"] == 0.5
    assert row["samples_per_s"] == 16.0
    assert row["peak_rss_bytes"] == 2**30
    assert pd.isna(row["peak_allocated_bytes"])
    assert row["load_s"] == 1.0


def test_the_kernels_part_is_that_of_training():
    def row(**use):
        measured = measurement()
        trained = measured.phases["train"].model_copy(update=use)
        changed = measured.with_rank(phases=measured.phases | {"train": trained})
        return cells_table([record(measurement=changed)]).iloc[0]

    found = row(cpu_s=8.0, kernel_s=2.0, page_faults=900, steps=3)
    assert (found["kernel_share"], found["page_faults_per_step"]) == (0.25, 300.0)
    for absent in (
        {},
        {"cpu_s": 0.0, "kernel_s": 0.0, "page_faults": 0},
    ):  # an earlier record; no time
        found = row(**absent)
        assert pd.isna(found["kernel_share"])
        assert pd.isna(found["page_faults_per_step"])


def test_outside_is_what_training_evaluating_and_saving_leave():
    # 10.5 s of wall time, less 1 + 5 s training, 2 s evaluation and 1 s saving.
    assert cells_table([record()]).iloc[0]["outside_s"] == pytest.approx(1.5)


def test_rows_are_in_the_order_of_the_axes():
    records = [record(cell(max_length=n)) for n in (32, 8, 16)]
    assert list(cells_table(records)["max_length"]) == [8, 16, 32]


def test_a_failed_cell_is_a_row_without_figures():
    failed = record(status="oom", measurement=None, failure=Failure(message="out of memory"))
    row = cells_table([failed]).iloc[0]
    assert (row["status"], row["failure"]) == ("oom", "out of memory")
    assert pd.isna(row["total_s"])


def test_what_varies_becomes_a_column():
    records = [record(cell(weight_decay=0.1)), record(cell(weight_decay=0.2))]
    assert varying_axes(records)[-1] == "weight_decay"
    assert list(cells_table(records)["weight_decay"]) == [0.1, 0.2]
    assert "weight_decay" not in varying_axes(records[:1])


def test_replicates_do_not_make_the_seed_an_axis():
    assert "seed" not in varying_axes([record(), record(replicate=1)])


def test_the_headline_is_allocated_memory_where_there_is_a_card():
    assert headline_memory(cells_table([record()])) == "peak_rss_bytes"
    on_card = measurement(memory={"peak_rss_bytes": 1, "peak_allocated_bytes": 2})
    assert headline_memory(cells_table([record(measurement=on_card)])) == "peak_allocated_bytes"


def test_cells_that_differ_in_anything_are_no_replicates():
    from ftbench.plan.grid import expand
    from tests.factories import data_source, model_source, profile

    deeper = model_source(config=(("num_hidden_layers", 2),))
    cells = [expand(profile(), m, data_source()).cells[0] for m in (model_source(), deeper)]
    table = cells_table([record(one) for one in cells])
    assert set(table["config.num_hidden_layers"]) == {"default", "2"}


def test_a_setting_that_only_some_cells_name():
    records = [record(), record(cell(gradient_accumulation_steps=2))]
    assert list(cells_table(records)["gradient_accumulation_steps"]) == [1, 2]


def test_settings_that_are_tables():
    records = [record(cell(lr_scheduler_kwargs={"a": n})) for n in (1, 2)]
    assert list(cells_table(records)["lr_scheduler_kwargs"]) == ['{"a": 1}', '{"a": 2}']
