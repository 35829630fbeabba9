"""The pytest plugin: `gpu_memory`, a fixture that compares training steps with a memory limit or a baseline.

    def make_step(device):                  # builds model, optimizer and batch; returns one step
        model = Net().to(device)
        ...
        return step

    def test_step_fits(gpu_memory):
        gpu_memory.check(make_step, limit="2 GiB")

    def test_step_needs_no_more_than_it_did(gpu_memory):
        gpu_memory.compare("net", make_step)    # baseline: pytest --gpu-memory-update

The steps run without data and without a GPU (`ftbench.predict.trace`): the figure is the peak of the bytes that
tensors request, exact, and the same on every machine. torch is imported only when a test uses the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from ftbench.gate.baseline import Baseline
    from ftbench.gate.result import GateResult
    from ftbench.predict.trace.events import Trace
    from ftbench.records.prediction import MemoryBreakdown

    Step = Callable[[], Any]
    MakeStep = Callable[[Any], Step]  # takes a torch.device

FOLDER = "gpu_memory"  # beside the test file
_SECTION = "gpu memory"
_RESERVED = "gpu_memory_reserved_bytes"
_LINES = 12  # the number of a peak's parts that are shown


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of baselines."""
    group = parser.getgroup("gpu-memory", "GPU memory of training steps, predicted")
    group.addoption(
        "--gpu-memory-update",
        action="store_true",
        help="let gpu_memory.compare() write its figures as the baseline instead of comparing",
    )
    group.addoption(
        "--gpu-memory-across-versions",
        action="store_true",
        help="compare with a baseline even if its versions of torch or transformers differ",
    )


@pytest.fixture
def gpu_memory(request: pytest.FixtureRequest) -> GpuMemory:
    """Compare training steps with a memory limit or a baseline, without a GPU."""
    return GpuMemory(request)


class GpuMemory:
    """The fixture's value: `check` compares with a limit, `compare` with a baseline."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._last: Baseline | None = None

    def check(self, make_step: MakeStep, *, limit: str | int, gpu: str | None = None) -> int:
        """Fail if the peak of the steps is above a limit; return the peak, in bytes.

        `make_step(device)` builds model, optimizer and batch on the device that it is given, and returns
        the function that runs one step; `limit` is in bytes, or a text such as "2 GiB". With `gpu`, the name
        of a card in the catalogue, the figure is the simulated peak of that card's reserved memory.
        """
        from ftbench.base.units import format_bytes, parse_bytes

        allowed = parse_bytes(limit) if isinstance(limit, str) else limit
        trace, baseline = self._traced("step", make_step, gpu)
        peak, what = trace.peak_bytes, "tensors request"
        if gpu is None:
            self._note_peak(baseline)
            self._last = baseline
        else:
            peak, what = _reserved_bytes(trace, gpu), f"{gpu} would reserve"
            self._note({_RESERVED: peak})
        if peak > allowed:
            self._tell("\n".join(_peak_lines(baseline.groups[0].breakdown)))
            _fail(
                f"{what} {format_bytes(peak)} at the peak ({peak:,} bytes), above the limit of"
                f" {format_bytes(allowed)} ({allowed:,} bytes)"
            )
        return peak

    def compare(self, name: str, make_step: MakeStep | None = None) -> int:
        """Fail if the steps need more or less memory than in their baseline; return the peak, in bytes.

        Without `make_step`, the steps are those of this test's last `check` without `gpu`. The baseline is
        `gpu_memory/TEST_FILE/NAME.json` beside the test file. If its versions of torch or transformers
        differ, the test fails unless --gpu-memory-across-versions is given.
        """
        from ftbench.base.errors import BaselineError
        from ftbench.gate.baseline_file import read_baseline, write_baseline
        from ftbench.gate.compare import compare

        if make_step is not None:
            _, found = self._traced(name, make_step)
        elif self._last is not None:
            found = self._last.model_copy(update={"profile": name})
        else:
            raise pytest.UsageError(f"gpu_memory.compare({name!r}) needs the steps to compare")
        peak = _peak_bytes(found)
        self._note_peak(found)
        path = self._path(name)
        config = self._request.config
        if config.getoption("--gpu-memory-update"):
            write_baseline(found, path)
            return peak
        try:
            before = read_baseline(path)
        except BaselineError as error:
            _fail(f"{error}\n`pytest --gpu-memory-update` writes it")
        across = bool(config.getoption("--gpu-memory-across-versions"))
        result = compare(before, found, across_versions=across)
        if result.exit_code:
            self._tell("\n".join(_result_lines(result)))
            _fail(_verdict(name, result))
        return peak

    def _traced(
        self, name: str, make_step: MakeStep, gpu: str | None = None
    ) -> tuple[Trace, Baseline]:
        from ftbench.gate.predicted import baseline_of_steps
        from ftbench.plan.gpus import find_gpu
        from ftbench.predict.breakdown.parts import breakdown
        from ftbench.predict.trace.tracer import Target, trace

        capability = (
            Target().compute_capability if gpu is None else find_gpu(gpu).compute_capability
        )
        traced = trace(make_step, target=Target(compute_capability=capability))
        return traced, baseline_of_steps(
            name, traced.peak_bytes, breakdown(traced), traced.versions
        )

    def _path(self, name: str) -> Path:
        if not name or set(name) & set('/\\<>:"|?*') or name.startswith("."):
            raise pytest.UsageError(f"gpu_memory.compare({name!r}): not a name for a file")
        test = Path(self._request.path)
        return test.parent / FOLDER / test.stem / f"{name}.json"

    def _note_peak(self, found: Baseline) -> None:
        from ftbench.gate.pytest_benchmark import PEAK, VERSIONS

        peak = _peak_bytes(found)
        self._note({PEAK: peak, VERSIONS: found.versions})

    def _note(self, figures: dict[str, Any]) -> None:
        """Add figures to pytest-benchmark's JSON if this test is a benchmark as well."""
        if "benchmark" in self._request.fixturenames:
            self._request.getfixturevalue("benchmark").extra_info.update(figures)

    def _tell(self, text: str) -> None:
        """Show a text in a section of its own if the test fails; works with xdist."""
        self._request.node.add_report_section("call", _SECTION, text)


def _reserved_bytes(trace: Trace, gpu: str) -> int:
    """Return the peak that a card's allocator would reserve."""
    from ftbench.plan.gpus import find_gpu
    from ftbench.predict.simulate.cards import card_of
    from ftbench.predict.simulate.simulation import simulate

    return simulate(trace, runtime=card_of(find_gpu(gpu)).runtime).peak_reserved_bytes


def _peak_lines(parts: MemoryBreakdown) -> Iterator[str]:
    """Yield lines with the parts of a peak, the largest first."""
    from ftbench.base.units import format_bytes

    moment = parts.moment
    where = " in ".join(filter(None, (moment.operator or moment.phase, moment.module)))
    yield f"at the peak (step {moment.step}, {where}):"
    live = [part for part in parts.parts if part.nbytes.get("peak")]
    for part in live[:_LINES]:
        line = f" ({part.source})" if part.source else ""
        named = ", ".join(filter(None, (part.role, part.module, part.operator, part.dtype)))
        yield f"  {format_bytes(part.nbytes['peak']):>10}  {named}{line}"
    rest = sum(part.nbytes["peak"] for part in live[_LINES:])
    if rest:
        yield f"  {format_bytes(rest):>10}  the rest"


def _result_lines(result: GateResult) -> Iterator[str]:
    from ftbench.report.commands.gate import lines

    yield from lines(result, accept="`pytest --gpu-memory-update`")


def _peak_bytes(found: Baseline) -> int:
    """Return the peak of the steps, the only figure of their baseline."""
    return found.groups[0].cells[0].tensors_bytes


def _verdict(name: str, result: GateResult) -> str:
    """Return the message of a failed test."""
    from ftbench.gate.result import BytesChange
    from ftbench.report.commands.gate_sentences import reason_words, signed

    if not result.failures:
        return f"{name}: cannot be judged: {'; '.join(map(reason_words, result.unjudged))}"
    change = result.failures[0]
    assert isinstance(change, BytesChange)
    delta = signed(change.after - change.before)
    return (
        f"{name}: the peak is {change.after:,} bytes, {change.before:,} in the baseline ({delta})"
    )


def _fail(message: str) -> NoReturn:
    pytest.fail(message, pytrace=False)
