"""Full fine-tuning, the head alone and LoRA: the same cell, for real, with what it reports."""

import os
import tempfile

import pytest
import torch
from safetensors.torch import load_file

from ftbench.prediction.trace import trace_trainer as trainer
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.two_step_pass import first_steps_of
from tests.integration.conftest import SMALL, ftbench, run
from tests.traced import traced_cell

pytestmark = pytest.mark.integration

METHODS = ("full", "head", "lora")
ONE_CELL = {"grid__max_length": "[16]", "grid__train_size": "[32]"}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """One cell of the smoke profile by each method; what head and LoRA leave is kept."""
    return run(
        "smoke",
        tmp_path_factory.mktemp("methods") / "run",
        grid__method='["full", "head", "lora"]',
        training__report_to='["tensorboard"]',
        run__keep_checkpoints='["method=head", "method=lora"]',
        **ONE_CELL,
    )


def by_method(run_):
    return {record.cell.method: record for record in run_.records}


def measured(run_, figure):
    return {method: figure(record.measurement) for method, record in by_method(run_).items()}


def test_all_of_them_finish(methods):
    assert methods.process.returncode == 0, methods.process.stderr
    assert {m: record.status for m, record in by_method(methods).items()} == dict.fromkeys(
        METHODS, "ok"
    )
    assert "method" in methods.cells.columns


def test_how_many_parameters_each_trains(methods):
    total = measured(methods, lambda one: one.parameters)
    trained = measured(methods, lambda one: one.trainable_parameters)
    assert trained["full"] == total["full"] == total["head"]
    head = 384 * 2 + 2
    layer = 8 * (4 * (384 + 384) + 2 * (384 + 1536))
    lora = 6 * layer + 8 * (384 + 384)  # and the pooler
    assert trained == {"full": total["full"], "head": head, "lora": lora + head}
    assert total["lora"] == total["full"] + lora + head  # the head as it was stays beside


def test_what_is_frozen_needs_no_memory_for_training(methods):
    peak = measured(methods, lambda one: one.memory.peak_cpu_tensors_bytes)
    weights = 4 * by_method(methods)["full"].measurement.parameters
    assert peak["full"] > 4 * weights  # weights, gradients, two moments
    assert weights < peak["head"] < peak["lora"] < 2 * weights


def test_flops_are_those_of_the_methods_own_step(methods):
    preparation = methods.directory.read_preparation()
    steps = {m: methods.steps(record) for m, record in by_method(methods).items()}
    for method, table in steps.items():
        c0, c1, c2 = preparation.step_flops(method).coefficients
        assert list(table["flops"]) == [8 * (c0 + 16 * c1 + 256 * c2)] * len(table)
    flops = {method: table["flops"].iloc[0] for method, table in steps.items()}
    assert flops["head"] < flops["full"] / 2 < flops["lora"] < flops["full"]


def test_the_body_is_what_it_was_where_only_the_head_is_trained(methods):
    record = by_method(methods)["head"]
    before = load_file(f"{record.cell.model.source.location}/model.safetensors")
    after = load_file(kept(methods, "head") / "model.safetensors")
    frozen = {name.removeprefix("bert."): w for name, w in after.items() if "bert." in name}
    assert set(frozen) <= set(before)
    assert all(torch.equal(before[name], weight) for name, weight in frozen.items())
    assert {name for name in after if "bert." not in name} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_lora_saves_its_matrices_and_the_head_alone(methods):
    saved = load_file(kept(methods, "lora") / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name for name in saved)
    # They are nothing before training, and the best epoch's were loaded at the end.
    assert any(weight.any() for name, weight in saved.items() if "lora_B" in name)
    assert not (kept(methods, "lora") / "model.safetensors").exists()
    assert len(list(kept(methods, "lora").glob("checkpoint-*/optimizer.pt"))) == 2


def kept(run_, method):
    return run_.directory.path / "checkpoints" / by_method(run_)[method].identity.name


def test_what_a_cell_reports_outlives_its_checkpoints(methods):
    path = methods.directory.path
    events = list(path.rglob("*tfevents*"))
    # One of each cell: neither preparing nor the two-step pass reports.
    folders = {path / "logs" / record.identity.name for record in methods.records}
    assert len(events) == len(folders)
    assert {file.parent for file in events} == folders
    for file in events:
        content = file.read_bytes()
        assert f'"run_name": "{file.parent.name}"'.encode() in content
        assert content.count(b"eval/accuracy") == 2 + 1  # epochs, and the closing evaluation
    assert not kept(methods, "full").exists()


def test_versions_of_what_only_some_cells_use(methods):
    found = measured(methods, lambda one: set(one.packages))
    reported = found["full"]
    assert reported & {"tensorboard", "tensorboardX"}
    assert found == {"full": reported, "head": reported, "lora": reported | {"peft"}}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model", ["bert", "distilbert"])
@pytest.mark.parametrize("method", METHODS)
def test_two_steps_change_what_is_trained_and_nothing_else(model, method, checkpointing):
    cell = traced_cell(
        model,
        batch=2,
        length=8,
        method=method,
        gradient_checkpointing=checkpointing,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
    )
    with tempfile.TemporaryDirectory() as output, trainer._states_of_its_own():
        made = make_trainer(
            first_steps_of(cell),
            ("0", "1"),
            trainer._pools(cell, trainer.Batches.of(cell), 2),
            seed=cell.seed,
            output=output,
            use_cpu=True,
            phases=PhaseBook([]),
            steps=StepBook(),
        )
        before = {
            n: (p.detach().clone(), p.requires_grad) for n, p in made.model.named_parameters()
        }
        made.train()
        for name, after in made.model.named_parameters():
            was, trained = before[name]
            assert torch.equal(was, after) != trained, name


def test_a_place_that_nothing_is_reported_to_is_refused_before_the_first_cell(tmp_path):
    done = small(tmp_path / "run", training__report_to='["comet_ml"]')
    assert done.process.returncode == 2
    assert "training.report_to" in done.process.stderr
    assert done.records == []


def test_lora_without_peft_is_refused_before_the_first_cell(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['peft'] = None\n")
    done = ftbench(
        *("run", "smoke", "--out", tmp_path / "run", "--set", "method=lora"),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "ftbench[peft]" in done.stderr
    assert list(tmp_path.rglob("*-r0.json")) == []


def small(out, **settings):
    fixed = {name.replace(".", "__"): value for name, value in SMALL.items()}
    return run("smoke", out, **(fixed | ONE_CELL | settings))
