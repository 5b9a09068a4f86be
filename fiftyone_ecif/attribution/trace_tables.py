"""Which pairs are to blame for a query: tables that make every query after the first one cheap (ECIF.md §8)."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fiftyone_ecif.core import Head, LowRankInverse, Objective, Progress, low_rank_inverse, silent
from fiftyone_ecif.core.factored_tangent import TangentMaker, role_derivatives_along
from fiftyone_ecif.core.query_gradient import OuterProducts

CURVATURE_PAIRS = 8_192
"""Pairs that the directions of the curvature are taken from; more pairs change traces little (docs/trace.md)."""

TOLERANCE = 0.1
"""Relative residual of the inverse; at this one, traces find 90 of the 100 pairs most to blame (docs/trace.md)."""

ALWAYS_COMPUTED = 2**17
"""Directions times pairs that cost little, and are computed even where fewer directions meet the tolerance.

The curvature of few pairs knows little of a query's gradient, so that its values are still far off by then.
"""

DIRECTIONS_TOGETHER = 32
"""Directions of the curvature that a batch is differentiated along at a time."""

CELLS_TOGETHER = 2**18
"""Similarities that a thread computes on at a time: those of four batches of 256."""

EXPECTED_NOISE = 0.2
"""Prior share of wrong pairs in :func:`doubt`. Traces hardly differ from 0.1 to 0.3 (docs/trace.md)."""

SUSPECTS, COMPANY = 500, 10
"""Pairs most to blame among which the nearest images are looked for, and how many of these share the blame."""

_ARRAYS = ("image_input", "text_input", "products", "first", "along", "mean_along", "positive_along")


def doubt(surprise: Tensor) -> Tensor:
    """Posterior that the text of a pair is wrong: d_n = ρ / (ρ + (1 − ρ) e^(−s_n))  (ECIF.md §6).

    Args:
        surprise: (N,), s_n of a head that was not fitted on the pair, nats; see ``cross_fit.surprise``

    Returns:
        (N,), 0 to 1; the prior ρ is :data:`EXPECTED_NOISE`
    """
    return (surprise + math.log(EXPECTED_NOISE / (1.0 - EXPECTED_NOISE))).sigmoid()


def in_company(blame: Tensor, images: Callable[[Tensor], Tensor]) -> Tensor:
    """The blame that a pair shares with the nearest images: −√(b_n · mean of b over the nearest suspects) (ECIF.md §6).

    Only the order of the suspects among themselves changes: none of them falls behind a pair that is not a suspect.

    Args:
        blame: (N,), b_n, below 0 for pairs that are to blame; NaN for pairs that must not be named
        images: gives the unit embeddings (k, D) of the images of some pairs (int64, (k,))

    Returns:
        (N,)
    """
    suspects = blame.nan_to_num(torch.inf).topk(min(SUSPECTS, int((blame < 0).sum())), largest=False).indices
    if len(suspects) < 2:
        return blame
    embedded, own = images(suspects), blame[suspects]
    likeness = (embedded @ embedded.T).fill_diagonal_(-torch.inf)
    near = likeness.topk(min(COMPANY, len(suspects) - 1)).indices
    return blame.index_put((suspects,), -(own * own[near].mean(1)).sqrt())


class Effects(NamedTuple):
    """The effect of removing each of k pairs on the target of one query, in nats; (k,) but for the last."""

    value: Tensor
    positive: Tensor
    negative: Tensor
    by_round: Tensor  # (rounds, k)


@dataclass(frozen=True)
class TraceTables:
    """One head and its pairs, batch by batch in the order of the first round of the objective, memory-mapped.

    With H⁻¹ ≈ 1/β + Σ_k c_k V_k V_kᵀ the values of a query are (1/N) [⟨g, g_n⟩/β + Σ_k c_k ⟨g, V_k⟩ ⟨V_k, g_n⟩]. The
    table of ⟨V_k, g_n⟩ holds all rounds, whereas ⟨g, g_n⟩ is computed for each query in the batches of the first round.
    The part of it in the span of the V_k is then replaced by its mean over all rounds, so that the choice of one round
    only affects the rest.

    Args:
        head: at θ̂
        objective: J with its anchor and damping
        removal: "exact" or "first_order"
        inverse: H⁻¹
        order: int64 (n,), the pairs in the order of the tables
        sizes: pairs per batch
        arrays: by name. float16 ``image_input`` (n, F_image) and ``text_input`` (n, F_text): x_n / ‖W x_n‖. float32
            ``products``: τ u_i·v_j of all batches, flat. float32 ``first`` (2, n, r): ⟨V_k, g_n⟩ / ``unit`` in the
            first round, and the part of the positive role in it; they nearly cancel against what is computed for each
            query. float16 ``along`` (rounds, n, r): ⟨V_k, g_n⟩ / ``unit`` in every round; ``mean_along`` (n, r): its
            mean; ``positive_along`` (n, r): the part of the positive role in the mean
        unit: the unit of the tables of ⟨V_k, g_n⟩
    """

    head: Head
    objective: Objective
    removal: str
    inverse: LowRankInverse
    order: Tensor
    sizes: list[int]
    arrays: dict[str, np.ndarray]
    unit: float

    @classmethod
    def build(
        cls, folder: Path, objective: Objective, head: Head, removal: str, seed: int = 0, progress: Progress = silent
    ) -> TraceTables:
        """Compute the tables and write them to disk, completely or not at all.

        Args:
            folder: to write them to; what it holds is replaced
            objective: J with its anchor and any damping
            head: at θ̂; where it is, the tables are computed
            removal: "exact" or "first_order"
            seed: of the random start of the inverse
            progress: called with the name of each step

        Returns:
            the tables, memory-mapped
        """
        inverse = low_rank_inverse(
            objective,
            head,
            TOLERANCE,
            min_rank=ALWAYS_COMPUTED // len(objective.pairs),
            pairs=CURVATURE_PAIRS,
            seed=seed,
            progress=progress,
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            unit = _write_tables(part, objective, head, inverse, removal, progress)
            _write_state(part, inverse, unit, torch.cat(objective.rounds[0]))
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another job has put the same tables there meanwhile
                os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return cls.open(folder, objective, head, removal)

    @classmethod
    def open(cls, folder: Path, objective: Objective, head: Head, removal: str) -> TraceTables:
        """Open the tables that :meth:`build` has written; what is asked of them is computed on the CPU.

        Raises:
            FileNotFoundError: if there are none
        """
        state = load_file(folder / "state.safetensors")
        anchor, rest, residual, unit = state["scalars"].tolist()
        inverse = LowRankInverse(state["vectors"], state["eigenvalues"], anchor, rest, residual)
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _ARRAYS}
        sizes = [len(index) for index in objective.rounds[0]]
        return cls(head.to("cpu"), objective, removal, inverse, state["order"], sizes, arrays, unit)

    def values(self, gradients: OuterProducts, progress: Progress = silent) -> TracedQueries:
        """The effect of removing each pair on the targets of K queries, from one pass over the pairs.

        Args:
            gradients: of the targets at θ̂, on the CPU
            progress: called per few batches

        Returns:
            :class:`TracedQueries`
        """
        dense = gradients.dense(self.head)
        along = dense @ self.inverse.vectors.T  # ⟨g, V_k⟩, (K, r)
        starts = np.cumsum([0, *self.sizes])
        cells = np.cumsum([0, *(size * size for size in self.sizes)])
        maker = TangentMaker.of(gradients, self.head)
        bias = self.head.logit_bias
        base_weights, weights = self._weights(along)
        base = torch.empty(2, len(gradients), len(self.order))
        value = torch.empty(len(gradients), len(self.order))

        groups = _alike(self.sizes)

        def group(number: int) -> None:
            batches = groups[number]
            rows = slice(starts[batches.start], starts[batches.stop])
            size = self.sizes[batches.start]
            image, text = (
                torch.unflatten(self._float(name, rows), 0, (-1, size)) for name in ("image_input", "text_input")
            )
            products = self._float("products", slice(cells[batches.start], cells[batches.stop])).view(-1, size, size)
            tangent = maker.along(image, text, products)
            similarity = products if bias is None else products + bias
            roles = role_derivatives_along(self.objective.loss, similarity, tangent, self.removal)
            positive, negative = (role.transpose(0, 1).flatten(1) for role in roles)
            base[0, :, rows], base[1, :, rows] = positive, negative
            in_span = weights @ self._float("mean_along", rows).T
            left = (positive + negative) / self.inverse.rest - base_weights @ self._float("first", (0, rows)).T
            value[:, rows] = (in_span + left) / self.objective.divisor

        _on_threads(group, len(groups), progress)
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self.order))
        return TracedQueries(self, along, place, base, value[:, place])

    def _weights(self, along: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of ⟨V_k, g_n⟩ for the parts of 1/β and of H⁻¹ in the span of the V_k, (K, r) each."""
        base = along / self.inverse.rest
        return base * self.unit, (base + along * self.inverse.corrections) * self.unit

    def _float(self, name: str, rows: Any) -> Tensor:
        """Some rows of an array, in any form of numpy's indexing, as float32."""
        return torch.from_numpy(self.arrays[name][rows]).float()


@dataclass(frozen=True)
class TracedQueries:
    """The results of one pass for K queries.

    Attributes:
        tables: the pass was over
        along: (K, r), ⟨g, V_k⟩
        place: int64 (N,), the row of each pair in the tables
        base: (2, K, n), ⟨g, ∇pos_n⟩ and ⟨g, ∇negative_n⟩ in the batches of the first round
        value: (K, N), predicted change of the target of each query if the pair were removed, nats
    """

    tables: TraceTables
    along: Tensor
    place: Tensor
    base: Tensor
    value: Tensor

    def effects(self, query: int, pairs: Tensor) -> Effects:
        """The values of the pairs (int64, (k,)) for one of the queries, by role and by round."""
        tables, inverse = self.tables, self.tables.inverse
        rows, count = self.place[pairs].numpy(), tables.objective.divisor
        base_weights, weights = (part[query] for part in tables._weights(self.along))
        positive = self.base[0, query, rows] / inverse.rest - tables._float("first", (1, rows)) @ base_weights
        positive = (positive + tables._float("positive_along", rows) @ weights) / count
        value = self.value[query, pairs]
        spread = tables._float("along", (slice(None), rows)) @ weights / count
        return Effects(value, positive, value - positive, value + spread - spread.mean(0))


def _alike(sizes: list[int]) -> list[range]:
    """Groups of neighbouring batches of the same size that together fit into the cache and are computed in one call."""
    groups: list[range] = []
    for number, size in enumerate(sizes):
        last = groups[-1] if groups else range(0)
        if groups and size == sizes[last.start] and (len(last) + 1) * size * size <= CELLS_TOGETHER:
            groups[-1] = range(last.start, number + 1)
        else:
            groups.append(range(number, number + 1))
    return groups


_STARTING = threading.Lock()
"""Held while a pass changes the number of threads that the process computes with."""


def _on_threads(work: Callable[[int], None], count: int, progress: Progress) -> None:
    """Do the parts 0, ..., count − 1 of the work on several threads.

    Batches are small: several threads with batches of their own are faster than several threads on the same batch.
    """
    with _single_threads() as pool:
        for done, _ in enumerate(pool.map(work, range(count))):
            progress("Trace", done + 1, count)


def _single_threads() -> ThreadPoolExecutor:
    """As many threads as torch computes with, each of which computes alone.

    ``torch.set_num_threads`` holds for the calling thread and for every thread that has not computed yet. Once the
    pool has started, the number is therefore put back, and no other pass starts before: it would take the 1 for the
    number of the process.
    """
    with _STARTING, ThreadPoolExecutor(1) as fresh:  # a fresh thread has the number of the process
        count = fresh.submit(torch.get_num_threads).result()
        started = threading.Barrier(count + 1)

        def compute_alone() -> None:
            torch.get_num_threads()  # the first question overwrites what was set before it
            torch.set_num_threads(1)
            started.wait()

        pool = ThreadPoolExecutor(count, initializer=compute_alone)
        for _ in range(count):
            pool.submit(bool)
        started.wait()
        fresh.submit(torch.set_num_threads, count).result()
    return pool


def _write_state(folder: Path, inverse: LowRankInverse, unit: float, order: Tensor) -> None:
    """Write what of :class:`TraceTables` is no table over the pairs."""
    scalars = [inverse.anchor, inverse.rest, inverse.relative_residual, unit]
    state = dict(
        vectors=inverse.vectors.cpu(),
        eigenvalues=inverse.eigenvalues.cpu(),
        scalars=torch.tensor(scalars, dtype=torch.float64),
        order=order,
    )
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "state.safetensors")


def _write_tables(
    folder: Path, objective: Objective, head: Head, inverse: LowRankInverse, removal: str, progress: Progress
) -> float:
    """Write all arrays of :class:`TraceTables`; returns the unit of ``along``."""
    sizes = [len(index) for index in objective.rounds[0]]
    pairs, rounds, rank = sum(sizes), len(objective.rounds), len(inverse.vectors)
    dims = head.image_weight.shape, head.text_weight.shape

    def array(name: str, shape: tuple[int, ...], dtype: type = np.float16) -> np.memmap:
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)

    image_input, text_input = array("image_input", (pairs, dims[0][1])), array("text_input", (pairs, dims[1][1]))
    products = array("products", (sum(size * size for size in sizes),), np.float32)
    first, along = array("first", (2, pairs, rank), np.float32), array("along", (rounds, pairs, rank))
    mean_along, positive_along = array("mean_along", (pairs, rank)), array("positive_along", (pairs, rank))
    place = torch.empty(len(objective.pairs), dtype=torch.int64)
    place[torch.cat(objective.rounds[0])] = torch.arange(pairs)
    mean_value: np.ndarray = np.zeros((pairs, rank), np.float32)
    mean_positive = mean_value.copy()
    unit, cell, done = 0.0, 0, 0
    for number, batches in enumerate(objective.rounds):
        for index in batches:
            batch = head.linearize(*objective.pairs.gather(index))
            rows = place[index].numpy()
            similarity = batch.similarity()
            if number == 0:
                image_input[rows] = (batch.image_input / batch.image_norm).cpu()
                text_input[rows] = (batch.text_input / batch.text_norm).cpu()
                plain = similarity if head.logit_bias is None else similarity - head.logit_bias
                products[cell : cell + plain.numel()] = plain.flatten().cpu()
                cell += plain.numel()
            parts = [
                objective.loss.role_derivatives(similarity, batch.similarity_tangent(directions))
                for directions in torch.split(inverse.vectors, DIRECTIONS_TOGETHER)
            ]
            positive = torch.cat([part.positive for part in parts]).T.cpu()
            value = torch.cat([part.value(removal) for part in parts]).T.cpu()
            unit = unit or value.square().mean().sqrt().item() or 1.0
            along[number, rows] = value / unit
            mean_value[rows] += (value / (unit * rounds)).numpy()
            mean_positive[rows] += (positive / (unit * rounds)).numpy()
            if number == 0:
                first[0, rows], first[1, rows] = value / unit, positive / unit
            done += 1
            progress("Trace tables", done, objective.batch_count)
    mean_along[:], positive_along[:] = mean_value, mean_positive
    return unit
