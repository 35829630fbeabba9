"""Run directory: one atomic file a record, and beside it what the records refer to.

RUN_DIR/
  profile.json          the profile as resolved by the run that wrote here last
  environments/ID.json  packages, hardware, driver, git commit
  preparation.json      pool sizes, FLOPs, matmul peak
  records/NAME.json     one record a run of a cell: CELL-rN, or CELL-rN-tM for a repeat
  steps/NAME.parquet    one row a step; NAME.K of a later attempt
  samples/NAME.parquet  one row a sample of memory
  logs/NAME.log         what the worker printed
  logs/NAME/            what TensorBoard or W&B wrote of it; logs/mlflow.db, logs/trackio/ of all
  tries/NAME.json       one try of `ftbench frontier` a file
  superseded/NAME.K.json  the record of an earlier attempt, failed or noisy
  damaged/              records that could not be read, moved out of the way
  checkpoints/          only those that were asked to stay
  report.md, report.html, cells.csv, figures/  the report

All of it is data: nothing in it is unpickled or run, no link in it is followed, and a record that
does not match its own checksum is not believed.
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
from ftbench.records.messages import Preparation
from ftbench.records.migration import OLDEST, migrated
from ftbench.records.record import SCHEMA_VERSION, Environment, Record

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
# Kept free for the record of the cell that is running when the disk fills up.
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
        self._made = made  # by this process, just now
        self._read: dict[Path, tuple[tuple[int, ...], Record]] = {}

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Return the run directory, made where it is not there; raises RunDirectoryError."""
        made = not path.exists()
        for name in FOLDERS:
            try:
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
        """Return an existing run directory; raises RunDirectoryError where there is none."""
        if not (path / "records").is_dir():
            raise RunDirectoryError(
                "not a run directory",
                where=str(path),
                expected="a folder with records/, as `ftbench run` writes it",
            )
        _require_no_links(path)
        return cls(path)

    def discard(self) -> None:
        """Remove the directory again if this process made it and no record is in it."""
        if self._made and not any((self.path / "records").iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one parent; raises RunDirectoryError where another has it.

        While it is held, a little disk space is kept back for a record (see `write_record`).
        """
        try:
            descriptor = os.open(
                self.path / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644
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
        """Write a record with its checksum, whole or not at all; the one it replaces is kept aside.

        Where the disk is full the space kept back is used: what a cell has measured is not lost.
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

    def write_try(self, one: BatchProbe) -> None:
        """Write a try of the frontier with its checksum."""
        write_atomically(self.file("tries", one.name, ".json"), _sealed(one))

    def tries(self) -> list[BatchProbe]:
        """Return the tries of the frontier that can be read; one that cannot is made again."""
        found = []
        for file in sorted((self.path / "tries").glob("*.json")):
            with contextlib.suppress(DamagedFile):
                found.append(_unsealed(file, BatchProbe))
        return found

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
        return read_json(self.path / "profile.json", Profile)

    def write_preparation(self, preparation: Preparation) -> None:
        """Write what the prepare stage found."""
        write_atomically(
            self.path / "preparation.json", preparation.model_dump_json(indent=1) + "\n"
        )

    def read_preparation(self) -> Preparation:
        """Return what the prepare stage found."""
        return read_json(self.path / "preparation.json", Preparation)

    def describes_itself(self) -> bool:
        """Return whether the files that say what was run here are there and can be read."""
        try:
            self.read_profile()
            self.read_preparation()
        except DamagedFile:
            return False
        return True

    def records(self) -> list[Record]:
        """Return all records, by name; raises RunDirectoryError for the first unreadable one."""
        return [self._record(file) for file in self._record_files()]

    def survey(self) -> tuple[list[Record], list[Damaged]]:
        """Return the records that can be read, and the files that cannot.

        Raises RunDirectoryError for a record of another schema: that is no damage.
        """
        records, damaged = [], []
        for file in self._record_files():
            try:
                records.append(self._record(file))
            except DamagedFile as error:
                damaged.append(Damaged(file, error.what))
        return records, damaged

    def set_aside(self, damaged: Damaged) -> Path:
        """Move a damaged record out of the way, so that its cell is run again; return where it is."""
        target = self.path / "damaged" / damaged.file.name
        number = 0
        while target.exists() or target.is_symlink():
            number += 1
            target = target.with_name(f"{damaged.file.name}.{number}")
        damaged.file.rename(target)
        return target

    def _record(self, file: Path) -> Record:
        """Return the record in a file, as it was read before if the file is still the same."""
        known = self._read.get(file)
        if known is not None and known[0] == _signature(file):
            return known[1]
        signature = _signature(file)  # before reading: a change in between is seen the next time
        record = _read_record(file)
        self._read[file] = (signature, record)
        return record

    def _record_files(self) -> list[Path]:
        return sorted((self.path / "records").glob("*.json"))

    def environments(self) -> dict[str, Environment]:
        """Return the environments by id; raises RunDirectoryError where one is not what its id says."""
        found = {}
        for file in sorted((self.path / "environments").glob("*.json")):
            environment = read_json(file, Environment)
            if environment.environment_id != file.stem:
                raise DamagedFile(
                    "changed after it was written",
                    where=str(file),
                    got=f"an environment with the id {environment.environment_id}",
                    hint="its records cannot be compared with others: run them again",
                )
            found[file.stem] = environment
        return found

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

    @property
    def _reserve(self) -> Path:
        return self.path / "reserve"

    def _keep_reserve(self) -> None:
        """Take the space for one more record; raises RunDirectoryError where there is not even that."""
        self._reserve.unlink(missing_ok=True)
        try:
            with self._reserve.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise unwritable(self.path, error) from error

    def _clear_halves(self) -> None:
        """Remove the unfinished files of a writer that was killed; whoever holds the lock is alone."""
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            for half in folder.glob(".*.json.*"):
                half.unlink(missing_ok=True)


def _require_no_links(path: Path) -> None:
    """Raise RunDirectoryError where a folder of the run directory leads out of it."""
    for name in FOLDERS:
        if (path / name).is_symlink():
            raise RunDirectoryError(
                "a link in the place of a folder",
                where=str(path / name),
                expected="a folder inside the run directory",
                hint="link the run directory as a whole, not its parts",
            )


def _signature(file: Path) -> tuple[int, ...]:
    """Return what changes if a file is written again or another takes its place; empty if it is gone."""
    try:
        found = file.lstat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read_record(file: Path) -> Record:
    """Return a record that has its name and its checksum: a copy would count twice."""
    record = _unsealed(file, Record)
    if file.stem != record.identity.name:
        raise DamagedFile(
            "not the file of its record",
            where=str(file),
            expected=f"{record.identity.name}.json",
            hint=MOVE_AWAY,
        )
    return record


def _sealed(model: BaseModel) -> str:
    """Return a model as JSON text that carries its own checksum."""
    data = model.model_dump(mode="json")
    return json.dumps({"sha256": checksum(data), **data}, indent=1) + "\n"


def _unsealed(file: Path, model: type[Model]) -> Model:
    """Return what a sealed file holds; raises DamagedFile where its checksum does not fit."""
    data = load_json(file)
    if isinstance(data, dict):
        sealed = data.pop("sha256", None)
        if sealed in (None, checksum(data)):  # whole, so its version is what it says
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
    """Return data as this schema has it; raises DamagedFile if an older record is not what it says."""
    try:
        return migrated(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            f"not a {model.__name__.lower()} of schema {data.get('schema_version')}: {error!r}",
            where=str(file),
            hint=MOVE_AWAY,
        ) from error


def _require_this_schema(version: Any, file: Path) -> None:
    """Raise RunDirectoryError for a whole record that another ftbench wrote."""
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
        else "its figures lack what this version asks of them: run it again with another --out",
    )
