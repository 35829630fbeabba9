"""The documents of this project, and what they contain: blocks of code, headings, links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document, language):
    """Return a document's blocks of code in a language, each with the number of its first line."""
    text = document.read_text()
    return [
        (text.count("\n", 0, found.start()) + 2, found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def name_of(document):
    """Return a document's name within the repository, such as docs/gate.md."""
    return document.relative_to(ROOT).as_posix()


def prose(text):
    """Return a document without its blocks of code."""
    return FENCE.sub("", text)


def anchors(text):
    """Return what GitHub names the headings of a document."""
    slugs, found = {}, set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{slugs[slug]}" if slug in slugs else slug)
        slugs[slug] = slugs.get(slug, 0) + 1
    return found


def links(text):
    """Return the targets of a document's links and pictures that lead into this repository."""
    text = prose(text)
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if "://" not in link]
