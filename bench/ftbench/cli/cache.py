"""The cache of predictions: where it is, how large, and how it is cleared."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ftbench.cli.options import JsonOption


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all kept predictions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the cache of predictions: its folder and size.

    `plan`, `predict`, `explain`, `estimate` and `gate` keep their predictions there, and take them from there while
    nothing changes that they depend on. The variable FTBENCH_CACHE names another folder, or is `off`.
    """
    from ftbench.base.units import counted, format_bytes
    from ftbench.execute.kept.kept_answer import FOLDER_VARIABLE, OFF, default_store

    store = default_store()
    if store is None:
        print(json.dumps({"folder": None}) if as_json else f"off: {FOLDER_VARIABLE}={OFF}")
        return
    used = store.clear() if clear else store.usage()
    if as_json:
        data = {"folder": str(store.folder), "predictions": used.entries, "bytes": used.nbytes}
        print(json.dumps(data | {"most_bytes": store.most_bytes, "cleared": clear}, indent=1))
        return
    size = f"{counted(used.entries, 'prediction')}, {format_bytes(used.nbytes)}"
    limit = format_bytes(store.most_bytes)
    print(f"removed {size}" if clear else f"{store.folder}: {size} of at most {limit}")
