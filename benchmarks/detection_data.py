"""Making a cell of the detection benchmark: pairs, planted noise, a model in its regime, tower features."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from benchmarks.data import digits, fashion_mnist, noise
from benchmarks.data.pairs import PairTable
from benchmarks.detection_cell import Cell, Classes, in_memory
from benchmarks.training import trained_checkpoint
from fiftyone_ecif.features import ArrayPairs, PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import ContrastiveModel, load_model

DATA: dict[str, Callable[..., PairTable]] = {"fashion-mnist": fashion_mnist.load, "digits": digits.load}
NOISE = ("uniform", "confusable", "caption-swap", "natural")
REGIMES = ("pretrained", "finetuned", "memorised")
MODEL = "ecif-tiny"
HELDOUT_SHARE = 0.15
"""Held-out pairs over training pairs; trusted pairs are taken from them."""
TEMPLATES = ("a photo of a {}",)
"""Prompts for the classes of a CSV file, whose captions' templates nobody knows."""


@dataclass(frozen=True)
class CellSettings:
    """Which cell.

    Args:
        data: a key of :data:`DATA`, or the name of a CSV file's pairs
        noise: a kind of noise; "natural" plants none
        rate: share of the pairs with a planted caption
        regime: how the model came to be: "pretrained" on other data, "finetuned" on the noisy pairs, or trained on
            them until it has "memorised" them
        seed: of data, noise, training and partitions
        size: training pairs
        trusted: held-out pairs that the methods may take for right
        model: open_clip's name of another model, which replaces the regime's
        checkpoint: its tag or path
    """

    data: str = "fashion-mnist"
    noise: str = "uniform"
    rate: float = 0.2
    regime: str = "finetuned"
    seed: int = 0
    size: int = 2_000
    trusted: int = 0
    model: str | None = None
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """A file name for the cell."""
        source = f"{self.model}-{Path(self.checkpoint or '').stem}".replace("/", "-") if self.model else self.regime
        trusted = f"-trusted{self.trusted}" if self.trusted else ""
        return f"{self.data}-{self.noise}-{self.rate:g}-{source}-{self.size}{trusted}-seed{self.seed}"


def make_cell(settings: CellSettings, progress: bool = True) -> Cell:
    """The cell's inputs: loaded where an earlier run saved them, else made and saved.

    Args:
        settings: which cell, of a known data set
        progress: whether to show progress bars

    Returns:
        a :class:`~benchmarks.detection_cell.Cell`
    """
    path = cache_folder("detection-cells") / f"{settings.name}.safetensors"
    if path.exists():
        return Cell.load(path)
    heldout = max(round(HELDOUT_SHARE * settings.size), settings.trusted)
    table = DATA[settings.data](train=settings.size, heldout=heldout, seed=settings.seed, progress=progress)
    train, heldout_table = (table.select(table.split == part) for part in ("train", "heldout"))
    captions, planted = plant(train, settings.noise, settings.rate, settings.seed)
    noisy = train.with_captions(captions)
    trusted = heldout_table.select(np.arange(settings.trusted)) if settings.trusted else None
    true = train.labels if train.class_names else None
    cell = embedded(settings, noisy, planted, true, trusted, given_or_trained_model(settings, noisy, progress))
    cell.save(path)
    return cell


def cell_of_file(settings: CellSettings, file: Path, progress: bool = True) -> Cell:
    """The inputs of a cell whose pairs are listed in a file.

    Args:
        settings: seed, and regime or model, are used
        file: CSV with columns filepath, caption, misaligned (1, 0 or empty) and, where captions name classes, label:
            the class that the caption names; relative paths start at the file's folder
        progress: whether to show progress bars

    Returns:
        a :class:`~benchmarks.detection_cell.Cell`

    Raises:
        ValueError: if a column is missing or a value makes no sense
    """
    table, planted = read_pairs(file)
    return embedded(settings, table, planted, None, None, given_or_trained_model(settings, table, progress))


def read_pairs(file: Path) -> tuple[PairTable, np.ndarray | None]:
    """The pairs of a CSV file, with the classes that captions name, and which are misaligned, where that is known."""
    with open(file, newline="") as handle:
        rows = list(csv.DictReader(handle))
    missing = {"filepath", "caption", "misaligned"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{file} has no pairs, or no column {', '.join(sorted(missing))}.")
    stated = {row["misaligned"].strip() for row in rows}
    if not stated <= {"0", "1"} and stated != {""}:
        raise ValueError(f"Column misaligned of {file} must hold 0 or 1 in every row, or nothing in any.")
    names = sorted({row["label"] for row in rows}) if "label" in rows[0] else []
    table = PairTable(
        filepaths=[str(file.parent / row["filepath"]) for row in rows],
        captions=[row["caption"] for row in rows],
        labels=np.array([names.index(row["label"]) if names else 0 for row in rows], dtype=np.int64),
        class_names=names,
        split=np.array(["train"] * len(rows)),
        templates=TEMPLATES if names else (),
        source=f"the pairs of {file.name}",
    )
    return table, None if stated == {""} else np.array([row["misaligned"].strip() == "1" for row in rows])


def embedded(
    settings: CellSettings,
    noisy: PairTable,
    planted: np.ndarray | None,
    true: np.ndarray | None,
    trusted: PairTable | None,
    model: ContrastiveModel,
) -> Cell:
    """Run the towers over pairs, trusted pairs and class prompts.

    Args:
        settings: where the cell came from
        noisy: the N pairs with the captions as they are
        planted: (N,) bool, True where a caption is wrong; None where nobody knows
        true: (N,) the images' classes; None to say that nobody knows
        trusted: pairs known to be right
        model: whose towers

    Returns:
        a :class:`~benchmarks.detection_cell.Cell`
    """
    classes = None
    if noisy.class_names:
        prompts = [[template.format(name) for template in noisy.templates] for name in noisy.class_names]
        named = {caption: number for number, captions in enumerate(prompts) for caption in captions}
        given = noisy.labels if true is None else np.array([named[caption] for caption in noisy.captions])
        with torch.no_grad():
            features = torch.stack([model.text_features(model.tokenize(captions)) for captions in prompts])
        classes = Classes(noisy.class_names, given, true, features.cpu())
    return Cell(
        pairs=features_of(model, noisy),
        head=model.head(),
        loss=model.loss,
        captions=noisy.captions,
        planted=planted,
        classes=classes,
        trusted=features_of(model, trusted) if trusted else None,
        settings=asdict(settings),
    )


def features_of(model: ContrastiveModel, table: PairTable) -> ArrayPairs:
    """The tower features of all pairs, in memory."""
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
    folder = cache_folder("features")
    with FileLock(folder / f"{model.fingerprint[:16]}.lock"):  # another worker may embed with the same model
        stored = embed_pairs(model, rows, folder, num_workers=0, skip_failures=False)
    return in_memory(*stored.gather(torch.arange(len(stored))))


def given_or_trained_model(settings: CellSettings, noisy: PairTable, progress: bool) -> ContrastiveModel:
    """The model that was named, or one in the cell's regime (cached)."""
    if settings.model:
        return load_model(settings.model, settings.checkpoint)
    epochs = {"pretrained": 3, "finetuned": 10, "memorised": 40}[settings.regime]
    return load_model(MODEL, trained_checkpoint(MODEL, noisy, epochs, settings.seed, progress))


def plant(train: PairTable, kind: str, rate: float, seed: int) -> tuple[list[str], np.ndarray | None]:
    """Plant noise."""
    if kind == "uniform":
        return noise.swap_uniform(train, rate, seed)
    return noise.swap_confusable(train, rate, seed)
