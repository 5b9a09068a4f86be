"""Pairs of the user's own, from a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.data.pairs import PairTable

TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def pairs_from_csv(path: str | Path) -> tuple[PairTable, np.ndarray | None]:
    """Read pairs and, where somebody looked, which of them are misaligned.

    Args:
        path: a CSV file with a head line and the columns ``filepath`` (relative paths start at the file's folder),
            ``caption``, ``misaligned`` (1 or 0 in every row, or nothing in any) and, if captions name classes,
            ``label``: the class that the caption names

    Returns:
        the N pairs, all of split "train", and (N,) bool, True where the caption is wrong; None in place of it where
        nobody knows

    Raises:
        ValueError: if the file cannot be read as pairs; says in which line and what to do
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
            columns = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a CSV file: {error}.") from error
    if missing := [column for column in ("filepath", "caption", "misaligned") if column not in columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}.")
    if not rows:
        raise ValueError(f"{path} has no pairs below its head line.")

    files = [path.parent / row["filepath"] for row in rows]
    for line, (file, row) in enumerate(zip(files, rows), start=2):
        if not file.is_file():
            raise ValueError(f"{path}, line {line}: there is no file {file}.")
        if not row["caption"]:
            raise ValueError(f"{path}, line {line}: the caption is empty.")
        if row["misaligned"].lower() not in TRUTH and any(other["misaligned"] for other in rows):
            raise ValueError(
                f"{path}, line {line}: misaligned is '{row['misaligned']}'; write 1 or 0 in every row, or nothing."
            )
        if "label" in columns and not row["label"]:
            raise ValueError(f"{path}, line {line}: the label is empty; fill it in, or leave the column out.")
    class_names = sorted({row["label"] for row in rows}) if "label" in columns else []
    table = PairTable(
        filepaths=[str(file) for file in files],
        captions=[row["caption"] for row in rows],
        labels=np.array([class_names.index(row["label"]) if class_names else -1 for row in rows], dtype=np.int64),
        class_names=class_names,
        split=np.array(["train"] * len(rows)),
        templates=(),
        source=f"the pairs of {path.name}",
    )
    known = any(row["misaligned"] for row in rows)
    return table, np.array([TRUTH[row["misaligned"].lower()] for row in rows]) if known else None
