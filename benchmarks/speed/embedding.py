"""Seconds of embedding beside open_clip's bare loop, and what a kill -9 in the middle of it costs."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import warnings
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.report.measured import Measured
from fiftyone_ecif.features import FeatureStore, PairRow, StoredPairs, embed_pairs, read_image
from fiftyone_ecif.features.embedding import SHARD_ROWS
from fiftyone_ecif.models import ContrastiveModel, load_model

IMAGE_SIZE = 320, 240
SMALL_MODEL = "ecif-tiny"
KILLED_PAIRS = 3 * SHARD_ROWS
KILLS = 4
"""How often one embedding is killed, at random moments; it goes on after each."""


def embedding_figures(folder: Path, model_name: str, count: int, device: str, repeats: int) -> dict[str, float]:
    """``embed_ratio``: our pairs per second over those of a loop of open_clip's own calls; and :func:`resume_waste`."""
    model = random_model(model_name, device)
    rows = made_up_images(folder / "embedded", count, images=count)
    batch_size = min(count, 64)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as store:
            embed_pairs(model, rows, store, batch_size=batch_size)

    timed = Measured({"ours": ours, "bare": lambda: bare_loop(model, rows, batch_size)}, repeats, device)
    return {
        "embedded_pairs_per_second": count / timed.seconds("ours"),
        **timed.ratio("embed_ratio", "bare", "ours"),
        "resume_waste": resume_waste(folder / "killed"),
    }


def bare_loop(model: ContrastiveModel, rows: list[PairRow], batch_size: int) -> tuple[Tensor, Tensor]:
    """What open_clip's README does: read, preprocess, encode, batch by batch."""
    images, texts = [], []
    module: Any = model.model  # open_clip's models have these methods, of which nn.Module knows nothing
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            pixels = torch.stack([model.preprocess(read_image(row.filepath)) for row in batch]).to(model.device)
            tokens = model.tokenizer([str(row.caption) for row in batch]).to(model.device)
            images.append(module.encode_image(pixels).cpu())
            texts.append(module.encode_text(tokens).cpu())
    return torch.cat(images), torch.cat(texts)


def resume_waste(folder: Path, count: int = KILLED_PAIRS, seed: int = 0) -> float:
    """Kill -9 an embedding process again and again, embed to the end: the most pairs a kill lost, in shards.

    Args:
        folder: for images and stores
        count: pairs
        seed: of the moments

    Returns:
        shards' worth of pairs whose features a kill lost

    Raises:
        AssertionError: if the resumed store differs from one that was written without a kill
    """
    rows = made_up_images(folder, count, images=16)
    wasted = []
    for moment in sorted(np.random.default_rng(seed).integers(1, count, KILLS).tolist()):
        done = _killed(rows, folder / "store", moment)
        wasted.append((done - len(_stored(rows, folder / "store"))) / SHARD_ROWS)
    resumed, whole = _small(rows, folder / "store"), _small(rows, folder / "whole")
    everything = torch.arange(count)
    for ours, theirs in zip(resumed.gather(everything), whole.gather(everything)):
        # Batches are cut elsewhere after a resume: the arithmetic of another batch shape may round differently.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    return max(wasted)


def _killed(rows: list[PairRow], store: Path, at: int) -> int:
    """Embed in a child, kill it once ``at`` rows are done; how many were."""
    context = multiprocessing.get_context("spawn")
    done = context.Value("l", 0)
    child = context.Process(target=_embed, args=(rows, store, done))
    child.start()
    while done.value < at and child.is_alive():
        time.sleep(0.001)
    child.kill()
    child.join()
    return done.value


def _embed(rows: list[PairRow], store: Path, done: Synchronized) -> None:
    def report(count: int, total: int) -> None:
        done.value = count

    embed_pairs(random_model(SMALL_MODEL), rows, store, batch_size=32, num_workers=0, progress=report)


def _small(rows: list[PairRow], store: Path) -> StoredPairs:
    """The small model's features of all rows."""
    return embed_pairs(random_model(SMALL_MODEL), rows, store, batch_size=32, num_workers=0)


def _stored(rows: list[PairRow], store: Path) -> StoredPairs:
    """The small model's features of the rows that are already stored."""
    return FeatureStore(store, random_model(SMALL_MODEL).fingerprint).pairs(rows)


def random_model(name: str, device: str = "cpu") -> ContrastiveModel:
    """An open_clip model with random weights, the same each time."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(name, device=device)


def made_up_images(folder: Path, count: int, images: int) -> list[PairRow]:
    """Pairs of noise images, JPEG, and captions that are all different."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(images):
        paths.append(folder / f"{number}.jpg")
        coarse = rng.integers(0, 255, (IMAGE_SIZE[1] // 16, IMAGE_SIZE[0] // 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(IMAGE_SIZE).save(paths[-1])
    return [PairRow(str(row), str(paths[row % images]), f"a photo of thing number {row}") for row in range(count)]
