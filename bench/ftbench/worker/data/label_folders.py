"""Label folders: a folder of text files for each label, as in aclImdb (`train/pos/0_9.txt`)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from ftbench.worker.data.columns import FILE, ROW
from ftbench.worker.data.content import Reading, read_text

_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
# Texts without a label (aclImdb's `unsup`).
_UNLABELLED = ("unsup", "unlabeled", "unlabelled")


@dataclasses.dataclass(frozen=True)
class LabelFolders:
    """A split of text files, each with the name of its folder as its label."""

    columns: ClassVar[tuple[str, str]] = ("text", "label")
    files: Sequence[Path]

    def read(self, columns: Mapping[str, str], reading: Reading) -> pa.Table:
        """Return the texts and their labels, sorted by label and name; each file is row 1 of itself."""
        texts = [read_text(file, reading) for file in self.files]
        values = {"text": texts, "label": [file.parent.name for file in self.files]}
        table = pa.table({name: pa.array(values[name], pa.string()) for name in columns})
        names = [f"{file.parent.name}/{file.name}" for file in self.files]
        rows = pa.repeat(pa.scalar(1, pa.int64()), len(names))
        return table.append_column(ROW, rows).append_column(FILE, pa.array(names))

    def names(self, column: str) -> list[str] | None:
        """Return None: the names of the folders are the labels."""
        return None


def label_folders(
    root: Path, files: Sequence[Path], only: str, reading: Reading
) -> dict[str, LabelFolders]:
    """Return the splits of a directory of label folders; none if it is something else.

    Each text is in LABEL/ or in SPLIT/LABEL/, and there are at least two labels. Files beside these folders (a
    README, a list of words) are left alone.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        folders = file.relative_to(root).parts[:-1]
        if not folders or any(folder.startswith(".") for folder in folders):
            continue
        if file.suffix.lower() != ".txt":
            if len(folders) == 1 and folders[0].lower() in _SPLITS:
                continue  # train/labeledBow.feat
            return {}
        *above, label = folders
        if label.lower() in _UNLABELLED:
            left_out["/".join(folders)] += 1
            continue
        if len(above) > 1 or (above and above[0].lower() not in _SPLITS):
            return {}
        if not above and label.lower() in _SPLITS:
            continue  # train/urls_pos.txt
        split = _SPLITS[above[0].lower()] if above else only
        found.setdefault(split, {}).setdefault(label, []).append(file)
    if not any(len(labels) > 1 for labels in found.values()):
        return {}
    for folder, count in left_out.items():
        reading.note(f"{folder}/: its {count:,} texts have no label, and are left out")
    return {
        split: LabelFolders([file for _, texts in sorted(labels.items()) for file in texts])
        for split, labels in found.items()
    }
