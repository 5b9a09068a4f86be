"""Are recurring errors found as slices? Errors of five kinds are planted in sets of pairs, and looked for.

``python -m benchmarks.detection.slices --data openclipart emoji --seeds 1 --sets 20``. What came out is in
docs/detection.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.noise import swap_captions
from benchmarks.data.pairs import PairTable
from benchmarks.data.systematic import ERROR_KINDS, ErrorKind, Planted, plant_errors
from benchmarks.detection.cell import in_memory
from benchmarks.models.base_models import benchmark_pairs, regime_model
from benchmarks.report.command import ask
from benchmarks.report.results import write_json, write_result
from benchmarks.report.table import Table
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import embeddings_under
from fiftyone_ecif.detect.error_slices import FoundSlice, JudgedPairs, find_error_slices
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.features import cache_folder

MODULE = "benchmarks.detection.slices"
SIZES = (20, 40, 80)
"""Pairs of an error, one drawn for each."""

MOST_ERRORS = 3
"""Errors of a set: one, two or three in turn."""

REPORTED = 10
"""Slices that count, the first ones."""

LEAST_F1 = 0.5
"""Agreement of a slice with a planted error from which it has been found."""

WITHOUT_SYSTEM = {"nothing planted": 0.0, "5% random swaps": 0.05, "20% random swaps": 0.2}
"""Sets without a recurring error, by the share of captions that change places at random."""


@dataclass(frozen=True)
class Slices:
    """Measure how many planted recurring errors are found as slices, and what else is reported.

    Args:
        data: data sets with captions and categories
        seeds: of the data and of the model that scores it
        sets: of each data set and seed
        folder: the figures of each set lie in a file here; in the cache by default
        json: the result is written to this file
    """

    data: tuple[Literal["openclipart", "emoji"], ...] = ("openclipart", "emoji")
    seeds: tuple[int, ...] = (1,)
    sets: int = 20
    folder: Path | None = None
    json: Path | None = None


class Source:
    """The clean pairs of one data set and seed, with a model that has not seen them."""

    def __init__(self, data: str, seed: int) -> None:
        table = benchmark_pairs(data, seed, progress=False)
        self.model = regime_model(data, table, "pretrained", seed, progress=False)
        self.table: PairTable = table.select(table.split == "train")
        self.image = self.model.features(self.table).image
        self.known: dict[str, Tensor] = {}

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(N, F_text); each text goes through the tower once."""
        if new := sorted(set(texts) - self.known.keys()):
            self.known |= dict(zip(new, self.model.text_features(new).float(), strict=True))
        return torch.stack([self.known[text] for text in texts])

    def embed(self, texts: list[str]) -> Tensor:
        """Unit vectors (N, D) of texts."""
        features = self.text_features(texts)
        head = self.model.head
        return head.linearize(torch.zeros(len(features), head.image_weight.shape[1]), features).text

    def slices(self, table: PairTable, seed: int) -> list[FoundSlice]:
        """The slices among pairs with these captions and files."""
        pairs, head = in_memory(self.image, self.text_features(table.captions)), self.model.head
        found, _ = find_misaligned(pairs, None, head, self.model.loss, Settings(seed=seed))
        image, text = embeddings_under(pairs, head)
        scale = head.logit_scale.exp().item()
        judged = JudgedPairs(
            found.probability, image, text, scale, table.captions, table.filepaths, embed=self.embed
        )  # fmt: skip
        return find_error_slices(judged, most=REPORTED)


def main() -> None:
    """Measure the sets that are not measured yet, and print and write what all of them give."""
    asked = ask(Slices, MODULE)
    folder = asked.folder or cache_folder("slices-results")
    folder.mkdir(parents=True, exist_ok=True)
    measured = [each for data in asked.data for seed in asked.seeds for each in measure(data, seed, asked.sets, folder)]
    figures, tables = summed_up(measured)
    for table in tables.values():
        print(f"\n{table.console()}")
    write_result(asked.json, MODULE, vars(asked), figures, tables)


def measure(data: str, seed: int, sets: int, folder: Path) -> list[dict[str, Any]]:
    """The figures of each set of one data set and seed, those without a recurring error last."""
    names = [f"{data}-seed{seed}-{number}" for number in [*range(sets), *WITHOUT_SYSTEM]]
    paths = [folder / f"{name}.json" for name in names]
    source = None if all(path.exists() for path in paths) else Source(data, seed)
    for number, path in enumerate(paths):
        if source is None or path.exists():
            continue
        if number < sets:
            planted = plant_errors(source.table, source.table.categories, plan(number), 1_000 * seed + number)
        else:
            planted = without_system(source.table, list(WITHOUT_SYSTEM.values())[number - sets], seed)
        found = source.slices(planted.table, seed)
        name = None if number < sets else list(WITHOUT_SYSTEM)[number - sets]
        write_json(path, {"data": data, "without": name} | figures_of(planted, found))
        print(path.stem, json.dumps(json.loads(path.read_text())), flush=True)
    return [json.loads(path.read_text()) for path in paths]


def plan(number: int) -> list[tuple[ErrorKind, int]]:
    """Kind and size of the errors of a set; over the sets, all kinds are as frequent."""
    generator = np.random.default_rng(number)
    count = 1 + number % MOST_ERRORS
    kinds = [ERROR_KINDS[(number + 2 * place) % len(ERROR_KINDS)] for place in range(count)]
    return [(kind, int(generator.choice(SIZES))) for kind in kinds]


def without_system(table: PairTable, rate: float, seed: int) -> Planted:
    """The pairs with random swaps alone."""
    captions, wrong = swap_captions(table, rate, seed)
    return Planted(table.with_captions(captions), [], np.flatnonzero(wrong))


def figures_of(planted: Planted, found: Sequence[FoundSlice]) -> dict[str, Any]:
    """How well each error was found, and what the other slices hold."""
    wrong = np.concatenate([planted.random, *(rows for _, rows in planted.errors)])
    errors, used = [], set()
    for kind, rows in planted.errors:
        agreement = [f1(each.rows, rows) for each in found]
        best = int(np.argmax(agreement)) if agreement else None
        entry: dict[str, Any] = {"kind": kind, "size": len(rows), "f1": 0.0, "precision": 0.0}
        if best is not None and agreement[best] > 0:
            precision = share_of(found[best].rows, rows)
            entry |= {"f1": agreement[best], "precision": precision, "rank": best + 1, "slice": found[best].name}
            if agreement[best] >= LEAST_F1:
                used.add(best)
        errors.append(entry)
    others = [
        {"kind": each.kind, "name": each.name, "pairs": len(each.rows), "wrong": share_of(each.rows, wrong)}
        for place, each in enumerate(found)
        if place not in used
    ]
    return {"errors": errors, "others": others}


def share_of(rows: np.ndarray, others: np.ndarray) -> float:
    """Share of some rows that are among others."""
    return float(np.isin(rows, others).mean())


def f1(slice_rows: np.ndarray, planted: np.ndarray) -> float:
    """Harmonic mean of precision and recall of a slice's pairs."""
    return 2 * len(np.intersect1d(slice_rows, planted)) / (len(slice_rows) + len(planted))


def summed_up(measured: Sequence[dict[str, Any]]) -> tuple[dict[str, float], dict[str, Table]]:
    """Figures over all sets, and tables by kind of error and by data."""
    planted = [each for each in measured if each["without"] is None]
    errors = [dict(error, data=each["data"]) for each in planted for error in each["errors"]]
    complete = [all(error["f1"] >= LEAST_F1 for error in each["errors"]) for each in planted]
    some = [any(error["f1"] >= LEAST_F1 for error in each["errors"]) for each in planted]
    others = [[other["wrong"] < 0.5 for other in each["others"]] for each in planted]
    figures = {
        "sets": len(planted),
        "errors": len(errors),
        "found": float(np.mean([error["f1"] >= LEAST_F1 for error in errors])),
        "found_precision_60": float(np.mean([error["precision"] >= 0.6 for error in errors])),
        "sets_complete": float(np.mean(complete)),
        "sets_some": float(np.mean(some)),
        "other_slices_per_set": float(np.mean([sum(each) for each in others])),
    }
    data = list(dict.fromkeys(each["data"] for each in measured))
    rows: list[list[Any]] = []
    for kind in [*ERROR_KINDS, "all"]:
        chosen = [error for error in errors if kind in (error["kind"], "all")]
        cells = [[error["f1"] >= LEAST_F1 for error in chosen if error["data"] == name] for name in data]
        every = [hit for cell in cells for hit in cell]
        rows.append([kind, len(every), *(float(np.mean(cell)) if cell else None for cell in [*cells, every])])
    columns = {"planted": None, "errors": 0, **dict.fromkeys([*data, "all"], 2)}
    nothing = [
        [each["data"], each["without"], len(each["others"]), "; ".join(other["name"] for other in each["others"])]
        for each in measured if each["without"]
    ]  # fmt: skip
    without = Table.of({"data": None, "planted": None, "slices": 0, "which": None}, nothing)
    return figures, {"found": Table.of(columns, rows), "without": without}


if __name__ == "__main__":
    main()
