"""How fast and in how much memory pairs are embedded, fitted, scored and written, against the least it could take.

Run it with ``python -m benchmarks.speed.throughput --help``. What it measured: docs/scale.md. Every
ratio is taken within one run, its two sides in turn.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from benchmarks.report.command import ask
from benchmarks.report.measured import Measured
from benchmarks.report.results import write_result
from benchmarks.report.statistics import rank_correlation
from benchmarks.speed.embedding import embedding_figures
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.throughput_tables import tables
from benchmarks.speed.towers import tower_figures
from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    Objective,
    Pairs,
    Roles,
    influence,
    kronecker_curvature,
    partitions,
    self_influence,
)
from fiftyone_ecif.core.pairs import Subset

MODULE = "benchmarks.speed.throughput"
ROUNDS = 4
"""Partitions of the fit and the solve: the engine's default."""
TARGET_SHARE = 8
"""Training pairs per target pair."""
GROWTH = 0.25, 0.5, 1.0
"""Shares of the pairs over which memory and seconds are compared."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Throughput:
    """Measure how fast and in how much memory pairs are embedded, fitted, scored and written.

    Args:
        pairs: N; growth is measured from a quarter of them on
        dim: dimension of the shared space
        feature_dim: dimension of the features of either tower
        batch: B
        device: where to compute
        engine: "ray" times two workers of a Ray cluster as well
        scope: head; or lora, full or a regular expression of parameters' names, for the passes of that scope
        scope_model: open_clip's name of the model of a scope inside the towers; its weights are random
        tolerance: relative residual at which the solver ends
        repeats: repetitions of every timing; the median is reported
        embed_pairs: images of the towers' timing; 0 leaves it out
        embed_model: open_clip's name of the towers that are timed; their weights are random
        seed: of features and partitions
        json: the result is written to this file
    """

    pairs: int = 16_384
    dim: int = 512
    feature_dim: int = 512
    batch: int = 256
    device: str = "cpu"
    engine: Literal["local", "ray"] = "local"
    scope: str = "head"
    scope_model: str = "ecif-tiny-vit"
    tolerance: float = Settings.tolerance
    repeats: int = 3
    embed_pairs: int = 32
    embed_model: str = "ViT-B-32"
    seed: int = 0
    json: Path | None = None


def main() -> None:
    """Measure, print the tables, write the figures."""
    asked = ask(Throughput, MODULE)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(asked, Path(name))
    made = tables(figures, asked.scope)
    for name, table in made.items():
        print(f"\n{name}\n{table.console()}")
    write_result(asked.json, MODULE, vars(asked), figures, made)


def measure(asked: Throughput, folder: Path) -> Figures:
    """All figures of one run, by name; a scope inside the towers has figures of its own passes alone."""
    figures: Figures = {"threads": float(torch.get_num_threads()), "load": os.getloadavg()[0]}
    if asked.scope != "head":
        settings = run_settings(asked)
        return figures | tower_figures(
            folder, asked.scope_model, asked.scope, asked.pairs, settings, asked.device, asked.repeats
        )
    held_out = asked.pairs // TARGET_SHARE
    write_made_up_store(folder, asked.pairs + held_out, asked.feature_dim, asked.seed)
    head = fitting_head(asked.dim, asked.feature_dim, asked.seed).to(asked.device)

    def opened(count: int) -> Pairs:
        return open_made_up_store(folder, count, asked.feature_dim)

    figures |= score_figures(opened(asked.pairs), head, asked)
    figures |= solve_figures(opened(asked.pairs + held_out), held_out, head, asked, figures["epoch_seconds"])
    figures |= growth_figures(opened(asked.pairs), head, asked)
    figures |= memory_figures(folder, asked)
    if asked.embed_pairs:
        figures |= embedding_figures(folder, asked.embed_model, asked.embed_pairs, asked.device, asked.repeats)
    if importlib.util.find_spec("fiftyone"):
        from benchmarks.speed.writing import writing_figures

        figures |= writing_figures(asked.pairs, asked.repeats)
    if asked.engine == "ray":
        from benchmarks.speed.cluster import cluster_figures

        figures |= cluster_figures(opened(asked.pairs), head, asked.batch, asked.seed, asked.repeats)
    return figures


def run_settings(asked: Throughput) -> Settings:
    """The settings of a run with the options of the command."""
    return Settings(rounds=ROUNDS, batch_size=asked.batch, seed=asked.seed, tolerance=asked.tolerance)


def score_figures(pairs: Pairs, head: Head, asked: Throughput) -> Figures:
    """The score pass beside an epoch by autograd, and beside its matrix products alone."""
    objective = Objective(pairs, partitions(len(pairs), asked.batch, 1, asked.seed), LOSSES["clip"])
    direction = torch.randn(1, head.size, generator=torch.Generator().manual_seed(asked.seed)).to(asked.device)
    batches = objective.rounds[0]
    sides = [len(index) for index in batches]
    timed = Measured(
        {
            "scores": lambda: influence(objective, head, direction),
            "epoch": lambda: clip_epoch(pairs, batches, head),
            "products": score_products(sides, head, asked.device),
            "bfloat16": lambda: bfloat16_scores(objective, head, direction),
        },
        asked.repeats,
        asked.device,
    )
    flop = sum(score_flop(side, head) for side in sides)
    full, coarse = (
        scored.value("exact")[0, 0].numpy()
        for scored in (influence(objective, head, direction), bfloat16_scores(objective, head, direction))
    )
    return {
        "pairs_per_second_scores": len(pairs) / timed.seconds("scores"),
        "epoch_seconds": timed.seconds("epoch"),
        **timed.ratio("epoch_ratio", "scores", "epoch"),
        **timed.ratio("gemm_fraction", "products", "scores"),
        "product_gflop_per_second": flop / timed.seconds("products") / 1e9,
        **timed.ratio("half_ratio", "bfloat16", "scores"),
        "half_rank_correlation": float(rank_correlation(coarse, full)),
    }


def bfloat16_scores(objective: Objective, head: Head, direction: Tensor) -> Roles:
    """A score pass that multiplies in bfloat16."""
    with torch.autocast(direction.device.type, torch.bfloat16):
        return influence(objective, head, direction)


def clip_epoch(pairs: Pairs, batches: list[Tensor], head: Head) -> None:
    """One forward and backward pass of open_clip's loss over cached features, by autograd."""
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    image_weight, text_weight, logit_scale = (
        part.clone().requires_grad_() for part in (head.image_weight, head.text_weight, head.logit_scale)
    )
    for index in batches:
        image, text = (part.to(image_weight) for part in pairs.gather(index))
        u, v = normalize(linear(image, image_weight), dim=1), normalize(linear(text, text_weight), dim=1)
        loss(u, v, logit_scale.exp()).backward()


def score_products(sides: list[int], head: Head, device: str) -> Callable[[], None]:
    """The matrix products that a score pass needs at least, and nothing else  (ECIF.md §4).

    Embeddings and their tangents of both towers, S of depth D, Ṡ of depth 2 D.
    """
    generator = torch.Generator().manual_seed(0)

    def made_up(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    shapes = {
        side: [
            (made_up(side, weight.shape[1]), made_up(weight.shape[1], weight.shape[0]))
            for weight in (head.image_weight, head.text_weight)
            for _ in ("embedding", "tangent")
        ]
        + [
            (made_up(side, depth), made_up(depth, side))
            for depth in (len(head.image_weight), 2 * len(head.image_weight))
        ]
        for side in set(sides)
    }

    def multiply() -> None:
        for side in sides:
            for left, right in shapes[side]:
                torch.mm(left, right)

    return multiply


def score_flop(side: int, head: Head) -> int:
    """Floating-point operations of :func:`score_products` for one batch."""
    weights = head.image_weight.numel() + head.text_weight.numel()
    return 2 * side * (2 * weights + 3 * side * len(head.image_weight))


def solve_figures(pairs: Pairs, held_out: int, head: Head, asked: Throughput, epoch_seconds: float) -> Figures:
    """A run of the engine with trusted pairs as its target, its steps in epochs of one pass over the pairs."""
    count = len(pairs) - held_out
    training, target = Subset(pairs, torch.arange(count)), Subset(pairs, torch.arange(count, len(pairs)))
    # One probe: self-influence is timed apart.
    attributed = replace(Attributed.of_head(head, training, target), probes=1)
    outcome = compute(attributed, "clip", run_settings(asked), asked.device)
    report = outcome.reports[0]
    first = Objective(
        training, [partitions(count, asked.batch, 1, asked.seed)[0][:1]], LOSSES["clip"], report.anchor, head.vector()
    )
    curvature = kronecker_curvature(first, head, report.anchor)
    started = time.perf_counter()
    self_influence(first, head, curvature.quadratic)
    per_pair = (time.perf_counter() - started) / len(first.rounds[0][0])
    timings = outcome.timings
    return {
        "solve_epochs": (timings["curvature"] + timings["solve"]) / epoch_seconds,
        "curvature_epochs": timings["curvature"] / epoch_seconds,
        "fit_epochs": timings["fit"] / epoch_seconds,
        "score_epochs": timings["scores"] / epoch_seconds,
        "self_influence_epochs": per_pair * count / epoch_seconds,
        "solver_iterations": float(report.solver_iterations),
        "solver_relative_residual": report.solver_relative_residual,
        "fit_steps": float(report.fit_steps),
        "fit_relative_gradient": report.fit_relative_gradient,
    }


def growth_figures(pairs: Pairs, head: Head, asked: Throughput) -> Figures:
    """How the score pass's seconds grow with N: the exponent of the power law through N/4, N/2 and N."""
    direction = torch.randn(1, head.size, generator=torch.Generator().manual_seed(asked.seed)).to(asked.device)

    def scored(share: float) -> Callable[[], object]:
        rounds = partitions(int(share * asked.pairs), asked.batch, 1, asked.seed)
        return lambda: influence(Objective(pairs, rounds, LOSSES["clip"]), head, direction)

    timed = Measured({str(share): scored(share) for share in GROWTH}, asked.repeats, asked.device)
    return {
        label: float(np.polyfit(np.log(GROWTH), np.log([np.median(seconds[str(share)]) for share in GROWTH]), 1)[0])
        for label, seconds in (("time_exponent", timed.clock), ("time_exponent_cpu", timed.processor))
    }


def memory_figures(folder: Path, asked: Throughput) -> Figures:
    """Peak memory of child processes that open the store and score N/4 and N pairs; see :func:`peak_memory`."""
    few, many = int(GROWTH[0] * asked.pairs), asked.pairs
    small, large = (peak_memory(folder, count, asked.dim, asked.feature_dim, asked.batch) for count in (few, many))
    on_disk = sum(path.stat().st_size for path in folder.rglob("shard-*"))
    return {
        "peak_rss_gib": large.peak / 2**30,
        "peak_rss_gib_above_interpreter": (large.peak - large.interpreter) / 2**30,
        "peak_anonymous_gib_above_interpreter": (large.anonymous - large.interpreter_anonymous) / 2**30,
        "rss_ratio_4x": large.peak / small.peak,
        "anonymous_ratio_4x": large.anonymous / small.anonymous,
        "memory_bytes_per_pair": (large.peak - small.peak) / (many - few),
        "bytes_per_pair": on_disk / (many + many // TARGET_SHARE),
    }


if __name__ == "__main__":
    main()
