"""The pytest plugin: `gpu_memory`, a fixture that compares training steps with a memory limit or a baseline.

    def make_step(device):                  # builds model, optimizer and batch; returns one step
        model = Net().to(device)
        ...
        return step

    def test_step_fits(gpu_memory):
        gpu_memory.check(make_step, limit="2 GiB")

    def test_step_needs_no_more_than_it_did(gpu_memory):
        gpu_memory.compare("net", make_step)    # baseline: pytest --gpu-memory-update

The steps run without data and without a GPU (`ftbench.prediction.trace`): the figure is the peak of the bytes that
tensors request, exact, and the same on every machine. torch is imported only when a test uses the fixture.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from ftbench.gating.baseline import Baseline
    from ftbench.gating.result import GateResult
    from ftbench.prediction.trace.events import Trace
    from ftbench.prediction.trace.ranks import Ranks
    from ftbench.records.prediction import Growth

    Step = Callable[[], Any]
    MakeStep = Callable[..., Step]  # takes a torch.device, and a mesh if there are ranks

FOLDER = "gpu_memory"  # beside the test file
_SECTION = "gpu memory"
_RESERVED = "gpu_memory_reserved_bytes"
_UPDATE = "--gpu-memory-update"
# The test that wrote each baseline.
_WRITTEN = pytest.StashKey[dict[Path, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of baselines."""
    group = parser.getgroup("gpu-memory", "GPU memory of training steps, predicted")
    group.addoption(
        _UPDATE,
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
        self._last: _Traced | None = None

    def check(
        self,
        make_step: MakeStep,
        *,
        limit: str | int,
        gpu: str | None = None,
        steps: int | None = None,
        ranks: Ranks | None = None,
        allow_growth: bool = False,
    ) -> int:
        """Fail if the peak of the steps is above a limit, or steps keep ever more; return the peak, in bytes.

        `make_step(device)` builds model, optimizer and batch on the device that it is given, and returns
        the function that runs one step; `limit` is in bytes, or a text such as "2 GiB". With `gpu`, the name
        of a card in the catalogue, the figure is the simulated peak of that card's reserved memory. `steps` is
        the number of traced steps (3); to see a leak in every k-th step takes 2 k + 1 of them. With
        `ranks=ftbench.prediction.trace.ranks.Ranks(size=8)`, the steps are those of one rank of 8 GPUs, and a
        `make_step(device, mesh)` gets the mesh of all.
        """
        __tracebackhide__ = True
        from ftbench.base.units import format_bytes

        with self._told():
            allowed = _bytes_of(limit)
            found = self._traced("step", make_step, gpu, steps, ranks)
            peak, what = found.trace.peak_bytes, "tensors request"
            if gpu is None:
                self._note_peak(found.baseline)
                self._last = found
            else:
                peak, what = _reserved_bytes(found.trace, gpu), f"{gpu} would reserve"
                self._note({_RESERVED: peak})
        if peak > allowed:
            self._tell(found.peak_lines(gpu, peak))
            _fail(
                f"{what} {format_bytes(peak)} at the peak ({peak:,} bytes), above the limit of"
                f" {format_bytes(allowed)} ({allowed:,} bytes)"
            )
        if found.growth is not None and not allow_growth:
            self._tell(found.growth_lines())
            _fail(f"{found.growth_words()}\nif that ends: allow_growth=True, or more steps=")
        return peak

    def compare(
        self,
        name: str,
        make_step: MakeStep | None = None,
        *,
        steps: int | None = None,
        ranks: Ranks | None = None,
    ) -> int:
        """Fail if the steps need more or less memory than in their baseline; return the peak, in bytes.

        Without `make_step`, the steps are those of this test's last `check` without `gpu`. The baseline is
        `gpu_memory/TEST_FILE/NAME.json` beside the test. If its versions of torch or transformers
        differ, the test fails unless --gpu-memory-across-versions is given. `steps` and `ranks` are as for `check`.
        """
        __tracebackhide__ = True
        path = self._path(name)
        with self._told():
            found = self._to_compare(name, make_step, steps, ranks)
            self._note_peak(found.baseline)
            result = self._result(found.baseline, path)
        if result is not None and result.exit_code:
            if result.failures:
                self._tell(found.result_lines(result))
            _fail(_verdict(name, result))
        return found.trace.peak_bytes

    def _to_compare(
        self, name: str, make_step: MakeStep | None, steps: int | None, ranks: Ranks | None
    ) -> _Traced:
        from ftbench.base.errors import BaselineError

        if make_step is not None:
            return self._traced(name, make_step, None, steps, ranks)
        if self._last is None:
            raise BaselineError(f"gpu_memory.compare({name!r}) needs the steps to compare")
        return self._last.named(name)

    def _result(self, found: Baseline, path: Path) -> GateResult | None:
        """Return the comparison with a baseline; None if this run writes it."""
        from ftbench.base.errors import BaselineError
        from ftbench.gating.baseline_file import read_baseline, write_baseline
        from ftbench.gating.compare import compare

        config = self._request.config
        if config.getoption(_UPDATE):
            self._require_own(path)
            write_baseline(found, path)
            return None
        try:
            before = read_baseline(path)
        except BaselineError as error:
            error.hint = f"`{shlex.join(self._accept)}` writes it"
            raise
        across = bool(config.getoption("--gpu-memory-across-versions"))
        result = compare(before, found, across_versions=across)
        return dataclasses.replace(result, accept=self._accept)

    @property
    def _accept(self) -> tuple[str, ...]:
        """Return the words of the command that writes the baselines of this test."""
        return "pytest", self._request.node.nodeid, _UPDATE

    def _require_own(self, path: Path) -> None:
        """Raise BaselineError if another test of this run wrote this baseline: the later would replace it."""
        from ftbench.base.errors import BaselineError

        test = self._request.node.nodeid
        owner = self._request.config.stash.setdefault(_WRITTEN, {}).setdefault(path, test)
        if owner != test:
            raise BaselineError(
                "another test wrote this baseline in the same run",
                where=str(path),
                got=owner,
                hint="a name per test, or per parameter: gpu_memory.compare(f'net-{width}', ...)",
            )

    def _traced(
        self,
        name: str,
        make_step: MakeStep,
        gpu: str | None,
        steps: int | None,
        ranks: Ranks | None,
    ) -> _Traced:
        __tracebackhide__ = True
        from ftbench.plan.gpus import find_gpu
        from ftbench.prediction.trace.steps import trace_steps
        from ftbench.prediction.trace.tracer import STEPS, Target

        capability = (
            Target().compute_capability if gpu is None else find_gpu(gpu).compute_capability
        )
        target = Target(compute_capability=capability)
        traced = trace_steps(make_step, target=target, steps=steps, ranks=ranks)
        return _Traced(name, traced, None if steps == STEPS else steps)

    def _path(self, name: str) -> Path:
        __tracebackhide__ = True
        if not name or set(name) & set('/\\<>:"|?*') or name.startswith("."):
            _fail(f"gpu_memory.compare({name!r}): not a name for a file")
        test = Path(self._request.path)
        return test.parent / FOLDER / test.stem / f"{name}.json"

    def _note_peak(self, found: Baseline) -> None:
        from ftbench.gating.pytest_benchmark import PEAK, VERSIONS

        peak = found.groups[0].cells[0].tensors_bytes
        self._note({PEAK: peak, VERSIONS: found.versions})

    def _note(self, figures: dict[str, Any]) -> None:
        """Add figures to pytest-benchmark's JSON if this test is a benchmark as well."""
        if "benchmark" in self._request.fixturenames:
            self._request.getfixturevalue("benchmark").extra_info.update(figures)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Fail with the message alone if the steps cannot be traced or compared.

        Its first line is the failure and the others are a section: where CI is set, pytest repeats the whole
        failure in its summary.
        """
        __tracebackhide__ = True
        from ftbench.base.errors import FtbenchError

        message = ""
        try:
            yield
        except FtbenchError as error:
            # The catalogue of cards names the option of the command line.
            error.where = "gpu=" if error.where == "--gpu" else error.where
            message = str(error)
        if message:
            first, *others = message.splitlines()
            if others:
                self._tell(others)
            _fail(first)

    def _tell(self, text: Iterable[str]) -> None:
        """Show lines in a section of their own if the test fails; works with xdist."""
        self._request.node.add_report_section("call", _SECTION, "\n".join(text))


def baseline_of_trace(
    name: str, trace: Trace, grown: Growth | None, count: int | None = None
) -> Baseline:
    """Return the baseline of traced steps; `count` is None for the usual number of them."""
    from ftbench.gating.predicted import Steps, baseline_of_steps
    from ftbench.prediction.breakdown.parts import breakdown

    kept = grown.nbytes if grown else 0
    steps = Steps(trace.peak_bytes, trace.peak_blocks, kept, count)
    return baseline_of_steps(name, steps, breakdown(trace), trace.versions)


class _Traced:
    """The trace of a test's steps, and all that is said of it. `count` is None for the usual number of steps."""

    def __init__(self, name: str, trace: Trace, count: int | None) -> None:
        from ftbench.prediction.breakdown.growth import growth

        self.trace = trace
        self.growth = growth(trace)
        self.baseline = baseline_of_trace(name, trace, self.growth, count)

    def named(self, name: str) -> _Traced:
        """Return the same trace with a baseline of another name."""
        self.baseline = self.baseline.model_copy(update={"profile": name})
        return self

    def peak_lines(self, gpu: str | None, peak_bytes: int) -> Iterator[str]:
        from ftbench.report.commands import gate_steps

        yield from gate_steps.peak_lines(self.baseline.groups[0].breakdown)
        if gpu is not None:
            yield from gate_steps.reserved_lines(gpu, peak_bytes, self.trace.peak_bytes)

    def growth_words(self) -> str:
        from ftbench.report.commands.growth import growth_words

        assert self.growth is not None
        return growth_words(self.growth)

    def growth_lines(self) -> Iterator[str]:
        from ftbench.report.commands.growth import growth_lines

        assert self.growth is not None
        yield from growth_lines(self.growth)

    def result_lines(self, result: GateResult) -> Iterator[str]:
        from ftbench.gating.result import BlocksChange, BytesChange
        from ftbench.report.commands.gate import lines
        from ftbench.report.commands.gate_steps import block_lines

        yield from lines(result)
        if any(isinstance(change, BlocksChange) for change in result.failures):
            yield from block_lines(self.trace)
        grows = [c for c in result.failures if isinstance(c, BytesChange) and c.kind == "growth"]
        if grows and self.growth is not None:
            yield from self.growth_lines()


def _reserved_bytes(trace: Trace, gpu: str) -> int:
    """Return the peak that a card's allocator would reserve."""
    from ftbench.plan.gpus import find_gpu
    from ftbench.prediction.simulate.cards import card_of
    from ftbench.prediction.simulate.simulation import simulate

    return simulate(trace, runtime=card_of(find_gpu(gpu)).runtime).peak_reserved_bytes


def _verdict(name: str, result: GateResult) -> str:
    """Return the message of a failed test: every figure that changed."""
    from ftbench.report.commands.gate_sentences import change_words, reason_words

    if not result.failures:
        return f"{name}: cannot be judged: {'; '.join(map(reason_words, result.unjudged))}"
    said = []
    for words in map(change_words, result.failures):
        figure = "the peak is" if words.figure == "tensors" else f"{words.figure}:"
        unit = " bytes" if words.figure == "tensors" else ""
        said.append(
            f"{figure} {words.after}{unit}, {words.before} in the baseline ({words.difference})"
        )
    return f"{name}: {'; '.join(said)}"


def _bytes_of(limit: str | int) -> int:
    from ftbench.base.errors import PredictionError
    from ftbench.base.units import parse_bytes

    try:
        return parse_bytes(limit) if isinstance(limit, str) else limit
    except ValueError as error:
        raise PredictionError(str(error), where="limit=") from error


def _fail(message: str) -> NoReturn:
    __tracebackhide__ = True
    raise pytest.fail.Exception(message, pytrace=False) from None
