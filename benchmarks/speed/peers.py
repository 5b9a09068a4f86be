"""Seconds that other attribution libraries take for the same head, pairs and target, and that refits take.

Run it with ``python -m benchmarks.speed.peers --help``. What it measured: docs/scale.md.

None of the peers can express the task. They take a loss to be a sum over samples, each with a gradient of its own, and
a contrastive loss is none: a pair is in the loss of every other of its batch. What they are given is the nearest that
they can express, and the cheapest for them: a pair's positive role, ½ [−log P_nn − log Q_nn], among B − 1 others whose
embeddings are constants (as in TRAK's own tutorial on CLIP). So ∇pos_n through the others, and the negative role, are
missing from their scores, and their seconds are for less than ours.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.fidelity.prepared_removals import RemovalForecast
from benchmarks.report.json_file import write_asked
from benchmarks.report.statistics import rank_correlation
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
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

TARGETS = 32
"""Target pairs: the peers' seconds grow with them, ours do not."""
REMOVED = 0.02
GROUPS = 10
PROJECTION = 512
CHUNK = 64
"""Pairs whose gradients a peer holds together."""

Figures = dict[str, float]
Result = TypeVar("Result")


class PositiveRole(nn.Module):
    """Logits of pairs among constant others: forward gives (b, 2, B), the pair's own first, rows are directions."""

    def __init__(self, head: Head, others: TensorPairs) -> None:
        super().__init__()
        self.image, self.text = (
            nn.Linear(weight.shape[1], weight.shape[0], bias=False) for weight in (head.image_weight, head.text_weight)
        )
        self.image.weight.data, self.text.weight.data = head.image_weight.clone(), head.text_weight.clone()
        batch = head.linearize(others.image, others.text)
        self.register_buffer("other_images", batch.image)
        self.register_buffer("other_texts", batch.text)
        self.register_buffer("scale", head.logit_scale.exp())

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Of image features (b, F) and text features (b, F)."""
        u, v = normalize(self.image(image), dim=-1), normalize(self.text(text), dim=-1)
        own = (u * v).sum(-1, keepdim=True)
        rows = torch.cat([own, u @ self.other_texts.T], -1)
        columns = torch.cat([own, v @ self.other_images.T], -1)
        return self.scale * torch.stack([rows, columns], -2)


class PositiveLoss(nn.Module):
    """½ Σ_n [−log P_nn − log Q_nn] of such logits; the targets say nothing."""

    reduction = "sum"

    def forward(self, logits: Tensor, targets: Tensor | None = None) -> Tensor:
        """A scalar."""
        flat = logits.reshape(-1, logits.shape[-1])
        return 0.5 * cross_entropy(flat, torch.zeros(len(flat), dtype=torch.int64), reduction="sum")


Peer = Callable[[PositiveRole, TensorDataset, TensorDataset, float, Path], Tensor]
"""(N,) scores of the first data set's pairs for the second's mean loss, up to sign and scale."""


def captum_tracin(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """TracIn at one checkpoint (Pruthi et al. 2020): products of gradients, no curvature."""
    from captum.influence import TracInCP

    checkpoint = folder / "checkpoint.pt"
    torch.save(model.state_dict(), checkpoint)
    tracin = TracInCP(
        model,
        train,
        [str(checkpoint)],
        checkpoints_load_func=lambda module, path: module.load_state_dict(torch.load(path)) and 1.0,
        layers=["image", "text"],
        loss_fn=PositiveLoss(),
        batch_size=CHUNK,
        sample_wise_grads_per_batch=True,
    )
    return tracin.influence(target.tensors).mean(0)


def kronfluence_ekfac(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """Influence by EK-FAC (Grosse et al. 2023), empirical Fisher."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task

    class Pairs(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return PositiveLoss()(model(*batch[:2]))

        def compute_measurement(self, batch, model):
            return PositiveLoss()(model(*batch[:2]))

    task = Pairs()
    analyzer = Analyzer("peer", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=str(folder))
    arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    analyzer.fit_all_factors("factors", train, per_device_batch_size=CHUNK, factor_args=arguments)
    analyzer.compute_pairwise_scores(
        "scores", "factors", target, train, per_device_query_batch_size=TARGETS, per_device_train_batch_size=CHUNK
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"].mean(0)


def dattri_conjugate_gradients(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """Influence by ten conjugate-gradient steps on the Hessian plus the anchor."""
    from dattri.algorithm.influence_function import IFAttributorCG
    from dattri.task import AttributionTask

    def loss(parameters: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        width = data[0].shape[-1]
        logits = torch.func.functional_call(model, parameters, tuple(half.reshape(-1, width) for half in data[:2]))
        return PositiveLoss()(logits) / logits.shape[0]

    task = AttributionTask(loss_func=loss, model=model, checkpoints=[model.state_dict()])
    attributor = IFAttributorCG(task=task, device="cpu", regularization=anchor)
    attributor.cache(DataLoader(train, batch_size=len(train)))
    with torch.no_grad():
        return attributor.attribute(DataLoader(train, batch_size=CHUNK), DataLoader(target, batch_size=TARGETS)).mean(1)


def trak(model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path) -> Tensor:
    """TRAK (Park et al. 2023) with one model."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    class Output(AbstractModelOutput):
        def __init__(self):
            pass

        @staticmethod
        def get_output(model, weights, buffers, image, text, label):
            logits = torch.func.functional_call(model, (weights, buffers), (image[None], text[None]))
            own = (-PositiveLoss()(logits)).clamp_max(-1e-6)
            return own - torch.log(-torch.expm1(own))  # the log odds of being matched

        @staticmethod
        def get_out_to_loss_grad(model, weights, buffers, batch):
            logits = torch.func.functional_call(model, (weights, buffers), tuple(batch[:2]))
            probability = logits.log_softmax(-1)[..., 0].mean(-1).exp()
            return (1.0 - probability).clone().detach().unsqueeze(-1)

    parameters = sum(value.numel() for value in model.parameters())
    projector = BasicProjector(
        parameters, PROJECTION, seed=0, proj_type=ProjectionType.normal, device=torch.device("cpu"), block_size=128
    )
    traker = TRAKer(
        model, Output(), train_set_size=len(train), save_dir=str(folder / "trak"), device="cpu", projector=projector,
        proj_dim=PROJECTION, use_half_precision=False, logging_level=logging.ERROR,
    )  # fmt: skip
    traker.load_checkpoint(model.state_dict(), model_id=0)
    for batch in DataLoader(train, batch_size=CHUNK):
        traker.featurize(batch=batch, num_samples=len(batch[0]))
    traker.finalize_features()
    traker.start_scoring_checkpoint("target", model.state_dict(), model_id=0, num_targets=TARGETS)
    for batch in DataLoader(target, batch_size=TARGETS):
        traker.score(batch=batch, num_samples=len(batch[0]))
    return torch.as_tensor(traker.finalize_scores(exp_name="target")).float().mean(1)


PEERS: dict[str, Peer] = {
    "captum_tracin": captum_tracin,
    "kronfluence_ekfac": kronfluence_ekfac,
    "dattri_cg": dattri_conjugate_gradients,
    "trak": trak,
}

WITHOUT_CURVATURE = {"captum_tracin"}
"""Peers that solve nothing: they are timed beside one round of our scores along the target's own gradient, too."""


def main() -> None:
    """Measure, print the figures as they come, write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2_048, help="N")
    parser.add_argument("--dim", type=int, default=128, help="of the shared space")
    parser.add_argument("--feature-dim", type=int, default=128, help="of the features of either tower")
    parser.add_argument("--batch", type=int, default=256, help="B")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="which of them to run")
    parser.add_argument("--limit", type=int, help="processor seconds after which a peer is stopped; none by default")
    parser.add_argument("--refits", type=int, default=3, help="of the head, each without another group of pairs")
    parser.add_argument("--seed", type=int, default=0, help="of features and partitions")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    write_asked(asked, measure(asked))


def measure(asked: argparse.Namespace) -> Figures:
    """Seconds of ours, of every peer (at the given weights) and of refits, one after the other, by name."""
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
    pairs, queries = (TensorDataset(half.image, half.text, torch.zeros(len(half))) for half in (train, target))
    for name in asked.peers:
        found = within(asked.limit, PEERS[name], model, pairs, queries, objective.anchor)
        if found is None:  # not finished
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
    """For people, as they come."""
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
    """By the clock, and of the processor: what a busy machine disturbs less."""

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
    """What some work took, and what came of it."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor), result


if __name__ == "__main__":
    main()
