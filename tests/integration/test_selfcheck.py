"""`ftbench selfcheck` from end to end on a fake card that trains, with the real binding of NVML on a stub."""

import json
import subprocess
import sys
import time

import pytest

from ftbench.records.selfcheck import Selfcheck
from ftbench.selfcheck.rows import CELLS, ROWS
from ftbench.worker.selfcheck import ranks
from tests.fake_cuda.environment import rehearsal

pytestmark = pytest.mark.integration

CELL = "cell-own-module"  # the smallest one; it needs torch alone
BUDGET_S = 480


def selfcheck(folder, *rows, **variables):
    """Run the command in a rehearsal, and return its process and its page."""
    named = [text for row in rows for text in ("--only", row)]
    done = subprocess.run(
        [sys.executable, "-m", "ftbench", "selfcheck", "--out", str(folder / "out"), *named],
        env=rehearsal(folder, **variables),
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return done, page_in(folder)


def page_in(folder):
    file = folder / "out/selfcheck.json"
    return Selfcheck.model_validate_json(file.read_bytes()) if file.is_file() else None


def answers(page):
    return {row.name: row.answer for row in page.rows}


def figures(answer):
    return {one.name: one for one in answer.figures}


def test_cells_are_as_predicted_to_the_byte(tmp_path):
    done, page = selfcheck(tmp_path, CELL, "cell-padding")
    assert done.returncode == 0, done.stdout + done.stderr
    for answer in answers(page).values():
        assert answer.status == "ok", answer.reason
        found = figures(answer)
        for name in ("requested", "allocated", "reserved"):
            assert found[name].measured == found[name].predicted.value_bytes > 1 << 20
        assert found["process"].agrees
        assert found["as predicted"].measured == found["allocations"].measured > 100
    assert (tmp_path / "out/selfcheck.md").read_text().count("| cell-") >= 2


def test_an_allocation_that_is_512_bytes_larger_fails_its_row_and_is_named(tmp_path):
    logits = 8 * 2 * 4  # of 8 texts and two classes, in float32
    done, page = selfcheck(tmp_path, CELL, FTBENCH_REHEARSAL_FAULT=f"{logits}+512")
    assert done.returncode == 1
    (row,) = page.failed
    assert "requested" in row.answer.reason
    assert f"{logits + 512:,} B, predicted {logits} B" in row.answer.reason
    assert "programs.py:" in row.answer.reason
    assert all((tmp_path / "out" / name).is_file() for name in row.answer.send)
    assert f"{CELL}/snapshot.pickle" in row.answer.send
    assert f"{CELL}/snapshot.pickle" in (tmp_path / "out/selfcheck.md").read_text()


def test_without_packages_of_the_trainer_the_cells_run_and_the_rest_is_named(tmp_path):
    lacking = ("datasets", "evaluate", "accelerate", "pandas", "scipy", "pyarrow")
    missing = {"FTBENCH_REHEARSAL_MISSING": ",".join(lacking)}
    done, page = selfcheck(tmp_path, "cell-fp32-sdpa", "ledger", "ddp", **missing)
    assert done.returncode == 0, done.stdout + done.stderr
    found = answers(page)
    assert {name: one.status for name, one in found.items()} == {
        "cell-fp32-sdpa": "ok",
        "ledger": "left out",
        "ddp": "left out",
    }
    assert all(name in found["ledger"].reason for name in ("datasets", "evaluate", "accelerate"))
    said = done.stdout.splitlines()
    first_row = next(n for n, line in enumerate(said) if line.startswith("ok"))
    left_out = next(n for n, line in enumerate(said) if line.startswith("left out: ledger"))
    assert left_out < first_row


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_together(tmp_path, strategy):
    """On CPUs: what a machine with two cards runs, but for the meters."""
    body = {
        "strategy": strategy,
        "device": "cpu",
        "uuids": [],
        "folder": str(tmp_path),
        "steps": 3,
    }
    first, second = ranks.main(body, lambda _: None)["ranks"]
    assert first["loss"] == second["loss"] < 0.7


def test_without_a_card_it_refuses(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ftbench", "selfcheck", "--out", str(tmp_path / "out")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": rehearsal(tmp_path)["PYTHONPATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_whole_check_ends_in_eight_minutes(tmp_path, capsys):
    # The tests of the repository are not part of it: they are what `nox -s gpu` runs on a real card.
    names = [row.name for row in ROWS if row.kind != "tests"]
    began = time.monotonic()
    done, page = selfcheck(tmp_path, *names)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\nthe self-check of the fake card: {seconds:.0f} s")
        print(json.dumps({row.name: round(row.seconds, 1) for row in page.rows}))
    assert done.returncode == 0, done.stdout + done.stderr
    states = {name: answer.status for name, answer in answers(page).items()}
    assert [name for name, state in states.items() if state != "ok"] == ["ddp", "fsdp2"]
    assert len(CELLS) == 12
    assert page.complete
    assert page.seconds <= BUDGET_S
