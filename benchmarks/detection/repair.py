"""Does it help? Training again without what each method suspects, and the model's accuracy on held-out pairs.

Run it with ``python -m benchmarks.detection.repair --help``. What it measured: docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.data.noise import PlantedKind
from benchmarks.data.pairs import PairTable
from benchmarks.detection.cell_data import CellSettings, classes_of, make_cell, noisy_pairs
from benchmarks.detection.figures import MethodName, evidence
from benchmarks.models.base_models import DataName, regime_model
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.statistics import mean_with_error
from benchmarks.report.table import Table, figure_cell
from fiftyone_ecif.attribution import Settings, recall
from fiftyone_ecif.core import embeddings_under

MODULE = "benchmarks.detection.repair"
METHODS: tuple[MethodName, ...] = ("ecif", "clip_score", "batch_loss", "clip_logits", "lemon", "confident_learning")
RETRIEVED = 10
"""Texts among which an image's own is looked for, where there are no classes."""
LABELS = {
    "random": "as many pairs at random",
    "wrong": "all the wrong ones (nobody could)",
    "ecif_corrected": "ecif, corrected where it suggests another caption",
}
"""Repairs that a table names in more words."""


@dataclass(frozen=True)
class Repair:
    """Train again without what each method suspects, and measure the model on held-out pairs.

    Args:
        data: data set
        noise: kind of noise that is planted
        rate: share of the pairs that get a planted caption
        regime: the training that is repeated
        seeds: how many seeds, from 0 on
        methods: whose suspects are removed
        json: the result is written to this file
    """

    data: DataName = "fashion-mnist"
    noise: PlantedKind = "uniform"
    rate: float = 0.2
    regime: Literal["finetuned", "memorised"] = "memorised"
    seeds: int = 3
    methods: tuple[MethodName, ...] = METHODS
    json: Path | None = None


def main() -> None:
    """Measure, print, write."""
    asked = ask(Repair, MODULE)
    figures = measure(asked)
    table = repair_table(figures)
    print(table.console())
    write_result(asked.json, MODULE, vars(asked), figures, {"repairs": table})


def measure(asked: Repair) -> dict[str, float]:
    """The mean over seeds of :func:`repaired`, and of the gain over as many pairs removed at random.

    Returns:
        ``heldout.<repair>`` and ``gain.<repair>`` with standard errors over seeds, percent; the gain is taken within
        each seed, so that what all methods of a seed share is gone
    """
    cells = [CellSettings(asked.data, asked.noise, asked.rate, asked.regime, seed) for seed in range(asked.seeds)]
    per_seed = [repaired(cell, asked.methods) for cell in cells]
    figures: dict[str, float] = {}
    for name in per_seed[0]:
        gain = name.replace("heldout", "gain")
        figures |= mean_with_error(name, np.array([found[name] for found in per_seed]))
        figures |= mean_with_error(gain, np.array([found[name] - found["heldout.random"] for found in per_seed]))
    return figures


def repair_table(figures: Mapping[str, float]) -> Table:
    """A row for each repair."""
    repairs = [name.removeprefix("heldout.") for name in figures if name.startswith("heldout.") and "_se" not in name]
    return Table.of(
        {"removed": None, "held out (%)": 1, "over random": 1},
        [
            [
                LABELS.get(name, name),
                figure_cell(figures, f"heldout.{name}"),
                None if name == "random" else figure_cell(figures, f"gain.{name}"),
            ]
            for name in repairs
        ],
    )


def repaired(settings: CellSettings, methods: Sequence[str] = METHODS) -> dict[str, float]:
    """Repair a cell's pairs in several ways, and train its model again from the same start after each.

    Args:
        settings: which cell; its regime's training is what is repeated
        methods: each removes as many pairs as are wrong, its most suspicious ones

    Returns:
        ``heldout.<repair>`` in percent: zero-shot accuracy on clean held-out pairs, or recall@10 of their captions
        where there are no classes. Repairs: "nothing", as many pairs at "random", all the "wrong" ones, each method's,
        and "ecif_corrected": a pair stays where the package suggests another caption for it
    """
    cell = make_cell(settings)
    if cell.planted is None:
        raise ValueError("Repairs are compared on planted noise: how much of it there is must be known.")
    found = evidence(cell, Settings(seed=settings.seed), methods)
    table, _ = noisy_pairs(settings, progress=False)
    budget = int(cell.planted.sum())
    count = len(cell.planted)
    order = {"random": np.random.default_rng(settings.seed).permutation(count), "wrong": np.argsort(~cell.planted)}
    # A stable sort of shuffled pairs: ties, which some methods have by the hundred, are broken at random.
    order |= {name: order["random"][np.argsort(-score[order["random"]])] for name, score in found.scores.items()}
    removed = {"nothing": order["random"][:0]} | {name: ranked[:budget] for name, ranked in order.items()}
    result = {}
    for name, rows in tqdm(removed.items(), desc=f"{settings.name}: trainings", unit="model"):
        result[f"heldout.{name}"] = heldout_quality(settings, without(table, rows))
    if found.judgement:
        better = {row: text for row, (text, _) in found.judgement.suggestions.first().items()}
        captions = list(table.captions)
        suspected = removed["ecif"].tolist()
        corrected = [row for row in suspected if row in better]
        training = np.flatnonzero(table.split == "train")
        for row in corrected:
            captions[training[row]] = better[row]
        rest = np.array(sorted(set(suspected) - set(corrected)), dtype=int)
        result["heldout.ecif_corrected"] = heldout_quality(settings, without(table.with_captions(captions), rest))
    return result


def without(table: PairTable, rows: np.ndarray) -> PairTable:
    """The table without some of its training pairs, numbered among these."""
    kept: np.ndarray = np.ones(len(table), dtype=bool)
    kept[np.flatnonzero(table.split == "train")[rows]] = False
    return table.select(kept)


def heldout_quality(settings: CellSettings, table: PairTable) -> float:
    """Train as the regime says on the table's training pairs; zero-shot accuracy or recall@10 held out, in percent."""
    model = regime_model(settings.data, table, settings.regime, settings.seed, progress=False)
    heldout = table.select(table.split == "heldout")
    head = model.head
    image, text = embeddings_under(model.features(heldout), head)
    if heldout.class_names:
        classes = classes_of(model, heldout, heldout.labels, heldout.labels)
        predicted = (image.numpy() @ classes.embeddings(head).T).argmax(1)
        return 100.0 * float((predicted == heldout.labels).mean())
    _, first, own = np.unique(heldout.captions, return_index=True, return_inverse=True)
    found = recall(image, torch.from_numpy(own), text[torch.from_numpy(first)], (RETRIEVED,))
    return 100.0 * found[f"recall_at_{RETRIEVED}"]


if __name__ == "__main__":
    main()
