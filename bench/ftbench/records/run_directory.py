"""Run directory: one file per record, written atomically, and the files that records refer to.

RUN_DIR/
  profile.json          the profile as resolved by the latest run
  environments/ID.json  packages, hardware, driver, git commit
  preparation.json      pool sizes, FLOPs, matmul peak
  records/NAME.json     one record per run of a cell: CELL-rN, or CELL-rN-tM for a repeat
  steps/NAME.parquet    one row per step; NAME.K for a later attempt
  samples/NAME.parquet  one row per sample of memory
  logs/NAME.log         the worker's output
  logs/NAME/            files of TensorBoard or W&B; logs/mlflow.db and logs/trackio/ are shared by all runs
  tries/NAME.json       one file per probe of `ftbench frontier`
  superseded/NAME.K.json  the record of an earlier attempt, failed or noisy
  damaged/              records that could not be read, moved out of the way
  checkpoints/          the checkpoints selected by `run.keep_checkpoints`
  report.md, report.html, cells.csv, figures/  the report

All of it is data: nothing in it is unpickled or run, no link in it is followed, and a record that
does not match its own checksum is rejected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ftbench.base.errors import DamagedFile, RunDirectoryError
from ftbench.base.files import (
    MOVE_AWAY,
    Model,
    checksum,
    load_json,
    read_json,
    unwritable,
    validated,
    write_atomically,
)
from ftbench.base.units import MIB, format_bytes
from ftbench.plan.profile import Profile
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.environment import Environment
from ftbench.records.messages import Preparation
from ftbench.records.migration import OLDEST, migrated
from ftbench.records.record import SCHEMA_VERSION, Record

FOLDERS = (
    "records",
    "environments",
    "steps",
    "samples",
    "logs",
    "checkpoints",
    "superseded",
    "damaged",
    "tries",
)
# Disk space reserved for the record of the cell that is running when the disk fills up.
RESERVE_BYTES = MIB


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A record file that cannot be read, and why."""

    file: Path
    reason: str


class RunDirectory:
    """A folder of records; `create` makes one, `open` finds one.

    A record is read and validated once, and again only if its file has changed.
    """

    def __init__(self, path: Path, *, made: bool = False) -> None:
        self.path = path
        self._made = made  # made by this process
        self._read: dict[Path, tuple[tuple[int, ...], Record]] = {}

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Return the run directory, made if it does not exist; raises RunDirectoryError."""
        try:
            made = not path.exists()
            for name in FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        if not os.access(path / "records", os.W_OK):
            raise RunDirectoryError(
                "not writable", where=str(path), hint="choose another with --out"
            )
        _require_no_links(path)
        return cls(path, made=made)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return an existing run directory; raises RunDirectoryError if it is not one."""
        if not (path / "records").is_dir():
            raise RunDirectoryError(
                "not a run directory",
                where=str(path),
                expected="a folder with records/, as `ftbench run` writes it",
            )
        _require_no_links(path)
        return cls(path)

    def discard(self) -> None:
        """Remove the directory if this process made it and it has no record."""
        if self._made and not any((self.path / "records").iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory for this process; raises RunDirectoryError if another process has the lock.

        While it is locked, some disk space is reserved for a record (see `write_record`).
        """
        try:
            descriptor = os.open(
                self.path / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
            )
        except OSError as error:
            raise unwritable(self.path / "lock", error) from error
        with os.fdopen(descriptor, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunDirectoryError(
                    "another ftbench is running here",
                    where=str(self.path),
                    hint="wait for it, or choose another directory with --out",
                ) from error
            self._clear_halves()
            self._keep_reserve()
            try:
                yield
            finally:
                self._reserve.unlink(missing_ok=True)

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """Return the path of a record's file of one kind: `steps`, `logs`, ..."""
        assert kind in FOLDERS
        assert "/" not in name
        return self.path / kind / f"{name}{suffix}"

    def write_record(self, record: Record) -> None:
        """Write a record with its checksum, whole or not at all; an earlier one moves to `superseded/`.

        If the disk is full, the reserved space is used, so that no measurement is lost.
        """
        file = self.file("records", record.identity.name, ".json")
        text = _sealed(record)
        try:
            self._replace(file, text)
        except RunDirectoryError:
            if not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._replace(file, text)
        self._read[file] = (_signature(file), record)

    def _replace(self, file: Path, text: str) -> None:
        if file.exists():
            with contextlib.suppress(DamagedFile):  # nothing worth keeping
                earlier = _read_record(file)
                kept = self.file("superseded", earlier.file_name, ".json")
                write_atomically(kept, file.read_text(encoding="utf-8"))
        write_atomically(file, text)

    def write_try(self, probe: BatchProbe) -> None:
        """Write a probe of the batch search with its checksum."""
        write_atomically(self.file("tries", probe.name, ".json"), _sealed(probe))

    def tries(self) -> list[BatchProbe]:
        """Return the probes of the batch search that can be read; the search repeats the others."""
        probes = []
        for file in sorted((self.path / "tries").glob("*.json")):
            with contextlib.suppress(DamagedFile):
                probes.append(_unsealed(file, BatchProbe))
        return probes

    def write_environment(self, environment: Environment) -> None:
        """Write an environment under its id, unless its file exists."""
        file = self.file("environments", environment.environment_id, ".json")
        if not file.exists():
            write_atomically(file, environment.model_dump_json(indent=1) + "\n")

    def write_profile(self, profile: Profile) -> None:
        """Write the profile as resolved, including the recipe's settings."""
        data = profile.model_dump(mode="json") | {"training": profile.settings}
        write_atomically(self.path / "profile.json", json.dumps(data, indent=1) + "\n")

    def read_profile(self) -> Profile:
        """Return the profile of the latest run; raises DamagedFile."""
        return read_json(self.path / "profile.json", Profile)

    def write_preparation(self, preparation: Preparation) -> None:
        """Write the results of the prepare stage."""
        write_atomically(
            self.path / "preparation.json", preparation.model_dump_json(indent=1) + "\n"
        )

    def read_preparation(self) -> Preparation:
        """Return the results of the prepare stage; raises DamagedFile."""
        return read_json(self.path / "preparation.json", Preparation)

    def describes_itself(self) -> bool:
        """Return whether the profile and the preparation can be read."""
        try:
            self.read_profile()
            self.read_preparation()
        except DamagedFile:
            return False
        return True

    def record_count(self) -> int:
        """Return the number of record files, which are not read."""
        return len(self._record_files())

    def records(self) -> list[Record]:
        """Return all records, sorted by file name; raises RunDirectoryError for the first unreadable one."""
        return [self._record(file) for file in self._record_files()]

    def survey(self) -> tuple[list[Record], list[Damaged]]:
        """Return the records that can be read, and the files that cannot.

        Raises RunDirectoryError for a record of another schema, which does not count as damage.
        """
        records, damaged = [], []
        for file in self._record_files():
            try:
                records.append(self._record(file))
            except DamagedFile as error:
                damaged.append(Damaged(file, error.what))
        return records, damaged

    def set_aside(self, damaged: Damaged) -> Path:
        """Move a damaged record to `damaged/`, so that its cell is run again; return its new path."""
        target = self.path / "damaged" / damaged.file.name
        number = 0
        while target.exists() or target.is_symlink():
            number += 1
            target = target.with_name(f"{damaged.file.name}.{number}")
        damaged.file.rename(target)
        return target

    def _record(self, file: Path) -> Record:
        """Return the record in a file; it is read again only if the file has changed."""
        known = self._read.get(file)
        if known is not None and known[0] == _signature(file):
            return known[1]
        signature = _signature(
            file
        )  # taken before reading, so that a change in between is noticed later
        record = _read_record(file)
        self._read[file] = (signature, record)
        return record

    def _record_files(self) -> list[Path]:
        return sorted((self.path / "records").glob("*.json"))

    def environments(self) -> dict[str, Environment]:
        """Return the environments by id; raises RunDirectoryError if one does not match its id."""
        environments = {}
        for file in sorted((self.path / "environments").glob("*.json")):
            environment = read_json(file, Environment)
            if environment.environment_id != file.stem:
                raise DamagedFile(
                    "changed after it was written",
                    where=str(file),
                    got=f"an environment with the id {environment.environment_id}",
                    hint="its records cannot be compared with others: run them again",
                )
            environments[file.stem] = environment
        return environments

    def require_free(self, needed_bytes: int) -> None:
        """Raise RunDirectoryError if the disk has less free space than needed."""
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            raise RunDirectoryError(
                "not enough free disk space for a cell's checkpoints",
                where=str(self.path),
                got=f"{format_bytes(free)} free",
                expected=f"{format_bytes(needed_bytes)}",
                hint="free some, choose another disk with --out, or --set training.save_strategy=no",
            )

    @property
    def _reserve(self) -> Path:
        return self.path / "reserve"

    def _keep_reserve(self) -> None:
        """Reserve the space for one record; raises RunDirectoryError if the disk has too little."""
        self._reserve.unlink(missing_ok=True)
        try:
            with self._reserve.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise unwritable(self.path, error) from error

    def _clear_halves(self) -> None:
        """Remove the unfinished files of a killed writer. Only the owner of the lock may call this."""
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            for half in folder.glob(".*.json.*"):
                half.unlink(missing_ok=True)


def _require_no_links(path: Path) -> None:
    """Raise RunDirectoryError if a folder of the run directory is a symbolic link."""
    for name in FOLDERS:
        if (path / name).is_symlink():
            raise RunDirectoryError(
                "a link in the place of a folder",
                where=str(path / name),
                expected="a folder inside the run directory",
                hint="link the run directory as a whole, not its parts",
            )


def _signature(file: Path) -> tuple[int, ...]:
    """Return a value that changes if a file is rewritten or replaced; empty if it does not exist."""
    try:
        status = file.lstat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_record(file: Path) -> Record:
    """Return a record whose file has its name and checksum; a copy under another name would count twice."""
    record = _unsealed(file, Record)
    if file.stem != record.identity.name:
        raise DamagedFile(
            "the file's name does not match its record",
            where=str(file),
            expected=f"{record.identity.name}.json",
            hint=MOVE_AWAY,
        )
    return record


def _sealed(model: BaseModel) -> str:
    """Return a model as JSON text with its own checksum."""
    data = model.model_dump(mode="json")
    return json.dumps({"sha256": checksum(data), **data}, indent=1) + "\n"


def _unsealed(file: Path, model: type[Model]) -> Model:
    """Return the model in a file with a checksum; raises DamagedFile if the checksum does not match."""
    data = load_json(file)
    if isinstance(data, dict):
        sealed = data.pop("sha256", None)
        if sealed in (None, checksum(data)):  # only then can its version be relied on
            _require_this_schema(data.get("schema_version"), file)
        if sealed != checksum(data):
            raise DamagedFile(
                "does not match its own checksum: it was changed after it was written",
                where=str(file),
                hint=MOVE_AWAY,
            )
        data = _migrated(data, file, model)
    return validated(data, file, model)


def _migrated(data: dict[str, Any], file: Path, model: type[Model]) -> dict[str, Any]:
    """Return data in the current schema; raises DamagedFile if it is not valid in its own, older one."""
    try:
        return migrated(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            f"not a {model.__name__.lower()} of schema {data.get('schema_version')}: {error!r}",
            where=str(file),
            hint=MOVE_AWAY,
        ) from error


def _require_this_schema(version: Any, file: Path) -> None:
    """Raise RunDirectoryError if the record's schema is older or newer than those this version reads."""
    if not isinstance(version, int) or isinstance(version, bool):
        return
    if OLDEST <= version <= SCHEMA_VERSION:
        return
    newer = version > SCHEMA_VERSION
    raise RunDirectoryError(
        f"written by {'a newer' if newer else 'an older'} ftbench",
        where=str(file),
        got=f"schema version {version}",
        expected=f"{OLDEST} to {SCHEMA_VERSION}",
        hint="upgrade ftbench; nothing was changed"
        if newer
        else "it lacks figures that this version requires: run it again with another --out",
    )
