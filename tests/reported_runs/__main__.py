"""Say how many reported runs a command of ftbench predicts: `python -m tests.reported_runs REPORTS.csv`.

REPORTS.csv has a row per report, with the columns report, gpus (1 or N), task and features (with commas between).
Those on one GPU are judged. Each distinct command is run, and counts if it predicts a peak.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ftbench.base.units import format_bytes
from tests.reported_runs.acceptance import Answer, ask_all
from tests.reported_runs.commands import Expressed, Report, express

AT_LEAST = 0.75


def main(arguments: Sequence[str]) -> int:
    """Print a line per report and the share; return 1 if that is too low, or a command is not accepted."""
    parser = argparse.ArgumentParser("nox -s coverage --", description=__doc__)
    parser.add_argument("reports", type=Path, metavar="REPORTS.csv")
    parser.add_argument("--processes", type=int, default=1, help="commands that run at once")
    options = parser.parse_args(arguments)
    found = [express(one) for one in read_reports(options.reports) if one.gpus == "1"]
    commands = [one.command for one in found if one.command is not None]
    answers = ask_all(commands, options.processes)
    print("report  task             features                             tensors  command")
    for one in found:
        print(_line(one, answers))
    return _verdict(found, answers)


def read_reports(path: Path) -> list[Report]:
    """Return the rows of the list."""
    with path.open(newline="") as file:
        return [
            Report(row["report"], row["gpus"], row["task"], tuple(_words(row["features"])))
            for row in csv.DictReader(file)
        ]


def _words(features: str) -> Iterable[str]:
    return filter(None, (word.strip() for word in features.split(",")))


def _line(one: Expressed, answers: dict[tuple[str, ...], Answer]) -> str:
    answer = answers[one.command] if one.command is not None else Answer(None)
    peak = "-" if answer.peak_bytes is None else format_bytes(answer.peak_bytes)
    notes = "".join(f"  ({label}: {text})" for label, text in _notes(one, answer))
    report = one.report
    features = ",".join(report.features)
    return f"{report.number:>6}  {report.task:<15}  {features:<32}  {peak:>10}  {one.text}{notes}"


def _notes(one: Expressed, answer: Answer) -> list[tuple[str, str]]:
    notes = [("assumed", one.assumed), ("not accepted", answer.problem)]
    return [(label, text) for label, text in notes if text]


def _verdict(found: list[Expressed], answers: dict[tuple[str, ...], Answer]) -> int:
    """Print the shares; return the exit code."""
    accepted = [
        one
        for one in found
        if one.command is not None and answers[one.command].peak_bytes is not None
    ]
    certain = [one for one in accepted if not one.assumed]
    print(f"\n{len(answers)} distinct commands were run.")
    print(f"{len(accepted)} of {len(found)} reports are expressed: {_share(accepted, found)}.")
    print(f"{len(certain)} of them without an assumption: {_share(certain, found)}.")
    refused = [one for one in answers.values() if one.peak_bytes is None]
    return int(bool(refused) or len(accepted) < AT_LEAST * len(found))


def _share(some: list[Expressed], of: list[Expressed]) -> str:
    return f"{len(some) / max(len(of), 1):.0%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
