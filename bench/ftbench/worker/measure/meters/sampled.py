"""Sampled peaks, from a process beside the worker: PSS of the worker's process tree, and NVML's memory.

The worker's side of `ftbench.worker.measure.sampler`. Start it before torch touches CUDA, so that the idle
reading is that of a card without this worker, and from the main thread, since the sampler dies with the
*thread* that started it (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

from ftbench.base.units import format_bytes
from ftbench.records.measurement import RunWarning
from ftbench.records.readings import Sampling
from ftbench.worker.measure.sampler.tree_memory import PSS

# Above this share of samples with reduced clocks, times are affected.
THROTTLED_WARN = 0.05
# Other processes on the card.
TENANT_WARN = 0.0
# Above this share of one processor, the sampler disturbs the training.
SAMPLING_COST_WARN = 0.01
# The phase whose samples are tested for growth, and the smallest number of samples for the test.
GROWTH_PHASE = "train"
GROWTH_SAMPLES = 12

ANSWER_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 5.0
_CARD = ("peak_process_bytes", "peak_device_bytes")
_PSS_SOURCE = "/proc/PID/smaps_rollup: Pss of the worker and its descendants, sampled"


class Sample(TypedDict):
    """One reading; a figure is None if it was not or could not be read at that moment.

    `t_s` is on the monotonic clock, which on Linux all processes share.
    """

    t_s: float
    phase: str | None
    pss_bytes: int | None
    process_bytes: int | None
    device_bytes: int | None


class SampledMemory:
    """Sampled peaks of host memory (PSS) and, with a card, of process and device memory.

    If the sampler ends early, none of its figures are returned any more.
    """

    def __init__(
        self, uuid: str | None = None, *, pss: bool = True, period_floor_s: float = 0.0
    ) -> None:
        """Start the sampler: for the card with this UUID or none, with PSS or without."""
        self._uuid = uuid
        self._fields = (*((PSS,) if pss else ()), *(_CARD if uuid else ()))
        self._dead: str | None = None
        self._last: dict[str, Any] = {}
        self._sampling: Sampling | None = None
        self.samples: list[Sample] = []
        arguments = [str(os.getpid()), "--period-floor-s", str(period_floor_s)]
        arguments += ["--uuid", uuid] if uuid else []
        arguments += ["--pss"] if pss else []
        self._process = _start_sampler(arguments)

    @property
    def pid(self) -> int:
        """Return the sampler's PID."""
        return self._process.pid

    def idle(self) -> dict[str, int]:
        """Return the current figures, by the peaks' names; `absent` has the reasons for the others.

        With a card, this waits until its memory is constant, at most 5 s.
        """
        return self._ask("idle")

    def start(self, phase: str) -> None:
        """Begin new peaks."""
        self._ask("start", phase=phase)

    def read(self) -> dict[str, int]:
        """Return the peaks since `start` in bytes, including a sample of this moment."""
        return self._ask("read")

    def absent(self) -> dict[str, str]:
        """Return the reason that a field had no figure in the last reading (`idle`, `start` or `read`)."""
        return dict.fromkeys(self._fields, self._dead) if self._dead else dict(self._absent())

    def withdrawn(self) -> dict[str, str]:
        """Return the fields whose figures of earlier phases are withdrawn, with the reason.

        The card was lost, or the sampler ended: earlier readings may be too low.
        """
        gone = self._last.get("card", {}).get("gone")
        return self.absent() if self._dead else dict.fromkeys(_CARD, gone) if gone else {}

    def sources(self) -> dict[str, str]:
        """Return the source of each field's figure."""
        known = {PSS: _PSS_SOURCE} | self._last.get("card", {}).get("sources", {})
        return {name: known[name] for name in self._fields if name in known}

    def energy_j(self) -> float | None:
        """Return the card's energy counter in joules as of the last reading; None without one."""
        energy_mj = self._last.get("energy_mj")
        return None if energy_mj is None else energy_mj / 1e3

    def run_warnings(self) -> list[RunWarning]:
        """Return the warnings about the samples so far, and about the card."""
        if not self._last:
            return []
        card = self._last.get("card")
        warnings = [_sampling_cost(self._last)]
        if card is not None:
            warnings += [_throttled(card), _tenant(card), _unsettled(self._last)]
        return [run_warning for run_warning in warnings if run_warning is not None]

    def stop(self) -> Sampling | None:
        """End the sampler; return its `Sampling`, or None if it had ended before.

        Afterwards `samples` has its readings, at most 20,000 of them.
        """
        if self._sampling is not None:
            return self._sampling
        self._ask("stop")
        if self._dead:
            return None
        self._end()
        last = self._last
        self.samples = [
            Sample(t_s=t, phase=phase, pss_bytes=pss, process_bytes=process, device_bytes=device)
            for t, phase, pss, process, device in last.pop("samples")
        ]
        if last["period_s"] is None:  # there was nothing to sample
            return None
        lost = self.withdrawn()
        self._sampling = Sampling(
            period_s=last["period_s"],
            samples=last["count"],
            cpu_s=last["cpu_s"],
            cpu_share=_cpu_share(last),
            device_uuid=self._uuid,
            growth={k: v for k, v in growth_of(self.samples).items() if k not in lost},
        )
        return self._sampling

    def _absent(self) -> dict[str, str]:
        absent: dict[str, str] = self._last.get("absent", {})
        return absent

    def _ask(self, command: str, **details: Any) -> dict[str, int]:
        """Send a command, keep the answer, and return its figures; nothing if the sampler has ended."""
        if self._dead is None:
            try:
                self._last = self._answer({"command": command} | details)
            except (OSError, ValueError, _NoAnswerError) as error:
                self._end()
                code = self._process.returncode
                how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with {code}"
                self._dead = f"the sampler ended {how}: {error}"
                self._last = {}
        return dict(self._last.get("figures", {}))

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(json.dumps(command).encode() + b"\n")
        sink.flush()
        if not select.select([source], [], [], ANSWER_TIMEOUT_S)[0]:
            self._process.kill()
            raise _NoAnswerError(f"no answer to {command['command']} in {ANSWER_TIMEOUT_S:g} s")
        line = source.readline()
        if not line.endswith(b"\n"):
            raise _NoAnswerError(f"no answer to {command['command']}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        """Wait for the sampler's end; kill it after a timeout."""
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close(stream)


class _NoAnswerError(Exception):
    """The sampler did not answer."""


def _close(stream: Any) -> None:
    """Close a pipe, even if its reader has ended."""
    try:
        stream.close()
    except BrokenPipeError:
        return


def _start_sampler(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the sampler's process; its stderr goes to the worker's log."""
    root = str(Path(__file__).parents[4])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        # -P: a file in the working directory may have the name of a module
        [sys.executable, "-P", "-m", "ftbench.worker.measure.sampler", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )


def growth_of(samples: list[Sample]) -> dict[str, float]:
    """Return the growth of each figure in the second half of training; 1.0 means no growth.

    That half is cut into quarters. The growth is the smallest ratio of a quarter's median to the one
    before, cubed, as if all three ratios were that small. A single step up (the caching allocator keeps
    the memory of the widest batch) leaves two equal quarters, and gives 1.0; a sum of all samples gives about
    1.5. A figure with fewer than 12 readings has no growth.
    """
    training = [sample for sample in samples if sample["phase"] == GROWTH_PHASE]
    columns = {
        PSS: [sample["pss_bytes"] for sample in training],
        "peak_process_bytes": [sample["process_bytes"] for sample in training],
        "peak_device_bytes": [sample["device_bytes"] for sample in training],
    }
    found = {
        name: _growth([v for v in column if v is not None]) for name, column in columns.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _growth(values: list[int]) -> float | None:
    if len(values) < GROWTH_SAMPLES:
        return None
    half = values[len(values) // 2 :]
    cuts = [round(i * len(half) / 4) for i in range(5)]
    medians = [statistics.median(half[a:b]) for a, b in itertools.pairwise(cuts)]
    if not all(medians):
        return None
    return float(min(b / a for a, b in itertools.pairwise(medians)) ** 3)


def _cpu_share(last: dict[str, Any]) -> float:
    """Return the share of a processor used for samples while the worker was running.

    Samples that the worker waits for, at the ends of phases, are in no step and do not count.
    """
    share: float = last["beside_s"] / max(last["elapsed_s"], 1e-9)
    return share


def _sampling_cost(last: dict[str, Any]) -> RunWarning | None:
    share = _cpu_share(last)
    if share <= SAMPLING_COST_WARN:
        return None
    message = (
        f"sampling memory took {share:.1%} of a processor during training, so steps may be slower"
    )
    return RunWarning(
        name="sampling_cost", message=message, value=share, threshold=SAMPLING_COST_WARN
    )


def _throttled(card: dict[str, Any]) -> RunWarning | None:
    share = card["slowed_share"]
    if share <= THROTTLED_WARN:
        return None
    reasons = ", ".join(sorted(card["slowing"], key=card["slowing"].get, reverse=True))
    message = f"the card's clocks were reduced in {share:.0%} of the samples ({reasons})"
    return RunWarning(name="throttled", message=message, value=share, threshold=THROTTLED_WARN)


def _tenant(card: dict[str, Any]) -> RunWarning | None:
    tenants = card["tenants"]
    if len(tenants) <= TENANT_WARN:
        return None
    named = ", ".join(_tenant_name(pid, size) for pid, size in tenants)
    message = (
        f"{len(tenants)} other process{'es' if len(tenants) > 1 else ''} used the card ({named}):"
        " the device figure includes their memory, and times are probably too long"
    )
    return RunWarning(
        name="tenant", message=message, value=float(len(tenants)), threshold=TENANT_WARN
    )


def _tenant_name(pid: int | None, size: int | None) -> str:
    name = "started later" if pid is None else f"PID {pid}"
    return name if size is None else f"{name}: {format_bytes(size)}"


def _unsettled(last: dict[str, Any]) -> RunWarning | None:
    if last["settled"]:
        return None
    message = "device memory kept changing while the idle value was read: another process was using the card"
    return RunWarning(name="note", message=message)
