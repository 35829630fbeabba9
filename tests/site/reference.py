"""The reference: pages that are made from the code, and so cannot say another thing than it does."""

from tests.site.commands import commands_page
from tests.site.models import profile_page, record_page
from tests.site.tables import (
    cards_page,
    figures_page,
    glossary_page,
    profiles_page,
    settings_page,
)

# Rendered by mkdocstrings, which reads the source and imports nothing. The verbs, then what they return.
_PYTHON = {
    "Functions": ("predict.predict", "run.run", "results.open", "estimate.estimate", "gate.gate"),
    "What they return": (
        "predict.PredictedGrid",
        "results.Results",
        "estimate.EstimatedRun",
        "gate.GateVerdict",
    ),
    "How a profile is given": ("profiles.profile_of",),
}


def python_page():
    """Return the page of `import ftbench`, for mkdocstrings to fill in."""
    parts = [
        "# Python",
        "`import ftbench` has these functions. How to use them: [From Python](../docs/python.md).",
    ]
    for heading, names in _PYTHON.items():
        parts.append(f"## {heading}")
        parts += [f"::: ftbench.verbs.{name}" for name in names]
    return "\n\n".join(parts) + "\n"


PAGES = {
    "commands": commands_page,
    "profile": profile_page,
    "settings": settings_page,
    "figures": figures_page,
    "record": record_page,
    "cards": cards_page,
    "profiles": profiles_page,
    "python": python_page,
    "glossary": glossary_page,
}


def write_reference(folder):
    """Write the pages of the reference into a folder."""
    folder.mkdir(parents=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page())
