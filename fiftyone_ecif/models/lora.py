"""The scope ``lora``: low-rank adapters on the towers, by peft."""

from __future__ import annotations

import copy
import re

import torch
from torch import Tensor, nn

from fiftyone_ecif.core import LOSSES, Objective, Pairs, Progress, partitions, silent
from fiftyone_ecif.models.contrastive import ContrastiveModel
from fiftyone_ecif.models.parameter_scope import ParameterScope, full_precision

ADAPTER = re.compile(r"(^|\.)lora_")
"""Found in the names of an adapter's parameters."""


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

    A model that has adapters is taken as it is. Else fresh ones are put around a copy of the model: on every linear
    layer that runs as a module (not the attention of ``nn.MultiheadAttention``, which reads its weights itself), or in
    a tower without any on its convolutions. They start without an effect and are trained briefly on the pairs, since
    at the start the derivative by half of an adapter's parameters is zero.

    Args:
        model: the open_clip model; it stays as it is
        pairs: preprocessed images and tokens, to train on
        rank: of fresh adapters
        training_steps: of Adam, one batch each
        batch_size: pairs per training batch
        learning_rate: of Adam
        seed: of fresh adapters and their batches
        micro_batch: see :class:`~fiftyone_ecif.models.parameter_scope.ParameterScope`
        autocast: likewise
        progress: called per training step

    Returns:
        a :class:`~fiftyone_ecif.models.parameter_scope.ParameterScope`

    Raises:
        ImportError: if fresh adapters are needed and peft is not installed
        ValueError: if a tower has no layer that can be adapted, or ``rank`` is below 1
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
    """A copy of an open_clip module with fresh adapters that change nothing yet; see :func:`lora_scope`.

    Args:
        module: the open_clip module
        images: (B, 3, H, W), any preprocessed images
        tokens: (B, context_length), any tokens
        rank: of the adapters
        seed: of their values
    """
    _check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"The rank of an adapter must be at least 1, not {rank}.")
    module = copy.deepcopy(module)
    like = module.logit_scale
    targets = _adaptable(module, "encode_image", images.to(like)) + _adaptable(
        module, "encode_text", tokens.to(like.device)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
        return inject_adapter_in_model(config, module).to(like).eval()


def check_adaptable(model: ContrastiveModel) -> None:
    """Raise an ImportError if the model has no adapters, and peft is not there to make some."""
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
    """Names of the layers of a tower that adapters can go on: linear ones, or convolutions where there are none."""
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
        f"The {tower} tower of this model has no linear layer or convolution that an adapter can go on: use the scope "
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
    """The scope after some steps of Adam on the pairs' loss."""
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
