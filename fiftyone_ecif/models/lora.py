"""The scope ``lora``: low-rank adapters on the towers, made by peft."""

from __future__ import annotations

import copy
import re

import torch
from torch import Tensor, nn

from fiftyone_ecif.core import LOSSES, Objective, Pairs, Progress, partitions, silent
from fiftyone_ecif.models.contrastive import ContrastiveModel
from fiftyone_ecif.models.parameter_scope import ParameterScope, full_precision

ADAPTER = re.compile(r"(^|\.)lora_")
"""Matches the names of an adapter's parameters."""


def lora_scope(
    model: ContrastiveModel,
    pairs: Pairs,
    rank: int = 8,
    training_steps: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    micro_batch: int | None = None,
    autocast: torch.dtype | None = None,
    progress: Progress = silent,
) -> ParameterScope:
    """The scope of the towers' LoRA adapters and the logit scale.

    A model that already has adapters is taken as it is. Otherwise, fresh adapters are added to a copy of the model: to
    every linear layer that runs as a module, or to the convolutions of a tower without such layers. The projections
    inside ``nn.MultiheadAttention`` do not run as modules, so they get none. Fresh adapters have no effect, and the
    derivatives by half of their parameters are zero, which is why they are trained briefly on the pairs.

    Args:
        model: the open_clip model, which does not change
        pairs: preprocessed images and tokens to train on
        rank: rank of fresh adapters
        training_steps: steps of Adam, with one batch each
        batch_size: pairs per training batch
        learning_rate: learning rate of Adam
        seed: seed of fresh adapters and their batches
        micro_batch: see :class:`~fiftyone_ecif.models.parameter_scope.ParameterScope`
        autocast: see :class:`~fiftyone_ecif.models.parameter_scope.ParameterScope`
        progress: called at every training step

    Returns:
        a :class:`~fiftyone_ecif.models.parameter_scope.ParameterScope`

    Raises:
        ImportError: if fresh adapters are needed but peft is not installed
        ValueError: if a tower has no layer that an adapter can be added to, or ``rank`` is below 1
    """
    module = full_precision(model.model)
    existing = _adapter_names(module)
    if existing:
        return ParameterScope.of(module, existing, micro_batch, autocast)
    images, tokens = pairs.gather(torch.arange(1))
    adapted = with_adapters(module, images, tokens, rank, seed)
    scope = ParameterScope.of(adapted, _adapter_names(adapted), micro_batch, autocast)
    return _trained(scope, pairs, model.loss, training_steps, batch_size, learning_rate, seed, progress)


def with_adapters(module: nn.Module, images: Tensor, tokens: Tensor, rank: int, seed: int) -> nn.Module:
    """A copy of an open_clip module with fresh adapters that have no effect yet; see :func:`lora_scope`.

    Args:
        module: the open_clip module
        images: (B, 3, H, W), any preprocessed images
        tokens: (B, context_length), any tokens
        rank: rank of the adapters
        seed: seed of their values

    Returns:
        the copy, in evaluation mode

    Raises:
        ImportError: if peft is not installed
        ValueError: if a tower has no layer that an adapter can be added to, or ``rank`` is below 1
    """
    _check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"The rank of an adapter must be at least 1, not {rank}.")
    module = copy.deepcopy(module)
    like = module.get_parameter("logit_scale")
    targets = _adaptable(module, "encode_image", images.to(like)) + _adaptable(
        module, "encode_text", tokens.to(like.device)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
        adapted: nn.Module = inject_adapter_in_model(config, module)
    return adapted.to(like).eval()


def check_adaptable(model: ContrastiveModel) -> None:
    """Raise an ImportError if the model has no adapters and peft is not installed to make some."""
    if not _adapter_names(model.model):
        _check_peft()


def _check_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ImportError("The scope 'lora' needs peft: pip install fiftyone-ecif[lora]") from error


def _adapter_names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters() if ADAPTER.search(name)]


def _adaptable(module: nn.Module, method: str, inputs: Tensor) -> list[str]:
    """Names of a tower's layers that adapters can be added to: linear ones, or convolutions if there are none."""
    ran: list[nn.Module] = []
    kinds = {
        layer: name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    handles = [layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in kinds]
    try:
        with torch.no_grad():
            getattr(module, method)(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for kind in (nn.Linear, nn.Conv2d):
        found = [kinds[layer] for layer in dict.fromkeys(ran) if isinstance(layer, kind)]
        if found:
            return found
    tower = method.removeprefix("encode_")
    raise ValueError(
        f"The {tower} tower of this model has no linear layer or convolution to add an adapter to: use the scope "
        "'full', or a regular expression of parameter names."
    )


def _trained(
    scope: ParameterScope,
    pairs: Pairs,
    loss: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
) -> ParameterScope:
    """The scope after some steps of Adam on the loss of the pairs."""
    theta = scope.vector()
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    batches: list[Tensor] = []
    for step in range(steps):
        progress("Train adapters", step, steps)
        if not batches:
            batches = partitions(len(pairs), min(batch_size, len(pairs)), 1, seed + step)[0]
        index = batches.pop()
        batch = Objective(pairs, [[index]], LOSSES[loss], divisor=len(index))
        theta.grad = batch.value_and_gradient(scope.replace(theta))[1]
        optimizer.step()
    progress("Train adapters", steps, steps)
    return scope.replace(theta)
