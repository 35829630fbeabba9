"""The command line: the only place that prints, and the only one that decides the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from ftbench import __version__
from ftbench.cli import (
    baseline,
    cache,
    calibrate,
    catalogues,
    check_snapshot,
    doctor,
    ending,
    estimate_memory,
    fit_search,
    init,
)
from ftbench.cli import (
    gate as gating,
)
from ftbench.cli import (
    predict as planning,
)
from ftbench.cli import (
    report as reporting,
)
from ftbench.cli import (
    run as measuring,
)
from ftbench.cli import (
    selfcheck as checking,
)
from ftbench.cli.summaries import summary_of

app = typer.Typer(
    name="ftbench",
    help="Measure and predict time, peak memory and accuracy of full fine-tuning over a grid of settings.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command
)

# In the order of --help: commands before a run, of a run, after it.
for command in (
    doctor.doctor,
    init.init,
    catalogues.profiles,
    catalogues.gpus,
    planning.plan,
    planning.predict,
    planning.explain,
    fit_search.fit_search,
    planning.estimate,
    estimate_memory.estimate_memory,
    calibrate.calibrate,
    measuring.run,
    measuring.frontier,
    reporting.report,
    check_snapshot.check_snapshot,
    checking.selfcheck,
    gating.gate,
    reporting.schema,
    cache.cache,
):
    app.command(short_help=summary_of(command))(command)
app.add_typer(baseline.baseline_app, name="baseline")


def main() -> None:
    """Run the command line; every error becomes a message on stderr and an exit code."""
    ending.run(app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Handle the options that come before a command."""
    if version:
        print(f"ftbench {__version__}")
        raise typer.Exit
