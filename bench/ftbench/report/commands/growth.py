"""Growth: what is said of memory that steps keep ever more of."""

from __future__ import annotations

from collections.abc import Iterator

from ftbench.base.units import counted, format_bytes
from ftbench.records.prediction import Growth

MOST_PARTS = 12  # lines of a table


def growth_words(found: Growth) -> str:
    """Return by how much the memory grows that steps keep."""
    last = "the last step" if found.steps == 1 else f"the last {found.steps} steps"
    than = "the one before" if found.steps == 1 else f"the {found.steps} before"
    return (
        f"steps keep ever more memory: {format_bytes(found.nbytes)} more ({found.nbytes:,} bytes) after {last} than"
        f" after {than}"
    )


def growth_lines(found: Growth) -> Iterator[str]:
    """Yield what grows, the largest part first."""
    yield "what is kept from step to step:"
    for part in found.parts[:MOST_PARTS]:
        line = f" ({part.source})" if part.source else ""
        named = ", ".join(filter(None, (part.role, part.module, part.operator)))
        yield f"  {'+' + format_bytes(part.nbytes):>10}  {named}{line}"
    if rest := found.parts[MOST_PARTS:]:
        nbytes = sum(part.nbytes for part in rest)
        yield f"  {'+' + format_bytes(nbytes):>10}  in {counted(len(rest), 'more part')}"
