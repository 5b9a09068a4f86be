"""Seconds of a scope inside the towers beside an epoch of training the same parameters by autograd."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.report.measured import Measured
from benchmarks.speed.embedding import made_up_images, random_model
from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, influence, partitions
from fiftyone_ecif.features import RawPairs
from fiftyone_ecif.models import lora_scope, parameter_scope

ADAPTER_STEPS = 5


def tower_figures(
    folder: Path, model_name: str, scope_name: str, count: int, settings: Settings, device: str, repeats: int
) -> dict[str, float]:
    """The score pass, and curvature, fit and solve of a run, in epochs of one forward and backward pass.

    Args:
        folder: for images
        model_name: open_clip's name of the architecture; its weights are random
        scope_name: "lora", "full" or a regular expression of parameters' names
        count: pairs, and a quarter as many target pairs
        settings: of the run
        device: where to compute
        repeats: of every timing

    Returns:
        the figures by name
    """
    model = random_model(model_name, device)
    rows = made_up_images(folder, count + count // 4, images=64)
    images, tokens = RawPairs(model, rows).gather(torch.arange(len(rows)))
    pairs, target = TensorPairs(images[:count], tokens[:count]), TensorPairs(images[count:], tokens[count:])
    if scope_name == "lora":
        scope = lora_scope(model, pairs, training_steps=ADAPTER_STEPS, batch_size=settings.batch_size)
    else:
        scope = parameter_scope(model, scope_name)
    scope = scope.to(device)
    objective = Objective(pairs, partitions(count, settings.batch_size, 1, settings.seed), LOSSES[model.loss])
    direction = torch.randn(1, scope.size, generator=torch.Generator().manual_seed(settings.seed)).to(device)
    trained = copy.deepcopy(scope.module)
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(name in scope.parameters)
    timed = Measured(
        {
            "scores": lambda: influence(objective, scope, direction),
            "epoch": lambda: training_epoch(trained, pairs, objective.rounds[0], device),
        },
        repeats,
        device,
    )
    outcome = compute(Attributed(scope, pairs, target, probes=1), model.loss, settings, device)
    epoch, report = timed.seconds("epoch"), outcome.reports[0]
    return {
        "parameters": float(scope.size),
        "pairs_per_second_scores": count / timed.seconds("scores"),
        "epoch_seconds": epoch,
        **timed.ratio("epoch_ratio", "scores", "epoch"),
        "solve_epochs": (outcome.timings["curvature"] + outcome.timings["solve"]) / epoch,
        **{f"{step}_epochs": outcome.timings[step] / epoch for step in ("curvature", "fit", "scores")},
        "solver_iterations": float(report.solver_iterations),
        "solver_relative_residual": report.solver_relative_residual,
        "fit_relative_gradient": report.fit_relative_gradient,
    }


def training_epoch(module: Any, pairs: TensorPairs, batches: list[Tensor], device: str) -> None:
    """One forward and backward pass of open_clip's loss through the towers, by autograd."""
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    for index in batches:
        image, text = (part.to(device) for part in pairs.gather(index))
        u, v = normalize(module.encode_image(image), dim=1), normalize(module.encode_text(text), dim=1)
        loss(u, v, module.logit_scale.exp()).backward()
        module.zero_grad()
