"""Finding the splits of a data set: the files of each, or the tables that the library datasets has of the hub's.

Files are read by ftbench itself, never through the caches of the library datasets: those are keyed by a file's name
and time, and a cell is named by its content. The library is asked only which files of a directory belong to which
split.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import load_dataset_builder

from ftbench.base.errors import HubUnreachable, WorkloadError, nearest_name
from ftbench.plan.content import hashed_files
from ftbench.plan.sources import DATA_SUFFIXES, DataSource, is_data_file
from ftbench.worker.data.arrow_files import names_in
from ftbench.worker.data.columns import require_column
from ftbench.worker.data.content import WHERE, Reading
from ftbench.worker.data.label_folders import LabelFolders, label_folders
from ftbench.worker.data.saved_splits import saved_splits, within
from ftbench.worker.data.splits import TEXT, UNTYPED, FileSplit, HubSplit, Split, kind_of
from ftbench.worker.tasks.tasks import task_of

# The split of data that has no splits.
_ONLY = "train"
# Keys of a configuration in README.md that say which files are read, or that ftbench has settings for.
_FILE_KEYS = {"config_name", "data_files", "data_dir", "default", "description", "version"}
_SEPARATOR_KEYS = ("sep", "delimiter")


def find_splits(source: DataSource, reading: Reading) -> Mapping[str, Split]:
    """Return the splits of a data set by name; raises WorkloadError if there are none that can be read."""
    splits = _find_splits(source, reading)
    _refuse_settings(source, {kind_of(f) for split in splits.values() for f in split.files})
    return splits


def _find_splits(source: DataSource, reading: Reading) -> Mapping[str, Split]:
    if source.source.kind == "synthetic":
        raise WorkloadError(
            "there are no texts to train on: this stands for a data set in predictions only",
            where=WHERE,
            got=source.source.reference,
            expected="a hub id, a directory or files",
        )
    if source.source.kind == "hub":
        return _hub_splits(source)
    path = Path(source.source.location)
    _, files = hashed_files(path, WHERE)
    if not path.is_dir():
        return {_ONLY: FileSplit(files)}
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        _refuse_config(source, "a data set saved by the library datasets")
        return saved_splits(path, files, source.train_split)
    folders = label_folders(path, files, _ONLY, reading)
    if folders:
        _refuse_config(source, "a folder of texts for each label")
        _require_label_folder_columns(source, folders)
        return folders
    return _directory_splits(path, files, source, reading)


def _refuse_settings(source: DataSource, kinds: set[str]) -> None:
    """Raise WorkloadError for a setting that means nothing for files of these kinds."""
    settings = {
        "separator": (source.separator, UNTYPED, "CSV"),
        "encoding": (source.encoding, TEXT, "CSV, JSON and text"),
    }
    for name, (value, of, words) in settings.items():
        if value is not None and not kinds & set(of):
            raise WorkloadError(
                f"only {words} files have it, and this data set has none",
                where=f"workload.{name}",
                got=repr(value),
            )


def _require_label_folder_columns(source: DataSource, folders: Mapping[str, LabelFolders]) -> None:
    """Raise WorkloadError if the profile names other columns than label folders have."""
    for column in task_of(source).columns.values():
        setting = f"workload.{column.setting}"
        require_column(
            column.name, setting, LabelFolders.columns, "a folder of texts for each label"
        )


def _refuse_config(source: DataSource, kind: str) -> None:
    if source.config is not None:
        raise WorkloadError(
            f"{kind} has no configurations",
            where="workload.dataset_config",
            got=source.config,
            expected="a hub data set, or a directory with a copy of one",
        )


def _hub_splits(source: DataSource) -> dict[str, Split]:
    """Return the splits of a hub data set at the commit of its source."""
    location, revision = source.source.location, source.source.revision
    try:
        builder = load_dataset_builder(location, source.config, revision=revision)
        # Offline, the library takes the newest of the versions in its cache, whichever was asked for.
        held = getattr(builder, "hash", None) if type(builder).__name__ == "Cache" else revision
        if held != revision:
            raise HubUnreachable(
                "the hub cannot be reached, and the local cache holds another revision of the data set",
                where=WHERE,
                got=f"{location} at {held}",
                expected=f"at {revision}",
                hint="load it once with a network, or name the revision in dataset_revision",
            )
        builder.download_and_prepare()
        loaded = builder.as_dataset()
    except WorkloadError:
        raise
    except OSError as error:  # no network: a ConnectionError, or a FileNotFoundError for what is not in the cache
        raise HubUnreachable(
            f"the data set cannot be loaded: {error}", where=WHERE, got=source.source.reference
        ) from error
    except Exception as error:  # datasets raises its own, pyarrow's, ValueError, ...
        raise _cannot_be_loaded(error, source.source.reference) from error
    return {name: HubSplit(rows, f"split {name}") for name, rows in loaded.items()}


def _cannot_be_loaded(error: BaseException, reference: str) -> WorkloadError:
    """Return the error for a data set that the library datasets rejects, with the cause that it names, if any."""
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return WorkloadError(
        f"the data set cannot be loaded: {error}{cause}", where=WHERE, got=reference
    )


def _directory_splits(
    path: Path, files: Sequence[Path], source: DataSource, reading: Reading
) -> dict[str, Split]:
    """Return the splits of a directory as the library datasets finds them: by README.md, or by names."""
    configs = _configs(path)
    if source.config is not None and source.config not in configs:
        known = sorted(configs)
        raise WorkloadError(
            "no such configuration"
            if known
            else "README.md in this directory has no configurations",
            where="workload.dataset_config",
            got=source.config,
            expected=f"one of {', '.join(known)}" if known else None,
            nearest=nearest_name(source.config, known),
        )
    try:
        with tempfile.TemporaryDirectory() as unused:  # the library writes its lock files there
            builder = load_dataset_builder(str(path), source.config, cache_dir=unused)
    except Exception as error:  # datasets raises its own, OSError, ValueError, yaml's, ...
        if source.config is None and len(configs) > 1:
            raise WorkloadError(
                "the directory has several configurations",
                where="workload.dataset_config",
                expected=f"one of {', '.join(sorted(configs))}",
            ) from error
        raise _no_splits(error, path, files) from error
    _take_options(configs.get(builder.config.name, {}), reading)
    named = {
        str(split): within(list(found), path, files)
        for split, found in (builder.config.data_files or {}).items()
    }
    features = builder.info.features
    described = names_in(json.loads(json.dumps(features.to_dict()))) if features else {}
    return {name: FileSplit(found, described) for name, found in named.items()}


def _configs(path: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations that README.md of a directory has, by name."""
    readme = path / "README.md"
    if not readme.is_file():
        return {}
    try:
        card = datasets.load.DatasetCard.load(readme).data
        return dict(datasets.utils.metadata.MetadataConfigs.from_dataset_card_data(card))
    except Exception as error:  # whatever a YAML reader finds
        raise WorkloadError(
            f"its header is not a description of a data set: {error}", where=str(readme)
        ) from error


def _take_options(config: Mapping[str, Any], reading: Reading) -> None:
    """Take the separator and the encoding of a configuration; raises WorkloadError for any other option."""
    unknown = sorted(config.keys() - _FILE_KEYS - {*_SEPARATOR_KEYS, "encoding"})
    for key in (*_SEPARATOR_KEYS, "encoding"):
        value = config.get(key)
        if value is not None and not (
            isinstance(value, str) and (key == "encoding" or len(value) == 1)
        ):
            unknown.append(key)
        elif key == "encoding":
            reading.encoding = reading.encoding or value
        else:
            reading.separator = reading.separator or value
    if unknown:
        raise WorkloadError(
            "README.md sets options of the library datasets that ftbench does not have",
            where=WHERE,
            got=", ".join(f"{name}: {config[name]!r}" for name in unknown),
            hint="write the data as plain CSV, JSON Lines or Parquet files",
        )


def _no_splits(error: Exception, path: Path, files: Sequence[Path]) -> WorkloadError:
    """Return the error for a directory in which the library datasets finds no splits."""
    if any(is_data_file(file) for file in files):
        return _cannot_be_loaded(error, str(path))
    names = ", ".join(file.name for file in files[:5])
    return WorkloadError(
        "a directory without data files",
        where=WHERE,
        got=f"{path}: {names}{', ...' if len(files) > 5 else ''}",
        expected=f"files ending in {', '.join(DATA_SUFFIXES)}, a saved data set, or a folder of texts per label",
    )
