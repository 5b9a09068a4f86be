"""Making a cell of the detection benchmark: pairs, planted noise, a model in its regime, tower features."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.data.noise import Kind, plant
from benchmarks.data.pairs import PairTable
from benchmarks.data.pairs_file import pairs_from_csv
from benchmarks.detection.cell import Cell, Classes
from benchmarks.models.base_models import base_model, benchmark_pairs, regime_model
from benchmarks.models.model import BenchmarkModel, LoadedModel
from fiftyone_ecif.features import cache_folder

TEMPLATES = ("a photo of a {}",)
"""Prompts for the classes of a CSV file, whose captions' templates nobody knows."""


@dataclass(frozen=True)
class CellSettings:
    """Which cell.

    Args:
        data: fashion-mnist, digits, openclipart or emoji, or the name of a CSV file without its ending
        noise: kind of noise that is planted; "natural" plants none
        rate: share of the pairs that get a planted caption
        regime: what the model has seen of the pairs; "given" for a named model
        seed: of data, noise, training and partitions
        trusted: number of right pairs, drawn at random, that count as marked by somebody
        model: open_clip's name of a model to use in place of the regime's; for pairs of a file in place of lite0-minilm
        checkpoint: the named model's tag, or the path of its weights; none for "local-dir:…" and "hf-hub:…"
    """

    data: str = "fashion-mnist"
    noise: Kind = "uniform"
    rate: float = 0.2
    regime: Literal["pretrained", "finetuned", "memorised", "given"] = "finetuned"
    seed: int = 0
    trusted: int = 0
    model: str | None = None
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """A file name for the cell."""
        parts = [self.data, self.noise, f"{self.rate:g}", self.regime, f"seed{self.seed}"]
        if self.model:
            parts += [self.model.replace("/", "-"), Path(self.checkpoint or "").stem]
        if self.trusted:
            parts.append(f"trusted{self.trusted}")
        return "-".join(parts)


def make_cell(settings: CellSettings, progress: bool = True) -> Cell:
    """The cell's inputs: loaded where an earlier run saved them, else made and saved.

    Args:
        settings: which cell, of a known data set
        progress: whether to show progress bars

    Returns:
        a :class:`~benchmarks.detection.cell.Cell`
    """
    path = cache_folder("detection-cells") / f"{settings.name}.safetensors"
    if path.exists():
        cell = Cell.load(path)
        return cell if cell.originals else replace(cell, originals=clean_captions(settings, progress))
    table, planted = noisy_pairs(settings, progress)
    if settings.model is None:
        model = regime_model(settings.data, table, settings.regime, settings.seed, progress)
    else:
        model = LoadedModel(settings.model, settings.checkpoint)
    train = table.select(table.split == "train")
    cell = embedded(settings, train, planted, train.labels if train.class_names else None, model)
    cell = replace(cell, originals=clean_captions(settings, progress))
    cell.save(path)
    return cell


def noisy_pairs(settings: CellSettings, progress: bool = True) -> tuple[PairTable, np.ndarray | None]:
    """A cell's table with the noise in its training captions, and which of the training pairs are wrong."""
    table = benchmark_pairs(settings.data, settings.seed, progress)
    captions, planted = plant(table, settings.noise, settings.rate, settings.seed)
    return table.with_captions(captions), None if planted is None else planted[table.split == "train"]


def clean_captions(settings: CellSettings, progress: bool = True) -> list[str]:
    """The captions of a cell's pairs before noise was planted among them."""
    table = benchmark_pairs(settings.data, settings.seed, progress)
    return table.select(table.split == "train").captions


def make_base_model(data: str, seed: int) -> None:
    """Train the model that the regimes of one data set and seed start from, unless the cache has it."""
    regime_model(data, benchmark_pairs(data, seed, progress=False), "pretrained", seed, progress=False)


def cell_of_file(settings: CellSettings, file: Path) -> Cell:
    """The inputs of a cell whose pairs are listed in a file.

    Args:
        settings: model, checkpoint and seed are used; where no model is named, ``lite0-minilm`` is
        file: CSV, see :func:`~benchmarks.data.pairs_file.pairs_from_csv`

    Returns:
        a :class:`~benchmarks.detection.cell.Cell`

    Raises:
        ValueError: if the file cannot be read as pairs
    """
    table, planted = pairs_from_csv(file)
    model = LoadedModel(settings.model or base_model(), settings.checkpoint)
    return embedded(settings, table, planted, None, model)


def embedded(
    settings: CellSettings,
    noisy: PairTable,
    planted: np.ndarray | None,
    true: np.ndarray | None,
    model: BenchmarkModel,
) -> Cell:
    """Run the towers over pairs and class prompts.

    Args:
        settings: where the cell came from
        noisy: the N pairs with the captions as they are
        planted: (N,) bool, True where a caption is wrong; None where nobody knows
        true: (N,) the images' classes; None to say that nobody knows
        model: whose towers

    Returns:
        a :class:`~benchmarks.detection.cell.Cell`
    """
    classes = None
    if noisy.class_names:
        named = {caption: number for number, captions in enumerate(class_prompts(noisy)) for caption in captions}
        given = noisy.labels if true is None else np.array([named[caption] for caption in noisy.captions])
        classes = classes_of(model, noisy, given, true)
    return Cell(
        pairs=model.features(noisy),
        head=model.head,
        loss=model.loss,
        captions=noisy.captions,
        planted=planted,
        classes=classes,
        views=model.features(noisy, views=True),
        trusted=marked_pairs(planted, len(noisy), settings.trusted, settings.seed),
        settings=asdict(settings),
    )


def class_prompts(table: PairTable) -> list[list[str]]:
    """For each class of the table its name in every template."""
    return [[template.format(name) for template in table.templates or TEMPLATES] for name in table.class_names]


def classes_of(model: BenchmarkModel, table: PairTable, given: np.ndarray, true: np.ndarray | None) -> Classes:
    """The table's classes, with the prompts' features by a model."""
    features = torch.stack([model.text_features(prompts) for prompts in class_prompts(table)])
    return Classes(table.class_names, given, true, features)


def marked_pairs(planted: np.ndarray | None, count: int, trusted: int, seed: int) -> np.ndarray:
    """Right pairs that somebody has marked as such, bool (N,).

    Args:
        planted: (N,) bool, True where a caption is wrong; None where nobody knows
        count: N
        trusted: how many to mark
        seed: of the choice

    Returns:
        (N,) bool

    Raises:
        ValueError: if there are not so many right pairs, or nobody knows which are right
    """
    marked: np.ndarray = np.zeros(count, dtype=bool)
    if trusted:
        right = np.flatnonzero(~planted) if planted is not None else np.empty(0, dtype=int)
        if trusted > len(right):
            raise ValueError(f"{trusted} trusted pairs were asked for; {len(right)} pairs are known to be right.")
        marked[np.random.default_rng(seed).choice(right, trusted, replace=False)] = True
    return marked
