"""Seconds of traces: the first of a run, a later one, and 64 together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fiftyone_ecif.attribution.question import NEAR_WRONG, Question
from fiftyone_ecif.attribution.trace_tables import TraceTables
from fiftyone_ecif.core import LOSSES, Head, Objective, TensorPairs, partitions
from fiftyone_ecif.core.query_gradient import OuterProducts

TIMED_DIMS = 512, 768, 512
"""Shared space, image and text features of the timed pairs: those of ViT-B-32."""
REPEATS = 3

Figures = dict[str, float]
"""Figures by name; a standard error has its figure's name and ``_se``."""


def timings(pairs: int, rounds: int, seed: int, device: str = "cpu") -> Figures:
    """Seconds of the first trace, of a later one, and of 64 together, on made-up features of ViT-B-32's sizes.

    Args:
        pairs: N; the features lie in memory-mapped files
        rounds: partitions of the pairs
        seed: of the features
        device: where the tables are computed, and the values of a query
    """
    dim, image_dim, text_dim = TIMED_DIMS
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, text = (
            torch.from_file(str(folder / tower), shared=True, size=pairs * width).view(pairs, width)
            for tower, width in (("image", image_dim), ("text", text_dim))
        )
        topics = torch.randn(200, 64, generator=generator)
        shown, said = (torch.randn(64, width, generator=generator) for width in (image_dim, text_dim))
        for rows in torch.arange(pairs).split(4096):  # pairs of a topic look alike in both towers
            meaning = topics[rows % len(topics)] + 0.5 * torch.randn(len(rows), 64, generator=generator)
            for target, mixing in ((image, shown), (text, said)):
                target[rows] = meaning @ mixing + 3.0 * torch.randn(len(rows), mixing.shape[1], generator=generator)
        weights = [torch.randn(dim, width, generator=generator) / width**0.5 for width in (image_dim, text_dim)]
        head = Head(weights[0], weights[1], torch.tensor(3.0)).to(device)
        objective = Objective(
            TensorPairs(image, text), partitions(pairs, 256, rounds, seed), LOSSES["clip"], 0.01, head.vector()
        )
        right = torch.arange(NEAR_WRONG + 1) == 0

        def question() -> OuterProducts:
            rows = torch.randint(pairs, (NEAR_WRONG + 1,), generator=generator)
            own = image[rows[0]] + torch.randn(image_dim, generator=generator)
            return Question(own, "image", rows, right, text[:0]).target(head, objective.pairs, "margin")[1]

        started = time.perf_counter()
        tables = TraceTables.build(folder / "tables", objective, head, "exact", seed)
        tables.values(question())
        figures = {
            "seconds_first_query": time.perf_counter() - started,
            "timing_rank": float(len(tables.inverse.vectors)),
        }
        return figures | query_seconds(tables, lambda count: OuterProducts.join([question() for _ in range(count)]))


def query_seconds(tables: TraceTables, gradients: Callable[[int], OuterProducts]) -> Figures:
    """Seconds, and CPU seconds of all threads, of one trace after the first and of 64 together.

    Args:
        tables: that the first trace left
        gradients: makes the gradients of a given number of queries' targets
    """

    def timed(count: int) -> tuple[float, float]:
        asked = gradients(count)
        started, worked = time.perf_counter(), time.process_time()
        traced = tables.values(asked)
        for query, worst in enumerate(traced.value.topk(100, largest=False).indices):
            traced.effects(query, worst)
        return time.perf_counter() - started, time.process_time() - worked

    figures: Figures = {}
    for name, count in (("per_query", 1), ("64_queries", 64)):
        seconds, worked = np.median([timed(count) for _ in range(REPEATS)], axis=0)
        figures |= {f"seconds_{name}": float(seconds), f"cpu_seconds_{name}": float(worked)}
    return figures
