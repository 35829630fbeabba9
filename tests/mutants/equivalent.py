"""Mutants that no test can kill, and why: they are not counted."""

# (file below bench/ftbench, line as it is, line as it is mutated): reason.
EQUIVALENT: dict[tuple[str, str, str], str] = {}
