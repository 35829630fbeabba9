"""Compiles the fake device and loads it. Imports no torch: it must be loaded before torch is."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_cuda.cpp")
# The same device, with memory and kernels: it includes the other one.
RUNNING = SOURCE.with_name("running_cuda.cpp")
# As `torch.utils.cpp_extension` does: torch's headers and its libraries must agree on the ABI of
# strings; every release since 2.6 for Linux is built with the new one.
CACHE = "FTBENCH_FAKE_CUDA_CACHE"  # in a rehearsal, whose temporary files are elsewhere
FLAGS = ("-std=c++20", "-O0", "-fPIC", "-shared", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1")


def torch_folder() -> Path:
    """Return where torch is installed, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise RuntimeError("torch is not installed")
    return Path(found.origin).parent


def compiled(source: Path = SOURCE) -> Path:
    """Return a compiled fake device, made where it is not in the cache yet (some ten seconds).

    The cache is a folder of this user among the temporary ones; a file is kept for each version
    of torch, source and flags. RuntimeError says what to install where there is no compiler.
    """
    key = hashlib.sha256(
        "\0".join((importlib.metadata.version("torch"), str(torch_folder()), *FLAGS)).encode()
        + SOURCE.read_bytes()
        + source.read_bytes()
    )
    folder = Path(os.environ.get(CACHE, tempfile.gettempdir())) / f"ftbench-fake-cuda-{os.getuid()}"
    library = folder / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        _compile(source, library)
    return library


def _compile(source: Path, library: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise RuntimeError(
            "no C++ compiler: the fake CUDA device that checks memory prediction is compiled when its"
            " tests run. Install g++ (Debian: apt-get install g++), or name a compiler in CXX."
        )
    torch = torch_folder()
    includes = [torch / "include", torch / "include/torch/csrc/api/include"]
    # Beside its final place, so that two test processes can compile at once: the last one wins.
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = [
            compiler,
            *FLAGS,
            *(f"-I{path}" for path in includes),
            str(source),
            "-o",
            str(made),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the fake CUDA device does not compile:\n{done.stderr[-4000:]}")
        made.replace(library)


def load(source: Path = SOURCE) -> ctypes.CDLL:
    """Load a fake device into this process, which must not have imported torch yet.

    `libtorch_global_deps` first, as `import torch` does: it brings in what libtorch refers to.
    """
    dependencies = torch_folder() / "lib" / "libtorch_global_deps.so"
    ctypes.CDLL(str(dependencies), mode=ctypes.RTLD_GLOBAL)
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(compiled(source)), mode=ctypes.RTLD_GLOBAL)


def loaded(source: Path) -> ctypes.CDLL:
    """Return a fake device that this process has loaded."""
    return ctypes.CDLL(str(compiled(source)))
