"""`ftbench init` from end to end: what it writes is planned, and run, as it stands."""

import csv
import json
import os
import pty
import random
import select
import subprocess
import sys
import time

import pytest

from ftbench.plan.profile_file import load_profile
from ftbench.records.run_directory import RunDirectory
from tests.small_model import small_encoder

pytestmark = pytest.mark.integration

CLASSES = ("bad", "fair", "good", "great", "poor")
WORDS = [f"word{n}" for n in range(200)]


def ftbench(folder, *arguments):
    command = [sys.executable, "-m", "ftbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 600 reviews of five classes, 20 of them twice, and a small model."""
    made = tmp_path_factory.mktemp("own")
    drawn = random.Random(0)
    rows = []
    for n in range(580):
        words = drawn.choices(WORDS, k=drawn.randint(3, 90))
        rows.append((n, CLASSES[n % 5], " ".join([CLASSES[n % 5], *words])))
    rows += [(580 + n, *row[1:]) for n, row in enumerate(rows[:20])]
    with (made / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "stars", "review"))
        writer.writerows(rows)
    small_encoder(made / "model", (*CLASSES, *WORDS))
    return made


@pytest.fixture(scope="module")
def written(folder):
    return ftbench(folder, "init", "reviews.csv", "--model", "model", "--yes", "--minutes", 2)


def test_the_columns_and_their_values_are_found(folder, written):
    assert written.returncode == 0, written.stderr
    assert written.stderr == ""
    made = load_profile(str(folder / "reviews.toml"))
    workload = made.workload
    assert (workload.text_column, workload.label_column) == ("review", "stars")
    assert workload.drop_duplicates  # 20 texts are there twice
    assert {n for block in made.grid for n in block.max_length} <= {32, 64, 128}
    for name in CLASSES:
        assert f'"{name}" 20%' in (folder / "reviews.toml").read_text()


def test_what_is_written_is_planned_as_it_stands(folder, written):
    done = ftbench(folder, "plan", "reviews.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    data = json.loads(done.stdout)
    assert data["cells"]
    assert all(cell["predicted"]["value_bytes"] > 0 for cell in data["cells"])


@pytest.mark.long
def test_what_is_written_is_run_as_it_stands_in_its_time(folder, written):
    done = ftbench(folder, "run", "reviews.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    records, damaged = RunDirectory.open(folder / "results/reviews").survey()
    assert {record.status for record in records} == {"ok"}
    assert not damaged
    assert records[0].measurement.scores


def test_a_terminal_asks_for_what_two_columns_fit(folder, tmp_path):
    """A label that is unclear is asked for, until the answer is a column; then all columns are confirmed."""
    rows = (folder / "reviews.csv").read_text().splitlines()
    two = [f"{rows[0]},topic", *(f"{row},{'ab'[n % 2]}" for n, row in enumerate(rows[1:]))]
    (tmp_path / "two.csv").write_text("\n".join(two).replace("stars", "sentiment"))
    answers = ["nonsense", "topic", "", ""]
    model = str(folder / "model")
    code, shown = on_terminal(tmp_path, answers, "init", "two.csv", "--model", model)
    assert code == 0, shown
    made = load_profile(str(tmp_path / "two.toml")).workload
    assert (made.text_column, made.label_column) == ("review", "topic")


def on_terminal(cwd, answers, *arguments):
    """Run the command on a pseudo-terminal, answer each question, and return the exit code and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execv(sys.executable, [sys.executable, "-m", "ftbench", *arguments])
    shown, deadline, waiting = "", time.monotonic() + 300, list(answers)
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        if not ready:
            continue
        try:
            data = os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the program has ended
            break
        shown += data
        if waiting and shown.rstrip("\r\n").endswith((": ", "]: ")):
            os.write(terminal, f"{waiting.pop(0)}\n".encode())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
