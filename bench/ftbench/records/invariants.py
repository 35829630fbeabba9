"""Invariants: the rules that every record is checked against, and the figures that break them.

Figures published in this field include 0.0 MB (NVML did not know a container's PID), 316,579 MB (maxima
were added up) and throughput multiplied by the number of steps. A rule here catches each of these
mistakes. A figure that breaks a rule is untrusted: it stays in the record with the reason, and no table
shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ftbench.base.units import format_bytes
from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.records.environment import Environment
from ftbench.records.figures import BY_NAME, READINGS, Figure
from ftbench.records.measurement import Measurement, RankMeasurement
from ftbench.records.readings import Memory, StepSummary
from ftbench.records.record import Record
from ftbench.records.scores import Score

# What a table says instead of `ok` of a record with a figure that breaks an invariant.
UNTRUSTED = "untrusted"

Finding = tuple[str, str]  # the path of a figure in the measurement, and the reason not to trust it

_ON_CARD = tuple(figure.reading for figure in READINGS if figure.place in ("torch", "card"))
# A sampled figure that grows by more in the second half of training (`Sampling.growth`) depends on the
# duration of sampling. A sum of all samples has about 1.5, a constant figure 1.
GROWTH_LIMIT = 1.25
# NVML counts the driver's own memory in a card's total, torch does not (a few per cent).
DEVICE_SLACK = 1.10
# Tolerance of times: there are two clocks (CUDA events and the host's), and moments between steps.
CLOCK_SLACK = 1.02
CLOCK_SLACK_S = 0.5
_ROUNDING = 1e-6
_SUM_SLACK = 1 + 1e-6


def broken_invariants(record: Record, environment: Environment | None = None) -> dict[str, str]:
    """Return the figures of a record that break a rule, by path, each with all reasons.

    With the record's environment, peaks are also compared with the machine's memory. Empty for a
    record that breaks no rule, and for a record without a measurement.
    """
    measured = record.measurement
    if measured is None:
        return {}
    findings: dict[str, list[str]] = {}
    for path, reason in _findings(record, measured, environment):
        reasons = findings.setdefault(path, [])
        if reason not in reasons:
            reasons.append(reason)
    return {path: "; ".join(reasons) for path, reasons in findings.items()}


def untrusted_figures(record: Record) -> dict[str, str]:
    """Return the figures that the record marks as untrusted, and those that break a rule regardless."""
    return broken_invariants(record) | record.untrusted


def _findings(
    record: Record, measured: Measurement, environment: Environment | None
) -> Iterator[Finding]:
    for name, memory in _memories(measured):
        yield from _order(name, memory)
        yield from _nothing(name, memory)
    yield from _totals(measured)
    yield from _limits(measured, environment)
    for rank in measured.ranks:
        yield from _place(rank)
    yield from _growth(measured)
    yield from _times(record, measured)
    if measured.steps is not None:
        yield from _rates(measured, measured.steps)
    for score in measured.scores:
        yield from _score(score)


def _memories(measured: Measurement) -> Iterator[tuple[str, Memory]]:
    yield "the cell", measured.memory
    for name, phase in measured.phases.items():
        yield name, phase.memory


def _order(where: str, memory: Memory) -> Iterator[Finding]:
    """Yield both figures of each pair whose inner one is larger, since either may be wrong.

    Reserved and process memory are an exception: the first is exact, the second is sampled and may miss a
    short peak that torch returned (`empty_cache`, retries). Then only the second is wrong.
    """
    for inner, outer in _nested(memory):
        small, large = memory.reading(inner.reading), memory.reading(outer.reading)
        assert small is not None
        assert large is not None
        if small > large:
            reason = (
                f"in {where}, {_word(inner.name)} ({format_bytes(small)})"
                f" is more than {_word(outer.name)} ({format_bytes(large)})"
            )
            exact = inner.place == "torch" and outer.place != "torch"
            wrong = (outer,) if exact else (outer, inner)
            yield from ((figure.path, reason) for figure in wrong)
            names = (inner.name, outer.name)
            if memory.context_bytes is not None and "peak_process_bytes" in names:
                yield "memory.context_bytes", reason
    process, reserved, context = (
        memory.peak_process_bytes,
        memory.peak_reserved_bytes,
        memory.context_bytes,
    )
    if context is not None and context < 0:
        yield "memory.context_bytes", f"in {where} it is {format_bytes(context)}"
    elif context is not None and (
        process is None or reserved is None or context != process - reserved
    ):
        yield "memory.context_bytes", f"in {where} it is not process less reserved"


def _nested(memory: Memory) -> Iterator[tuple[Figure, Figure]]:
    """Yield each reading that is present with the next outer one that is present."""
    for inner in READINGS:
        outer = BY_NAME.get(inner.nested_in)
        while outer is not None and memory.reading(outer.reading) is None:
            outer = BY_NAME.get(outer.nested_in)
        if outer is not None and memory.reading(inner.reading) is not None:
            yield inner, outer


def _nothing(where: str, memory: Memory) -> Iterator[Finding]:
    for name, value in memory:
        if value is not None and value <= 0 and name != "context_bytes":
            yield f"memory.{name}", f"in {where} it reads {value}: nothing was measured"


def _totals(measured: Measurement) -> Iterator[Finding]:
    """Yield each peak of the cell that is not the maximum over its phases: a sum, or a stale reading."""
    for name, total in measured.memory:
        if name == "context_bytes":
            continue
        phases = [phase.memory.reading(name) for phase in measured.phases.values()]
        known = [value for value in phases if value is not None]
        if total != max(known, default=None):
            yield f"memory.{name}", "the cell's peak is not the largest of its phases'"


def _limits(measured: Measurement, environment: Environment | None) -> Iterator[Finding]:
    card = measured.device.total_memory_bytes
    limits: dict[str, float | None] = {
        "peak_reserved_bytes": card,
        "peak_process_bytes": card * DEVICE_SLACK if card else None,
        "peak_device_bytes": card * DEVICE_SLACK if card else None,
    }
    if environment is not None:
        host = (figure.reading for figure in READINGS if figure.place == "host")
        limits |= dict.fromkeys(host, float(environment.memory_bytes))
    for name, limit in limits.items():
        value = measured.memory.reading(name)
        if value is not None and limit is not None and value > limit:
            yield f"memory.{name}", f"{format_bytes(value)} is more memory than the machine has"


def _place(rank: RankMeasurement) -> Iterator[Finding]:
    """Yield the figures that were read from another device than the model's."""
    device = rank.device
    expected = "cpu" if device.kind == "cpu" else device.uuid
    read = rank.sampling.device_uuid if rank.sampling else None
    if rank.model_device != expected:
        reason = f"the model was on {rank.model_device}, the figures are those of {expected}"
        names = tuple(figure.reading for figure in READINGS) if device.kind == "cpu" else _ON_CARD
        yield from ((f"memory.{name}", reason) for name in _present(rank.memory, names))
        yield "steps.median_s", reason
    if read is not None and read != device.uuid:
        reason = f"NVML read {read}, the model was on {device.uuid}"
        outer = tuple(figure.reading for figure in READINGS if figure.place == "card")
        yield from ((f"memory.{name}", reason) for name in _present(rank.memory, outer))


def _growth(measured: Measurement) -> Iterator[Finding]:
    for name, ratio in (measured.sampling.growth if measured.sampling else {}).items():
        if ratio > GROWTH_LIMIT:
            yield (
                f"memory.{name}",
                f"its readings kept growing until training ended (by a factor of {ratio:.2f} in the second"
                " half): it depends on the duration of sampling",
            )


def _times(record: Record, measured: Measurement) -> Iterator[Finding]:
    inside = sum(phase.wall_s for phase in measured.phases.values())
    if not math.isclose(inside, measured.total_s, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        yield "total_s", "it is not the sum of the phases"
    trained = [measured.phases[n].wall_s for n in ("first_steps", "train") if n in measured.phases]
    if not math.isclose(sum(trained), measured.train_s, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        yield "train_s", "it is not the sum of its phases"
    if measured.total_s > record.wall_s * CLOCK_SLACK + CLOCK_SLACK_S:
        yield "total_s", "it is longer than the worker's lifetime"


def _rates(measured: Measurement, steps: StepSummary) -> Iterator[Finding]:
    """Yield rates that disagree with their own samples and seconds."""
    booked = [measured.phases[n] for n in ("first_steps", "train") if n in measured.phases]
    samples = sum(phase.samples or 0 for phase in booked)
    seconds = sum(phase.wall_s for phase in booked)
    rate = steps.samples / steps.seconds if steps.seconds > 0 else math.inf
    if not math.isclose(rate, steps.samples_per_s, rel_tol=_ROUNDING):
        yield "steps.samples_per_s", "it is not the number of samples divided by the seconds"
    if samples and steps.samples > samples:
        yield "steps.samples_per_s", "it counts more samples than were trained on"
    if steps.seconds > seconds * CLOCK_SLACK + CLOCK_SLACK_S:
        for name in ("median_s", "samples_per_s"):
            yield f"steps.{name}", "the steps took longer than the phases they were in"
    for name in ("real_tokens", "padded_tokens"):
        counts = [getattr(phase, name) for phase in booked]
        seen = sum(counts) if counts and None not in counts else None
        if seen is not None and getattr(steps, f"{name}_per_s") * steps.seconds > seen * _SUM_SLACK:
            yield f"steps.{name}_per_s", "it counts more tokens than were trained on"
    peak, flops = measured.peak_matmul_flops, steps.flops_per_s
    if steps.mfu is not None and (
        not peak or flops is None or not math.isclose(steps.mfu, flops / peak, rel_tol=_ROUNDING)
    ):
        yield "steps.mfu", "it is not the FLOP/s divided by the peak FLOP/s of a matrix product"
    if steps.real_tokens_per_s > steps.padded_tokens_per_s * (1 + _ROUNDING):
        yield "steps.real_tokens_per_s", "it is more than the padded tokens per second"
    if not steps.q1_s <= steps.median_s <= steps.q3_s:
        yield "steps.median_s", "it is not between its quartiles"
    if steps.min_s is not None and not 0 < steps.min_s <= steps.q1_s:
        yield "steps.min_s", "it is not between 0 and the first quartile"
    if not steps.median_low_s <= steps.median_s <= steps.median_high_s:
        yield "steps.median_s", "it is not within its own confidence interval"
    if steps.mfu is not None and not 0 < steps.mfu <= 1:
        yield "steps.mfu", f"{steps.mfu:.2f} is not between 0 and 1"


def _score(score: Score) -> Iterator[Finding]:
    kind = SCORE_KINDS.get(score.name)
    if kind is None:
        return
    least, most = kind.bounds
    if not least <= score.value <= most:
        yield f"scores.{score.name}", f"{score.value} is not between {least:g} and {most:g}"


def _present(memory: Memory, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if memory.reading(name) is not None]


def _word(name: str) -> str:
    return name.removeprefix("peak_").removesuffix("_bytes")
