"""The tutorial, timed: `python -m tests.tutorial` runs the commands of docs/tutorial.md in a fresh environment.

They run as they stand, in an empty folder with a CSV file and a model that are made here. Only the package comes
from this checkout, with the versions of the constraints file. The time and the exit code of each are printed.
"""

import argparse
import csv
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from ftbench.plan.profile import Workload
from ftbench.plan.sources import resolve_model
from tests.documents import ROOT, blocks

PAGE = ROOT / "docs/tutorial.md"
MOST_COMMANDS, MOST_S = 6, 600.0
INSTALLED = "ftbench"  # what the first command installs, by its name on an index
ROWS, NOISE = 600, 0.1

# The class of a ticket is told by one of its sentences; the others are of any ticket.
TELLING = {
    "billing": ("I was charged twice.", "The invoice is wrong.", "Please change my card."),
    "delivery": ("The parcel is late.", "It went to another address.", "Where is my order?"),
    "returns": ("I want to send it back.", "When is my refund paid?", "It does not fit me."),
    "account": ("I cannot log in.", "Please delete my data.", "My password is not accepted."),
    "praise": ("Thank you, well done!", "Your team was wonderful.", "I will order again."),
}
COMMON = (
    "Hello there.",
    "I wrote to you last week.",
    "My number is below.",
    "Please answer soon.",
    "I ordered on a Monday.",
    "Kind regards.",
    "This is my second message about it.",
)


def commands() -> list[str]:
    """Return the commands of the tutorial's shell blocks, one per line."""
    lines = [line for _, text in blocks(PAGE, "sh") for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def write_tickets(path: Path) -> None:
    """Write ROWS tickets; the class of a share NOISE of them is drawn anew, as people label them."""
    drawn, classes = random.Random(0), list(TELLING)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("number", "message", "topic"))
        for n in range(ROWS):
            told = labelled = classes[n % len(classes)]
            if drawn.random() < NOISE:
                labelled = drawn.choice(classes)
            sentences = [*drawn.choices(COMMON, k=drawn.randint(1, 9)), drawn.choice(TELLING[told])]
            drawn.shuffle(sentences)
            writer.writerow((n, " ".join(sentences), labelled))


def write_model(folder: Path) -> None:
    """Write a small encoder that anybody may have in a folder: all-MiniLM-L6-v2."""
    workload = Workload(model="offline:minilm-l6", dataset="offline:imdb", eval_size=1)
    shutil.copytree(resolve_model(workload).source.location, folder)


def main() -> None:
    """Run the tutorial; end with 1 if a command fails, or it takes more commands or time than it promises."""
    parser = argparse.ArgumentParser("python -m tests.tutorial", description=__doc__)
    parser.add_argument("--package", default=str(ROOT), help="what pip installs  [this checkout]")
    parser.add_argument("--keep", type=Path, help="a folder to run in, which is kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (asked.keep or Path(made)).resolve()
        failures = run_in(folder, asked.package)
    sys.exit("\n".join(failures) or 0)


def run_in(folder: Path, package: str) -> list[str]:
    """Run the commands in a folder, print their times, and return what does not hold."""
    work, environment = folder / "work", folder / "environment"
    work.mkdir(parents=True)
    write_tickets(work / "tickets.csv")
    write_model(work / "my-model")
    venv.create(environment, with_pip=True, clear=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "FTBENCH_CACHE": str(folder / "cache"),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "COLUMNS": "100",
    }
    found, began, times = commands(), time.perf_counter(), []
    for line in found:
        words = [
            package if word == INSTALLED and "install" in line else word
            for word in shlex.split(line)
        ]
        print(f"\n$ {line}", flush=True)
        started = time.perf_counter()
        code = subprocess.run(words, cwd=work, env=variables).returncode
        times.append((line, code, time.perf_counter() - started))
        if code:
            break
    total = time.perf_counter() - began
    print(f"\n{'seconds':>8}  {'exit':>4}  command")
    for line, code, seconds in times:
        print(f"{seconds:8.1f}  {code:4}  {line}")
    print(f"{total:8.1f}        {len(found)} commands, from the first to the last")
    return [
        *(f"failed: {line}" for line, code, _ in times if code),
        *(
            [f"{len(found)} commands, and at most {MOST_COMMANDS} are promised"]
            * (len(found) > MOST_COMMANDS)
        ),
        *([f"{total:.0f} s, and at most {MOST_S:.0f} are promised"] * (total > MOST_S)),
    ]


if __name__ == "__main__":
    main()
