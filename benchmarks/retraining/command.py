"""Do predicted outcomes of training hold when models are trained from scratch on other pairs, in other batches?

Run it with ``make bench-retraining``, or ``python -m benchmarks.retraining --help``. docs/fidelity.md shows what it
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from tqdm import tqdm

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.retraining.heads import HeadRecipe
from benchmarks.retraining.influences import Asked
from benchmarks.retraining.measure import figures
from benchmarks.retraining.methods import OF_HEADS, OF_MODELS, HeadMethods, Methods, kept
from benchmarks.retraining.outcomes import Outcomes, fingerprint, head_outcomes
from benchmarks.retraining.problem import DataName, TowersName, head_problem, noisy_table
from benchmarks.retraining.small_clip import RECIPE, TrainedClips, clip_folder, clip_outcomes
from benchmarks.retraining.tables import tables
from benchmarks.retraining.trained import TrainedHeads
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.features import cache_folder

MODULE = "benchmarks.retraining"
TrainedName = Literal["lite0-minilm", "ecif-tiny", "clip"]
ROUNDS = 2
"""Of the attributed loss; with 1,200 pairs a second one is there for the spread."""


@dataclass(frozen=True)
class Retraining:
    """Compare predicted outcomes of training with models that were trained from scratch on random halves of the pairs.

    Args:
        data: data set
        trained: heads over the features of "lite0-minilm", of "ecif-tiny", or "clip": a small CLIP, towers and all
        pairs: training pairs N, a fifth of them wrong
        subsets: random halves of them, on each of which models are trained
        seeds: models on each half
        queries: target pairs whose own losses are predicted, besides the mean loss
        target: clean pairs M that losses are measured on
        seed: of data, noise, halves and training
        recipe: of the training of heads
        json: the result is written to this file
    """

    data: DataName = "openclipart"
    trained: TrainedName = "lite0-minilm"
    pairs: int = 1_200
    subsets: int = 60
    seeds: int = 3
    queries: int = 20
    target: int = 600
    seed: int = 0
    recipe: HeadRecipe = field(default_factory=HeadRecipe)
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.subsets < 3 or self.seeds < 2 or not 1 <= self.queries <= self.target:
            raise ValueError("There must be 3 subsets, 2 seeds and 1 query at least, and no more queries than targets.")

    @property
    def asked(self) -> range:
        """The target pairs that are queries."""
        return range(self.queries)


Measured = tuple[Outcomes, dict[str, Callable[[], Tensor]], np.ndarray]
"""What training came to, each method's scores on demand, and whose caption is wrong."""


def of_heads(asked: Retraining, towers: TowersName) -> Measured:
    """Heads over features that stay."""
    problem = head_problem(asked.data, towers, asked.pairs, asked.target, asked.seed)
    outcomes = head_outcomes(problem, asked.recipe, asked.subsets, asked.seeds, asked.seed)
    settings = Settings(batch_size=asked.recipe.batch_size, rounds=ROUNDS, seed=asked.seed)
    methods = HeadMethods(TrainedHeads(Asked(problem, asked.asked, settings), asked.recipe, asked.seed))
    folder = cache_folder("retraining") / f"{fingerprint(problem, asked.recipe)}-{asked.seed}-{asked.queries}"
    return outcomes, on_demand(folder, OF_MODELS, methods) | on_demand(folder, OF_HEADS, methods), problem.planted


def of_clips(asked: Retraining) -> Measured:
    """Small CLIPs, towers and all."""
    table, planted = noisy_table(asked.data, asked.pairs, asked.target, asked.seed)
    outcomes = clip_outcomes(table, asked.pairs, asked.subsets, asked.seeds, asked.seed)
    settings = Settings(batch_size=RECIPE.batch_size, rounds=ROUNDS, seed=asked.seed)
    planted = planted[: asked.pairs]
    methods = Methods(TrainedClips(table, planted, asked.asked, settings, asked.seed))
    folder = clip_folder(table) / f"{asked.seed}-{asked.queries}"
    return outcomes, on_demand(folder, OF_MODELS, methods), planted


def on_demand(
    folder: Path, methods: Mapping[str, Callable[[Any], Tensor]], asked: Methods
) -> dict[str, Callable[[], Tensor]]:
    """Each method's scores, from the folder where it has them."""
    return {
        name: partial(kept, folder / f"{name}.safetensors", partial(method, asked)) for name, method in methods.items()
    }


def main() -> None:
    """Train on halves, score the pairs by every method, print and write how well they agree."""
    asked = ask(Retraining, MODULE)
    outcomes, methods, planted = of_clips(asked) if asked.trained == "clip" else of_heads(asked, asked.trained)
    scores = {name: method() for name, method in tqdm(methods.items(), desc="scores", unit="method")}
    found = figures(scores, outcomes, list(asked.asked), planted)
    made = tables(found)
    for name, table in made.items():
        print(f"\n{name}\n{table.console()}")
    write_result(asked.json, MODULE, asdict(asked), found, made)
