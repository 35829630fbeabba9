"""The file of a program: it is loaded as `python FILE.py` would load it, and its factory is looked up.

Whatever the user's code raises becomes one error, which shows the lines of the user's own files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch

from ftbench.base.errors import FtbenchError, ProgramError, nearest_name
from ftbench.plan.programs import Program, require_arguments
from ftbench.prediction.trace.source_line import own_frames
from ftbench.prediction.trace.tracer import Step

_DEVICE = "device"
_MESH = "mesh"  # of all ranks, for factories that take it
_INDENT = "\n" + " " * 12  # below the value of an error's detail
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Factory:
    """A program's factory: called with a device and arguments, it returns the function that runs a step."""

    def __init__(self, program: Program, function: Callable[..., Any]) -> None:
        """Look at the function's parameters; raises ProgramError if it takes no device."""
        self._program = program
        self._function = function
        self._parameters = _parameters(program, function)
        self._by_name = _DEVICE in self._parameters and (self._parameters[_DEVICE].kind in _BY_NAME)
        first = next(iter(self._parameters.values()), None)
        by_position = first is not None and first.kind in (*_BY_POSITION, first.VAR_POSITIONAL)
        if not (self._by_name or by_position):
            raise ProgramError(
                "the factory takes no device",
                where=program.name,
                got=f"{program.factory}({', '.join(self._parameters)})",
                expected=f"def {program.factory}(device, ...), which builds all tensors on this device",
            )

    @property
    def takes_mesh(self) -> bool:
        """Return whether the factory has a parameter for the mesh of all ranks."""
        return _MESH in self._parameters and self._parameters[_MESH].kind in _BY_NAME

    def require(self, arguments: Mapping[str, Any]) -> None:
        """Raise ProfileError if the factory does not take these arguments, or needs others."""
        own = list(self._parameters.values())
        own = [one for one in own if one.name != _DEVICE] if self._by_name else own[1:]
        own = [one for one in own if one.name != _MESH or not self.takes_mesh]
        named = [one for one in own if one.kind in _BY_NAME]
        accepted = [one.name for one in named]
        if any(one.kind == one.VAR_KEYWORD for one in own):
            accepted += arguments
        required = [one.name for one in named if one.default is one.empty]
        require_arguments(self._program, list(arguments), accepted, required)

    def step(self, device: torch.device, arguments: Mapping[str, Any], mesh: Any = None) -> Step:
        """Return the step that the factory builds; raises ProgramError if it is no function."""
        if mesh is not None:
            arguments = {_MESH: mesh, **arguments}
        if self._by_name:
            step = self._function(**{_DEVICE: device}, **arguments)
        else:
            step = self._function(device, **arguments)
        if not callable(step):
            raise ProgramError(
                "the factory returned no function that runs a step",
                where=self._program.name,
                got=type(step).__name__,
                hint="def step(): forward pass, backward pass, optimizer step; then `return step`",
            )
        return step


def _parameters(program: Program, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise ProgramError(
            "not a function", where=program.name, got=type(function).__name__
        ) from None


def load_factory(program: Program) -> Factory:
    """Return the factory of a program, whose file is run, with its folder on `sys.path`.

    Raises ProgramError if the file raises an error, or has no such function.
    """
    with user_errors(program.file):
        module = _loaded(Path(program.file).absolute(), program.file)
    try:
        return Factory(program, getattr(module, program.factory))
    except AttributeError:
        functions = [name for name, value in vars(module).items() if _own(module, value)]
        raise ProgramError(
            "no such function in the file",
            where=program.file,
            got=program.factory,
            expected=f"one of {', '.join(functions)}" if functions else "a function",
            nearest=nearest_name(program.factory, functions),
        ) from None


def _own(module: ModuleType, value: Any) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


class _Uncached(SourceFileLoader):
    """Compiles a file anew: bytecode in a cache may be older than an edit within the same second."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the file as it is now."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _loaded(path: Path, shown: str) -> ModuleType:
    """Return the module of a file; a module that is loaded already keeps its name."""
    sys.path.insert(0, str(path.parent))
    sys.argv = [shown]  # not the worker's own
    name = path.stem if path.stem not in sys.modules else f"program_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class up by its module
    spec.loader.exec_module(module)
    return module


# What a build of torch without CUDA says to `torch.device(0)` (`at::getAccelerator`).
_NO_ACCELERATOR = "Cannot access accelerator device"
_UNNAMED_CARD = "name the card: torch.device('cuda', 0), or the device that the factory is given"


@contextlib.contextmanager
def user_errors(where: str) -> Iterator[None]:
    """Turn an error of the user's code in the body into a ProgramError; errors of ours pass."""
    try:
        yield
    except FtbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise ProgramError(
            f"{type(error).__name__}: {error}".strip(": "),
            where=where,
            got=_INDENT.join(own_frames(error)) or None,
            hint=_UNNAMED_CARD if _NO_ACCELERATOR in str(error) else None,
        ) from error
