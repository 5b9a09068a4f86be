"""Wrong captions that nobody planted: the most suspected pairs of Openclipart, for people to look at.

``python -m benchmarks.detection.natural_noise sheets FOLDER`` writes contact sheets, in random order and without a word
about who suspects what, and the list behind them. Two persons, who do not know of each other's verdicts, fill in its
columns ``first`` and ``second``:

- wrong: the caption names something that is not to be seen;
- empty: it says no more than which collection the drawing is from, or of what broad kind;
- right: it names what is to be seen, in whatever language;
- unclear: the person cannot tell.

``python -m benchmarks.detection.natural_noise summary FILE [--picture PNG] [--json FILE]`` sums them up by method, says
how far the two agree, and shows the first suspects. ``… scores FILE`` scores the pairs again and says how well each
score finds what both call empty, or wrong. What came out: docs/detection.md.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from sklearn.metrics import average_precision_score, cohen_kappa_score
from tyro.conf import Positional

from benchmarks.data.pairs import PairTable
from benchmarks.methods.baselines import clip_score
from benchmarks.models.base_models import benchmark_pairs, regime_model
from benchmarks.report.results import write_result
from benchmarks.report.sheet import contact_sheet
from benchmarks.report.statistics import with_error
from benchmarks.report.table import Cell, Table, figure_cell
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core.pairs import embeddings_under
from fiftyone_ecif.detect.pipeline import find_misaligned, vague_texts
from fiftyone_ecif.features import cache_folder

MODULE = "benchmarks.detection.natural_noise"
VERDICTS = ("wrong", "empty", "right", "unclear")
READINGS = ("first", "second")
COLUMNS = ("number", "name", "caption", "method", "rank", *READINGS)
DATA = "openclipart"
SUSPECTS = 100  # of each method
DRAWN = 100  # pairs drawn at random, to know how many captions are wrong anyway
SEED = 0
PER_ROW, PER_SHEET = 6, 30
SUSPECTING = ("misalignment", "clip_score")
SOUGHT = ("empty", "wrong")


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
        file: the list with its columns "first" and "second" filled in
        picture: the first suspects of each method are written to this PNG file
        json: the result is written to this file
    """

    file: Positional[Path]
    picture: Path | None = None
    json: Path | None = None


@dataclass(frozen=True)
class Scores:
    """Measure how well each score finds the captions that both persons call empty, or wrong.

    Args:
        file: the list with its columns "first" and "second" filled in
        json: the result is written to this file
    """

    file: Positional[Path]
    json: Path | None = None


def main() -> None:
    """Write the sheets, sum up what two persons saw, or hold the scores against it."""
    asked: Sheets | Summary | Scores = tyro.cli(Sheets | Summary | Scores, prog=f"python -m {MODULE}")
    if isinstance(asked, Sheets):
        table = benchmark_pairs(DATA, SEED)
        write_sheets(table, ranked_suspects(table), asked.folder)
    elif isinstance(asked, Summary):
        sum_up(asked)
    else:
        rows, scores = read_verdicts(asked.file), scores_by_name(benchmark_pairs(DATA, SEED))
        figures = precision(rows, scores)
        table_of_scores = precision_table(figures, list(scores))
        print(table_of_scores.console())
        settings = {"file": asked.file, "data": DATA, "seed": SEED}
        write_result(asked.json, MODULE, settings, figures, {"precision": table_of_scores})


def sum_up(asked: Summary) -> None:
    """Print what two persons saw, write it, and show the first suspects."""
    rows = read_verdicts(asked.file)
    summary, figures = verdict_table(rows), agreement(rows)
    print(summary.console())
    print(", ".join(f"{name} {figure:.3g}" for name, figure in figures.items()))
    write_result(asked.json, MODULE, {"file": asked.file, "data": DATA, "seed": SEED}, figures, {"verdicts": summary})
    if asked.picture:
        first_suspects(rows).save(asked.picture, optimize=True)


def ranked_suspects(table: PairTable) -> dict[str, list[int]]:
    """The pairs that each method suspects most, the most suspicious first.

    Args:
        table: of :func:`~benchmarks.models.base_models.benchmark_pairs`; its training pairs are scored, by a model
            that was trained on its base pairs

    Returns:
        rows of ``table`` by method: "misalignment" and "clip_score"; and "random" for pairs drawn at random, which say
        how many captions are wrong anyway
    """
    scores, train = scores_of(table), np.flatnonzero(table.split == "train")
    suspects = {method: train[np.argsort(-scores[method])[:SUSPECTS]].tolist() for method in SUSPECTING}
    return suspects | {"random": np.random.default_rng(SEED).choice(train, DRAWN, replace=False).tolist()}


def scores_of(table: PairTable) -> dict[str, np.ndarray]:
    """Scores (N,) of a table's training pairs as ``compute_influence`` goes about it, cross-fitted, and the CLIP score.

    Args:
        table: as for :func:`ranked_suspects`

    Returns:
        "misalignment", "vagueness" and "clip_score", each higher = more suspicious
    """
    model = regime_model(DATA, table, "pretrained", SEED)
    train = table.select(table.split == "train")
    pairs, views = (model.features(train, views) for views in (False, True))
    found, fitted = find_misaligned(pairs, views, model.head, model.loss, Settings(seed=SEED))
    image, text = (part.numpy() for part in embeddings_under(pairs, model.head))
    return {
        "vagueness": vague_texts(views, fitted, SEED),
        "misalignment": np.asarray(found.probability),
        "clip_score": clip_score(image, text),
    }


def scores_by_name(table: PairTable) -> dict[str, dict[str, float]]:
    """The scores of :func:`scores_of` by the name of the image."""
    train = table.select(table.split == "train")
    names = [Path(path).name for path in train.filepaths]
    return {method: dict(zip(names, score.tolist())) for method, score in scores_of(table).items()}


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
                name = Path(table.filepaths[row]).name
                writer.writerow([number_of[row], name, table.captions[row], method, rank, *("" for _ in READINGS)])


def read_verdicts(path: Path) -> list[dict[str, str]]:
    """The rows of a list with its verdicts filled in.

    Raises:
        SystemExit: if a verdict is none of :data:`VERDICTS`
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if unknown := {row[reading] for row in rows for reading in READINGS} - set(VERDICTS):
        raise SystemExit(f"{path}: a verdict is one of {', '.join(VERDICTS)}, not {', '.join(map(repr, unknown))}.")
    return rows


def agreement(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """On how many distinct pairs the two readings agree: the share, and Cohen's kappa, which is 0 by chance."""
    distinct = {row["number"]: [row[reading] for reading in READINGS] for row in rows}
    first, second = zip(*distinct.values(), strict=True)
    agreed = sum(one == other for one, other in distinct.values()) / len(distinct)
    return {"pairs": len(distinct), "agreement": agreed, "kappa": float(cohen_kappa_score(first, second))}


def precision(rows: Sequence[dict[str, str]], scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average precision of each score against what both readings say, of all distinct pairs and of the random ones.

    Args:
        rows: of :func:`read_verdicts`
        scores: by method, then by the name of the image

    Returns:
        ``<pairs>.<verdict>.<method>`` with standard errors by the bootstrap over pairs, and ``….pairs`` and ``….such``
    """
    figures: dict[str, float] = {}
    for pairs in ("all", "random"):
        chosen = {row["name"]: row for row in rows if pairs == "all" or row["method"] == pairs}
        for verdict in SOUGHT:
            such = np.array([all(row[reading] == verdict for reading in READINGS) for row in chosen.values()])
            figures |= {f"{pairs}.{verdict}.pairs": len(such), f"{pairs}.{verdict}.such": int(such.sum())}
            for method, score in scores.items():
                values = np.array([score[name] for name in chosen])
                figures |= with_error(f"{pairs}.{verdict}.{method}", average_precision, such, values)
    return figures


def average_precision(such: np.ndarray, score: np.ndarray, axis: int = -1) -> np.ndarray:
    """Average precision along the last axis; 0 where nothing is such."""
    assert axis == -1
    of_row = [
        average_precision_score(*row) if row[0].any() else 0.0 for row in zip(np.atleast_2d(such), np.atleast_2d(score))
    ]
    return np.array(of_row).reshape(such.shape[:-1])


def precision_table(figures: Mapping[str, float], methods: Sequence[str]) -> Table:
    """A row for each verdict and set of pairs."""
    kept: list[list[Cell]] = []
    for pairs in ("all", "random"):
        for verdict in SOUGHT:
            name = f"{pairs}.{verdict}"
            count, such = figures[f"{name}.pairs"], figures[f"{name}.such"]
            kept.append(
                [verdict, pairs, count, such, *(figure_cell(figures, f"{name}.{method}") for method in methods)]
            )
    return Table.of({"verdict": None, "among": None, "pairs": 0, "such": 0, **dict.fromkeys(methods, 2)}, kept)


def verdict_table(rows: Sequence[dict[str, str]]) -> Table:
    """Each verdict's share of a method's suspects, the mean of both readings, with its standard error over pairs."""
    summed: list[list[Cell]] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        given = [[row[reading] for reading in READINGS] for row in rows if row["method"] == method]
        cells: list[Cell] = []
        for verdict in VERDICTS:
            shares = np.array([both.count(verdict) / len(READINGS) for both in given])
            cells.append([float(shares.mean()), float(shares.std() / len(shares) ** 0.5)])
        summed.append([method, len(given), *cells])
    return Table.of({"method": None, "pairs": 0, **dict.fromkeys(VERDICTS, 2)}, summed)


def first_suspects(rows: Sequence[dict[str, str]]) -> Image.Image:
    """The two rows of pictures that each method suspects most, headed by method, rank and verdicts."""
    folder = cache_folder("openclipart") / "images"
    cells = [
        (
            f"{row['method']} {row['rank']}: {' or '.join(dict.fromkeys(row[reading] for reading in READINGS))}",
            str(folder / row["name"]),
            row["caption"],
        )
        for row in rows
        if int(row["rank"]) <= 2 * PER_ROW
    ]
    return contact_sheet(cells, PER_ROW)


if __name__ == "__main__":
    main()
