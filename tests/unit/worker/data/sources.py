"""Data sources of files, for the tests of how they are read."""

from pathlib import Path

from ftbench.plan.profile import Workload
from ftbench.plan.sources import DataSource, resolve_data
from ftbench.worker.data.pools import Pools, load_pools


def source(dataset: object, **changes: object) -> DataSource:
    """Return the source of a data set, with its revision."""
    fields = {"model": "m", "dataset": str(dataset), "eval_size": 2}
    return resolve_data(Workload(**(fields | changes)))


def pools_of(dataset: object, **changes: object) -> Pools:
    """Return the pools of a data set."""
    return load_pools(source(dataset, **changes))


def examples_of(pools: Pools) -> dict[str, str]:
    """Return the name of each text's class, over both pools."""
    return {
        row["text"]: pools.labels[row["labels"]]
        for pool in (pools.train, pools.evaluation)
        for row in pool
    }


def csv_text(labels: list[object], text: str = "text {}", separator: str = ",") -> str:
    """Return a CSV file with these labels."""
    rows = [f"{text.format(n)}{separator}{label}" for n, label in enumerate(labels)]
    return "\n".join([f"text{separator}label", *rows, ""])


def written(path: Path, content: str | bytes) -> Path:
    """Return a file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
