"""`ftbench doctor`: what can be measured and predicted on this machine, and how to mend what cannot."""

from __future__ import annotations

import json
import sys

import typer

from ftbench.base.errors import EXIT_FINDING
from ftbench.cli.options import JsonOption, open_console


def doctor(as_json: JsonOption = False) -> None:
    """Say what can be measured on this machine, what that means for the figures, and how to mend the rest.

    Nothing is installed, changed or downloaded. The exit code is 1 only if nothing can be run or predicted.
    """
    from ftbench.execute.doctor import ENVIRONMENT, examine
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.report.commands.doctor import doctor_json, doctor_table, mending_lines
    from ftbench.report.commands.doctor_findings import diagnose, nothing_runs
    from ftbench.report.render.terminal import phases_on, show_line, show_table

    with phases_on(sys.stderr) as show:
        facts = examine(LocalEngine("spawn", ENVIRONMENT), on_progress=show)
    findings = diagnose(facts)
    if as_json:
        print(json.dumps(doctor_json(facts, findings), indent=1))
    else:
        console = open_console()
        show_table(console, doctor_table(findings))
        console.print()
        for line in mending_lines(findings):
            show_line(console, line)
    if nothing_runs(facts):
        raise typer.Exit(EXIT_FINDING)
