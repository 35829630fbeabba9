"""`ftbench profiles` and `ftbench gpus`: what there is to choose from, before a first command."""

from __future__ import annotations

import json

from ftbench.cli.options import JsonOption, open_console


def profiles(as_json: JsonOption = False) -> None:
    """List the profiles that a command finds by name: what each measures, its cells, model and data.

    They are those of the folder profiles/ here, and those that come with ftbench.
    """
    from ftbench.report.commands.catalogues import list_profiles, profiles_json, profiles_table
    from ftbench.report.render.terminal import show_table

    listed = list_profiles()
    if as_json:
        print(json.dumps(profiles_json(listed), indent=1))
    else:
        show_table(open_console(), profiles_table(listed))


def gpus(as_json: JsonOption = False) -> None:
    """List the cards that --gpu knows: memory, bandwidth, rates of arithmetic, generation, power.

    Rates are dense, by the vendor's data sheet. With --json, all figures have their sources.
    """
    from ftbench.plan.gpus import load_gpus
    from ftbench.report.commands.catalogues import gpus_json, gpus_table
    from ftbench.report.render.terminal import show_table

    cards = list(load_gpus().values())
    if as_json:
        print(json.dumps(gpus_json(cards), indent=1))
    else:
        show_table(open_console(), gpus_table(cards))
