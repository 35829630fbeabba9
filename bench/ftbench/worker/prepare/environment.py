"""The environment of a worker, on which measured figures depend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess

import torch

from ftbench.plan.devices import cpu_name
from ftbench.records.environment import Environment
from ftbench.worker.measure.device import describe
from ftbench.worker.process.malloc import malloc_variables

PACKAGES = (
    "ftbench",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "evaluate",
    "numpy",
    "pyarrow",
    "safetensors",
)


def read_environment(device: torch.device) -> Environment:
    """Return packages, processor, memory, device, driver, variables of allocation, and the git commit."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        device=describe(device),
        driver=nvidia_driver() if device.type == "cuda" else None,
        cuda=torch.version.cuda,
        variables=malloc_variables(),
        git_commit=_git_commit(),
    )


def nvidia_driver() -> str | None:
    """Return the version of the driver; None if it cannot be asked."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return None
    return version.decode() if isinstance(version, bytes) else str(version)


def _git_commit() -> str | None:
    """Return the commit of the working folder, marked `-dirty` if files differ; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None
