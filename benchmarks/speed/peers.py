"""Seconds that other attribution libraries take for the same head, pairs and target, and that refits take.

Run it with ``python -m benchmarks.speed.peers --help``. What it measured: docs/scale.md. The peers are given less than
the whole task, since none can express it (:mod:`benchmarks.speed.peer_methods`): their seconds are for less than ours.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.fidelity.prepared_removals import RemovalForecast
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.statistics import rank_correlation
from benchmarks.report.table import Cell, Table
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
from benchmarks.speed.peer_methods import (
    ALL_PEERS,
    PEERS,
    TARGETS,
    WITHOUT_CURVATURE,
    Peer,
    PeerName,
    PositiveRole,
)
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.attribution.objectives import TARGET, anchored, mean_loss
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    Objective,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    influence,
    partitions,
)

MODULE = "benchmarks.speed.peers"
REMOVED = 0.02
"""Share of the pairs that a group removes."""
GROUPS = 10
LABELS: dict[PeerName, str] = {
    "captum_tracin": "captum, TracIn (one checkpoint)",
    "kronfluence_ekfac": "kronfluence, EK-FAC",
    "dattri_cg": "dattri, conjugate gradients",
    "trak": "TRAK (one model, 512 projections)",
}
EXPRESSED: dict[PeerName, str] = {
    "captum_tracin": "positive role, no curvature",
    "kronfluence_ekfac": "positive role, empirical Fisher",
    "dattri_cg": "positive role, ten steps on the Hessian",
    "trak": "log odds of being matched, positive role",
}
"""What part of the task a peer is given."""

Figures = dict[str, float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Peers:
    """Time this package beside other attribution libraries, and forecasts of removals beside refits.

    Args:
        pairs: N
        dim: dimension of the shared space
        feature_dim: dimension of the features of either tower
        batch: B
        peers: which libraries are run
        limit: processor seconds after which a peer is stopped; none by default
        refits: refits of the head, each without another group of pairs
        seed: of features and partitions
        json: the result is written to this file
    """

    pairs: int = 2_048
    dim: int = 128
    feature_dim: int = 128
    batch: int = 256
    peers: tuple[PeerName, ...] = ALL_PEERS
    limit: int | None = None
    refits: int = 3
    seed: int = 0
    json: Path | None = None


def main() -> None:
    """Measure, print the figures as they come, write them."""
    asked = ask(Peers, MODULE)
    figures = measure(asked)
    table = peer_table(figures, asked.limit)
    print(f"\n{table.console()}")
    write_result(asked.json, MODULE, vars(asked), figures, {"peers": table})


def peer_table(figures: Figures, limit: int | None) -> Table:
    """Seconds of this package and of each peer, and what the peer can express."""
    own = figures["seconds_ours_cpu"]
    rows: list[list[Cell]] = [["this package: target gradient, solve, scores of four rounds", own, None, "all"]]
    for name in ALL_PEERS:
        if f"times_faster_{name}_cpu" in figures:
            times = figures[f"times_faster_{name}_cpu"]
            rows.append([LABELS[name], times * own, times, EXPRESSED[name]])
        elif (least := figures.get(f"times_faster_{name}_cpu_at_least")) is not None:
            rows.append([LABELS[name], f"not finished after {limit}", f"more than {least:.0f}", EXPRESSED[name]])
    return Table.of({"": None, "CPU seconds": 1, "over ours": 1, "what it can express": None}, rows)


def measure(asked: Peers) -> Figures:
    """Seconds of this package, of every peer at the given weights, and of refits, by name."""
    count = asked.pairs
    with tempfile.TemporaryDirectory() as name:
        write_made_up_store(Path(name), count + TARGETS, asked.feature_dim, asked.seed)
        stored = open_made_up_store(Path(name), count + TARGETS, asked.feature_dim)
        image, text = stored.gather(torch.arange(len(stored)))
    train, target = TensorPairs(image[:count], text[:count]), TensorPairs(image[count:], text[count:])
    head = fitting_head(asked.dim, asked.feature_dim, asked.seed)
    settings = Settings(batch_size=asked.batch, seed=asked.seed)
    plain = Objective(train, partitions(count, asked.batch, settings.rounds, asked.seed), LOSSES["clip"])
    objective = anchored(plain, head, settings)
    target_loss = mean_loss(target, "clip", settings, TARGET)

    our_seconds, value = timed(lambda: ours(objective, target_loss, head, settings))
    figures: Figures = {"seconds_ours": our_seconds.clock, "seconds_ours_cpu": our_seconds.processor}
    figures["load"] = os.getloadavg()[0]
    once = replace(objective, rounds=objective.rounds[:1])
    plain_seconds, _ = timed(lambda: influence(once, head, target_loss.value_and_gradient(head)[1][None]))
    figures["seconds_ours_without_curvature_cpu"] = plain_seconds.processor
    print_figures(figures)
    model = PositiveRole(head, TensorPairs(image[: asked.batch - 1], text[: asked.batch - 1]))
    pairs, queries = (TensorDataset(part.image, part.text, torch.zeros(len(part))) for part in (train, target))
    for name in asked.peers:
        found = within(asked.limit, PEERS[name], model, pairs, queries, objective.anchor)
        if found is None:  # it was stopped at the limit
            assert asked.limit is not None
            taken = {f"times_faster_{name}_cpu_at_least": asked.limit / our_seconds.processor}
        else:
            seconds, scores = found
            taken = seconds.over(our_seconds, name)
            if name in WITHOUT_CURVATURE:
                taken |= seconds.over(plain_seconds, f"{name}_like_for_like")
            taken[f"rank_correlation_{name}"] = float(rank_correlation(scores.numpy(), value.numpy()))
        print_figures(taken)
        figures |= taken
    if asked.refits:
        refits = refit_figures(objective, target_loss, head, settings, asked.refits)
        print_figures(refits)
        figures |= refits
    return figures


def print_figures(figures: Figures) -> None:
    """Print figures as soon as they are measured."""
    for name, value in figures.items():
        print(f"{name:<40}{value:.4g}", flush=True)


def within(
    limit: int | None, peer: Peer, model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float
) -> tuple[Seconds, Tensor] | None:
    """A peer's seconds and scores, taken in a process of its own; None if its processor seconds ran out before."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run_peer, args=(sender, limit, peer, model, train, target, anchor))
    child.start()
    sender.close()
    try:
        seconds, scores = receiver.recv()
        return seconds, torch.tensor(scores)
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGXCPU:
            return None
        raise RuntimeError(f"{peer.__name__} failed; see above.") from None
    finally:
        child.join()


def _run_peer(sender: Connection, limit: int | None, peer: Callable[..., Tensor], *task: Any) -> None:
    if limit is not None:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(spent.ru_utime + spent.ru_stime) + limit
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken, scores = timed(lambda: peer(*task, Path(folder)))
    sender.send((taken, scores.detach().tolist()))


def ours(objective: Objective, target: Objective, head: Head, settings: Settings) -> Tensor:
    """The values of all pairs in all rounds' mean, (N,): target gradient, solve and scores."""
    return influence(objective, head, solution(objective, target, head, settings)).value("exact").mean(0)[0]


def solution(objective: Objective, target: Objective, head: Head, settings: Settings) -> Tensor:
    """s = H⁻¹ ∇C, (1, P)."""
    return conjugate_gradients(
        lambda directions: objective.gauss_newton_product(head, directions),
        target.value_and_gradient(head)[1][None],
        torch.clone,
        settings.tolerance,
    ).vectors


def refit_figures(objective: Objective, target: Objective, head: Head, settings: Settings, refits: int) -> Figures:
    """Seconds of refitting the head without a group, and of predicting what that does to the target."""
    fitted = fit_to_rest(objective, head, torch.clone).scope
    assert isinstance(fitted, Head)
    generator = torch.Generator().manual_seed(settings.seed)
    groups = torch.rand(GROUPS, len(objective.pairs), generator=generator) < REMOVED
    prepared, forecast = timed(
        lambda: RemovalForecast(objective, fitted, solution(objective, target, fitted, settings)[0])
    )
    predicted, _ = timed(lambda: [forecast.change(group) for group in groups])
    per_group = Seconds(*(part / len(groups) for part in predicted))
    spent, _ = timed(
        lambda: [fit_to_rest(objective.without(group), fitted, torch.clone).scope for group in groups[:refits]]
    )
    return {
        "seconds_forecast_prepared": prepared.clock,
        "seconds_per_forecast": per_group.clock,
        **Seconds(*(part / refits for part in spent)).over(per_group, "refit"),
    }


class Seconds(NamedTuple):
    """Seconds by the clock, and of the processor, which a busy machine disturbs less."""

    clock: float
    processor: float

    def over(self, ours: Seconds, name: str) -> Figures:
        """These, and how many times ours they are."""
        return {
            f"seconds_{name}": self.clock,
            f"times_faster_{name}": self.clock / ours.clock,
            f"times_faster_{name}_cpu": self.processor / ours.processor,
        }


def timed(work: Callable[[], Result]) -> tuple[Seconds, Result]:
    """The seconds that some work took, and its result."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor), result


if __name__ == "__main__":
    main()
