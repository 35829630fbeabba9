"""Run directory: one atomic file a record, and beside it what the records refer to.

RUN_DIR/
  profile.json          the profile as resolved by the run that wrote here last
  environments/ID.json  packages, hardware, driver, git commit
  preparation.json      pool sizes, FLOPs, matmul peak
  records/CELL-rN.json  one record a replicate of a cell
  steps/CELL-rN.parquet one row a step
  logs/CELL-rN.log      what the worker printed
  checkpoints/          only those that were asked to stay
  report.md, cells.csv  the tables
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bench.errors import RunDirectoryError
from bench.messages import Preparation
from bench.profile import Profile
from bench.record import SCHEMA_VERSION, Environment, Record
from bench.units import format_bytes

Model = TypeVar("Model", bound=BaseModel)


class RunDirectory:
    """A folder of records; `create` makes one, `open` finds one."""

    def __init__(self, path: Path, *, made: bool = False) -> None:
        self.path = path
        self._made = made  # by this process, just now

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Return the run directory, made where it is not there; raises RunDirectoryError."""
        made = not path.exists()
        for name in ("records", "environments", "steps", "logs", "checkpoints"):
            try:
                (path / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(path, error) from error
        if not os.access(path / "records", os.W_OK):
            raise RunDirectoryError(
                "not writable", where=str(path), hint="choose another with --out"
            )
        return cls(path, made=made)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return an existing run directory; raises RunDirectoryError where there is none."""
        if not (path / "records").is_dir():
            raise RunDirectoryError(
                "not a run directory",
                where=str(path),
                expected="a folder with records/, as `ftbench run` writes it",
            )
        return cls(path)

    def discard(self) -> None:
        """Remove the directory again if this process made it and no record is in it."""
        if self._made and not any((self.path / "records").iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one parent; raises RunDirectoryError where another has it."""
        try:
            file = (self.path / "lock").open("w")
        except OSError as error:
            raise _unwritable(self.path / "lock", error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunDirectoryError(
                    "another ftbench is running here",
                    where=str(self.path),
                    hint="wait for it, or choose another directory with --out",
                ) from error
            yield

    def file(self, kind: str, record_name: str, suffix: str) -> Path:
        """Return the path of a record's file of one kind: `steps`, `logs`, ..."""
        return self.path / kind / f"{record_name}{suffix}"

    def write_record(self, record: Record) -> None:
        """Write a record, whole or not at all."""
        file = self.file("records", record_name(*record.identity), ".json")
        write_atomically(file, record.model_dump_json(indent=1) + "\n")

    def write_environment(self, environment: Environment) -> None:
        """Write an environment under its id; one that is there already stays."""
        file = self.file("environments", environment.environment_id, ".json")
        if not file.exists():
            write_atomically(file, environment.model_dump_json(indent=1) + "\n")

    def write_profile(self, profile: Profile) -> None:
        """Write the profile as resolved: with the recipe's settings in it."""
        data = profile.model_dump(mode="json") | {"training": profile.settings}
        write_atomically(self.path / "profile.json", json.dumps(data, indent=1) + "\n")

    def read_profile(self) -> Profile:
        """Return the profile that was last run here."""
        return _read(self.path / "profile.json", Profile)

    def write_preparation(self, preparation: Preparation) -> None:
        """Write what the prepare stage found."""
        write_atomically(
            self.path / "preparation.json", preparation.model_dump_json(indent=1) + "\n"
        )

    def read_preparation(self) -> Preparation:
        """Return what the prepare stage found."""
        return _read(self.path / "preparation.json", Preparation)

    def records(self) -> list[Record]:
        """Return all records, by cell and replicate; raises RunDirectoryError for an unreadable one."""
        return [_read_record(file) for file in sorted((self.path / "records").glob("*.json"))]

    def environments(self) -> dict[str, Environment]:
        """Return the environments by id."""
        files = sorted((self.path / "environments").glob("*.json"))
        return {file.stem: _read(file, Environment) for file in files}

    def require_free(self, needed_bytes: int) -> None:
        """Raise RunDirectoryError where the disk has less free space than is needed."""
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            raise RunDirectoryError(
                "not enough free disk space for a cell's checkpoints",
                where=str(self.path),
                got=f"{format_bytes(free)} free",
                expected=f"{format_bytes(needed_bytes)}",
                hint="free some, choose another disk with --out, or --set training.save_strategy=no",
            )


def record_name(cell_id: str, replicate: int) -> str:
    """Return the name that the files of one replicate of a cell share."""
    return f"{cell_id}-r{replicate}"


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _unwritable(file, error) from error


def _unwritable(path: Path, error: OSError) -> RunDirectoryError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return RunDirectoryError(
        "the disk is full" if full else f"cannot be written: {error.strerror}",
        where=str(path),
        hint="finished cells are kept; free some space and run the same command again"
        if full
        else "choose another directory with --out",
    )


_AWAY = "move the file away and run again: what it held is made anew"


def _read(file: Path, model: type[Model]) -> Model:
    """Return what a JSON file holds; raises RunDirectoryError that says what is wrong with it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"cannot be read: {error}", where=str(file), hint=_AWAY) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunDirectoryError(
            "written by a newer ftbench",
            where=str(file),
            got=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}",
            hint="upgrade ftbench; nothing was changed",
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        finding = error.errors()[0]
        place = ".".join(map(str, finding["loc"]))
        raise RunDirectoryError(
            f"not a {model.__name__.lower()}: {place}: {finding['msg']}",
            where=str(file),
            hint=_AWAY,
        ) from error


def _read_record(file: Path) -> Record:
    """Return a record, whose file must have its name: a copy would count twice."""
    record = _read(file, Record)
    if file.stem != record_name(*record.identity):
        raise RunDirectoryError(
            "not the file of its record",
            where=str(file),
            expected=f"{record_name(*record.identity)}.json",
            hint=_AWAY,
        )
    return record
