"""Is the wrong word of a caption named first? One-word swaps are planted, and the words of each caption ranked.

Run it with ``python -m benchmarks.detection.wrong_words --help``. What it measured: docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.data import emoji
from benchmarks.data.pairs import PairTable
from benchmarks.models.base_models import DATA, benchmark_pairs, regime_model
from benchmarks.models.model import BenchmarkModel
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.statistics import mean_with_error
from benchmarks.report.table import Table, figure_cell
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import embeddings_under
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.detect.wrong_words import Captions, spans_of, without

MODULE = "benchmarks.detection.wrong_words"
DataName = Literal["openclipart", "emoji", "openmoji"]
FEWEST_WORDS = 3
METHODS = {"named": "name_wrong_words", "fit": "the fit to the image alone", "chance": "chance"}


@dataclass(frozen=True)
class WrongWords:
    """Plant one-word swaps in captions, and measure how often the wrong word is named first.

    Args:
        data: data sets; openmoji is scored by the model for Openclipart
        seeds: how many seeds, from 0 on
        swaps: captions that get a wrong word
        json: the result is written to this file
    """

    data: tuple[DataName, ...] = ("openclipart", "emoji", "openmoji")
    seeds: int = 3
    swaps: int = 300
    json: Path | None = None


def main() -> None:
    """Measure, print, write."""
    asked = ask(WrongWords, MODULE)
    figures = measure(asked)
    table = word_table(figures, asked.data)
    print(table.console())
    write_result(asked.json, MODULE, vars(asked), figures, {"first": table})


def measure(asked: WrongWords) -> dict[str, float]:
    """``<data>.<method>``: the share of captions whose wrong word comes first, mean and standard error over seeds."""
    figures: dict[str, float] = {}
    for data in asked.data:
        per_seed = [
            named_first(*pairs_and_model(data, seed), asked.swaps, seed)
            for seed in tqdm(range(asked.seeds), desc=data, unit="seed")
        ]
        for method in METHODS:
            figures |= mean_with_error(f"{data}.{method}", np.array([found[method] for found in per_seed]))
    return figures


def word_table(figures: dict[str, float], data: Sequence[str]) -> Table:
    """A row for each method, a column for each data set."""
    return Table.of(
        {"": None, **dict.fromkeys(data, 3)},
        [[label, *(figure_cell(figures, f"{name}.{method}") for name in data)] for method, label in METHODS.items()],
    )


def pairs_and_model(data: str, seed: int) -> tuple[PairTable, BenchmarkModel]:
    """Clean pairs, and a model that has not seen them."""
    of_model = "openclipart" if data == "openmoji" else data
    table = benchmark_pairs(of_model, seed, progress=False)
    model = regime_model(of_model, table, "pretrained", seed, progress=False)
    if data != "openmoji":
        return table.select(table.split == "train"), model
    drawings = emoji.drawings("openmoji", progress=False)
    rows = np.random.default_rng(seed).permutation(len(drawings))[: DATA[of_model].pairs]
    return drawings.select(rows), model


def swap_words(captions: Sequence[str], swaps: int, seed: int) -> tuple[list[str], dict[int, int]]:
    """Replace one word of some captions by that at the same place of another caption.

    Args:
        captions: N
        swaps: how many captions get a wrong word, as far as there are so many of three words or more
        seed: of the choice

    Returns:
        the captions, and which of its words is wrong by the number of the caption
    """
    rng = np.random.default_rng(seed)
    changed = list(captions)
    wrong: dict[int, int] = {}
    for row in rng.permutation(len(captions)).tolist():
        if len(wrong) == swaps:
            break
        spans = spans_of(captions[row])
        if len(spans) < FEWEST_WORDS:
            continue
        place = int(rng.integers(len(spans)))
        own = {captions[row][start:end].lower() for start, end in spans}
        for donor in rng.permutation(len(captions)).tolist():
            given = spans_of(captions[donor])
            word = captions[donor][slice(*given[place])] if place < len(given) else ""
            if word and word.lower() not in own:
                start, end = spans[place]
                changed[row], wrong[row] = captions[row][:start] + word + captions[row][end:], place
                break
    return changed, wrong


def named_first(table: PairTable, model: BenchmarkModel, swaps: int, seed: int) -> dict[str, float]:
    """How often the wrong word of a caption is named first, by the head that was not fitted on the pair, as in a run.

    Args:
        table: clean pairs
        model: to score them by
        swaps: captions that get a wrong word
        seed: of the swaps and the folds

    Returns:
        the share of captions by method; that of chance is the mean of one over the number of words
    """
    captions, wrong = swap_words(table.captions, swaps, seed)
    swapped = table.with_captions(captions)
    pairs, views = (model.features(swapped, views) for views in (False, True))
    _, fitted = find_misaligned(pairs, views, model.head, model.loss, Settings(seed=seed))
    spans = {row: spans_of(captions[row]) for row in wrong}
    rests = model.text_features([without(captions[row], span) for row in wrong for span in spans[row]])
    features = dict(zip(wrong, rests.split([len(found) for found in spans.values()])))
    hits: dict[str, list[float]] = {method: [] for method in METHODS}
    for part, head in fitted.held_out(views):
        scale = head.logit_scale.exp().item()
        known = Captions(captions, *embeddings_under(views, head), scale)
        for row in sorted(set(part.index.tolist()) & wrong.keys()):
            words = [captions[row][start:end] for start, end in spans[row]]
            any_image = torch.zeros(len(words), head.image_weight.shape[1])
            rest = head.linearize(any_image, features[row]).text
            fit = scale * (rest - known.text[row]) @ known.image[row]
            hits["named"].append(float(known.surprise(row, words, rest).argmax() == wrong[row]))
            hits["fit"].append(float(fit.argmax() == wrong[row]))
            hits["chance"].append(1 / len(words))
    return {method: float(np.mean(found)) for method, found in hits.items()}


if __name__ == "__main__":
    main()
