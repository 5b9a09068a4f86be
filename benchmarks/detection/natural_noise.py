"""Wrong captions that nobody planted: the most suspected pairs of Openclipart, for people to look at.

``python -m benchmarks.detection.natural_noise sheets FOLDER`` writes contact sheets, in random order and without a word
about who suspects what, and the list behind them. A person fills in the list's column ``verdict``:

- wrong: the caption names something that is not to be seen;
- empty: it says no more than which collection the drawing is from, or of what broad kind;
- right: it names what is to be seen, in whatever language;
- unclear: the person cannot tell.

``python -m benchmarks.detection.natural_noise summary FILE [--picture PNG] [--json FILE]`` sums them up by method and
shows the first suspects. What came out: docs/detection.md.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional

from benchmarks.data.pairs import PairTable
from benchmarks.methods.baselines import clip_score
from benchmarks.models.base_models import benchmark_pairs, regime_model
from benchmarks.report.results import write_result
from benchmarks.report.sheet import contact_sheet
from benchmarks.report.table import Cell, Table
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core.pairs import embeddings_under
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.features import cache_folder

MODULE = "benchmarks.detection.natural_noise"
VERDICTS = ("wrong", "empty", "right", "unclear")
COLUMNS = ("number", "name", "caption", "method", "rank", "verdict")
DATA = "openclipart"
SUSPECTS = 100  # of each method
DRAWN = 60  # pairs drawn at random, to know how many captions are wrong anyway
SEED = 0
PER_ROW, PER_SHEET = 6, 30


@dataclass(frozen=True)
class Sheets:
    """Write contact sheets of the suspects, and the list behind them.

    Args:
        folder: where they are written
    """

    folder: Positional[Path]


@dataclass(frozen=True)
class Summary:
    """Sum up the verdicts of a list by method.

    Args:
        file: the list with its column "verdict" filled in
        picture: the first suspects of each method are written to this PNG file
        json: the result is written to this file
    """

    file: Positional[Path]
    picture: Path | None = None
    json: Path | None = None


def main() -> None:
    """Write the sheets, or sum up what a person saw."""
    asked: Sheets | Summary = tyro.cli(Sheets | Summary, prog=f"python -m {MODULE}")
    if isinstance(asked, Sheets):
        table = benchmark_pairs(DATA, SEED)
        write_sheets(table, ranked_suspects(table), asked.folder)
        return
    summary = verdict_table(asked.file)
    print(summary.console())
    write_result(asked.json, MODULE, {"file": asked.file, "data": DATA, "seed": SEED}, {}, {"verdicts": summary})
    if asked.picture:
        first_suspects(asked.file).save(asked.picture, optimize=True)


def ranked_suspects(table: PairTable) -> dict[str, list[int]]:
    """The pairs that each method suspects most, the most suspicious first.

    Args:
        table: of :func:`~benchmarks.models.base_models.benchmark_pairs`; its training pairs are scored, by a model
            that was trained on its base pairs

    Returns:
        rows of ``table`` by method: "misalignment" (as ``compute_influence`` goes about it, cross-fitted) and
        "clip_score"; and "random" for pairs drawn at random, which say how many captions are wrong anyway
    """
    model = regime_model(DATA, table, "pretrained", SEED)
    train = np.flatnonzero(table.split == "train")
    pairs, views = (model.features(table.select(train), views) for views in (False, True))
    head = model.head
    image, text = (part.numpy() for part in embeddings_under(pairs, head))
    scores = {
        "misalignment": find_misaligned(pairs, views, head, model.loss, Settings(seed=SEED))[0].probability,
        "clip_score": clip_score(image, text),
    }
    suspects = {method: train[np.argsort(-np.asarray(score))[:SUSPECTS]].tolist() for method, score in scores.items()}
    return suspects | {"random": np.random.default_rng(SEED).choice(train, DRAWN, replace=False).tolist()}


def write_sheets(table: PairTable, suspects: dict[str, list[int]], folder: Path) -> None:
    """Write contact sheets of all suspects in random order, and the list with an empty verdict for each.

    Args:
        table: the pairs
        suspects: rows by method, the most suspicious first
        folder: for ``sheet-00.png``, … and ``suspects.csv``
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(SEED).permutation(sorted({row for chosen in suspects.values() for row in chosen}))
    for start in range(0, len(rows), PER_SHEET):
        shown = rows[start : start + PER_SHEET]
        cells = [(f"{start + place}", table.filepaths[row], table.captions[row]) for place, row in enumerate(shown)]
        contact_sheet(cells, PER_ROW).save(folder / f"sheet-{start // PER_SHEET:02d}.png")
    number_of = {row: number for number, row in enumerate(rows.tolist())}
    with open(folder / "suspects.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for method, chosen in suspects.items():
            for rank, row in enumerate(chosen, start=1):
                writer.writerow(
                    [number_of[row], Path(table.filepaths[row]).name, table.captions[row], method, rank, ""]
                )


def verdict_table(path: Path) -> Table:
    """Each verdict's share of a method's suspects, with its standard error.

    Args:
        path: the list with its verdicts filled in

    Raises:
        SystemExit: if a verdict is none of :data:`VERDICTS`
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if unknown := {row["verdict"] for row in rows} - set(VERDICTS):
        raise SystemExit(f"{path}: a verdict is one of {', '.join(VERDICTS)}, not {', '.join(map(repr, unknown))}.")
    summed: list[list[Cell]] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        verdicts = Counter(row["verdict"] for row in rows if row["method"] == method)
        total = verdicts.total()
        shares = [verdicts[verdict] / total for verdict in VERDICTS]
        summed.append([method, total, *([share, (share * (1 - share) / total) ** 0.5] for share in shares)])
    return Table.of({"method": None, "pairs": 0, **dict.fromkeys(VERDICTS, 2)}, summed)


def first_suspects(path: Path) -> Image.Image:
    """The two rows of pictures that each method suspects most, headed by method, rank and verdict.

    Args:
        path: the list with its verdicts filled in
    """
    folder = cache_folder("openclipart") / "images"
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["rank"]) <= 2 * PER_ROW]
    cells = [
        (f"{row['method']} {row['rank']}: {row['verdict']}", str(folder / row["name"]), row["caption"]) for row in rows
    ]
    return contact_sheet(cells, PER_ROW)


if __name__ == "__main__":
    main()
