"""The versions of libraries whose memory is predicted exactly: those that this project's tests run under."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

# What a trace replaces has private names, which another version may lack or use otherwise. The tests run under both
# versions of transformers.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "torch": ("2.13.0",),
    "transformers": ("5.23.0", "4.51.3"),
}


def is_known(library: str, version: str) -> bool:
    """Return whether predictions were tested with a version; a build (`2.13.0+cpu`) is no other version."""
    return version.partition("+")[0] in KNOWN[library]


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None if it is missing; nothing is imported to find out."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
