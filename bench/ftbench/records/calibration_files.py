"""Files of calibrations: `calibration/<device>.json`, each with a schema version and its own checksum."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from ftbench.base.errors import DamagedFile
from ftbench.base.files import (
    MAX_JSON_BYTES,
    checksum,
    load_json,
    unwritable,
    validated,
    write_atomically,
)
from ftbench.records.calibration import SCHEMA, Calibration

FOLDER = Path("calibration")
_AGAIN = "calibrate again: `ftbench calibrate`"


def file_name(calibration: Calibration) -> str:
    """Return the name of a calibration's file: the device's, in lower case."""
    return re.sub(r"[^a-z0-9]+", "-", calibration.device.name.lower()).strip("-") + ".json"


def make_folder(folder: Path) -> None:
    """Make the folder of calibrations; raises RunDirectoryError if no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write a calibration into a folder, whole or not at all, and return its file. Raises RunDirectoryError."""
    make_folder(folder)
    file = folder / file_name(calibration)
    data = calibration.model_dump(mode="json")
    write_atomically(file, json.dumps({"sha256": checksum(data), **data}, indent=1) + "\n")
    return file


def read_calibration(file: Path) -> Calibration:
    """Return the calibration in a file; raises DamagedFile if it is none, was changed, or is of another schema."""
    data = load_json(file)
    if isinstance(data, dict):
        version = data.get("schema_version")
        if version != SCHEMA:
            raise DamagedFile(
                "not a calibration that this version reads",
                where=str(file),
                got=f"schema version {version}",
                expected=str(SCHEMA),
                hint=_AGAIN,
            )
        if data.pop("sha256", None) != checksum(data):
            raise DamagedFile(
                "does not match its own checksum: it was changed after it was written",
                where=str(file),
                hint=_AGAIN,
            )
    return validated(data, file, Calibration)


def read_calibrations(folder: Path) -> tuple[Calibration, ...]:
    """Return all calibrations in a folder, by file name; none if there is no such folder. Raises DamagedFile.

    Other JSON files are left out: a folder of this name may be a project's own.
    """
    files = sorted(folder.glob("*.json"))
    return tuple(read_calibration(file) for file in files if _is_ours(file))


def _is_ours(file: Path) -> bool:
    """Return whether a file says that it is a calibration, be it damaged or of another schema."""
    if not file.is_file() or file.stat().st_size > MAX_JSON_BYTES:
        return False
    text = file.read_bytes()
    return b'"schema_version"' in text and b'"sha256"' in text
