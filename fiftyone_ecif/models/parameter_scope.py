"""Scopes inside the towers: θ may be any named parameters of an open_clip model."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize

from fiftyone_ecif.core.scope import Cotangent, LayerStatistics, Linearization, Scope, Tangent
from fiftyone_ecif.models.contrastive import ContrastiveModel
from fiftyone_ecif.models.projection import Encoder
from fiftyone_ecif.notes import note

SCALARS = ("logit_scale", "logit_bias")
"""These parameters belong to every scope, if the model has them."""


def parameter_scope(
    model: ContrastiveModel,
    scope: str = "full",
    micro_batch: int | None = None,
    autocast: torch.dtype | None = None,
) -> ParameterScope:
    """The scope of the logit scale and of all parameters, or of those whose names match a regular expression.

    Args:
        model: the model; one in bfloat16 or float16 is copied to float32, with a warning
        scope: "full", or a regular expression that is searched in the parameters' names
        micro_batch: see :class:`ParameterScope`
        autocast: see :class:`ParameterScope`

    Returns:
        a :class:`ParameterScope` at the model's own values

    Raises:
        ValueError: if the expression is not valid or finds no parameter, or ``autocast`` is neither bfloat16 nor
            float16
    """
    return ParameterScope.of(full_precision(model.model), chosen_parameters(model, scope), micro_batch, autocast)


def chosen_parameters(model: ContrastiveModel, scope: str) -> list[str]:
    """The names of the parameters that a scope selects; see :func:`parameter_scope`.

    Raises:
        ValueError: if the expression is not valid or finds no parameter
    """
    names = [name for name, value in model.model.named_parameters() if value.is_floating_point()]
    try:
        pattern = re.compile("" if scope == "full" else scope)
    except re.error as error:
        raise ValueError(
            f"scope {scope!r} is not 'head', 'lora' or 'full', and no regular expression either ({error})."
        ) from error
    chosen = [name for name in names if pattern.search(name)]
    if not chosen:
        raise ValueError(
            f"scope {scope!r} is not 'head', 'lora' or 'full', and as a regular expression it finds no parameter of "
            f"{model.name}. Near: {', '.join(_nearest(scope, names))}."
        )
    return chosen


@dataclass(frozen=True)
class ParameterScope(Scope):
    """Some parameters of an open_clip model; its inputs are preprocessed images and tokens.

    Towers run in evaluation mode. Embeddings are first computed without a graph, and their derivatives afterwards in
    micro-batches (GradCache, Gao et al. 2021), so that the memory of a graph does not bound the batch of the loss.

    Args:
        module: the open_clip module, whose own values are used for every parameter that is not in θ
        parameters: θ by name, float32 or float64, without a graph
        micro_batch: the number of images or texts in a tower at once, which does not change results; None for the
            whole batch
        autocast: dtype of mixed precision inside the towers; None for the dtype of the parameters
    """

    module: nn.Module = field(repr=False)
    parameters: dict[str, Tensor] = field(repr=False)
    micro_batch: int | None = None
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, not {self.micro_batch}.")
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"Mixed precision is torch.bfloat16 or torch.float16, not {self.autocast}.")

    @classmethod
    def of(
        cls, module: nn.Module, names: list[str], micro_batch: int | None = None, autocast: torch.dtype | None = None
    ) -> ParameterScope:
        """The scope of the named parameters and of :data:`SCALARS`, at the module's own values."""
        values = dict(module.named_parameters())
        scalars = [name for name in SCALARS if name in values]
        ordered = [name for name in values if name in set(names) and name not in scalars] + scalars
        return cls(module, {name: values[name].detach().clone() for name in ordered}, micro_batch, autocast)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}  # cached properties stay behind

    @property
    def size(self) -> int:
        """The number of parameters, P."""
        return sum(value.numel() for value in self.parameters.values())

    def vector(self) -> Tensor:
        """θ as one vector (P,): the parameters in the module's order, the scalars last."""
        return torch.cat([value.reshape(-1) for value in self.parameters.values()])

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Views of vectors (..., P) by parameter, each of shape (..., *shape of the parameter)."""
        parts = torch.split(vectors, [value.numel() for value in self.parameters.values()], dim=-1)
        return {
            name: part.view(part.shape[:-1] + value.shape)
            for (name, value), part in zip(self.parameters.items(), parts, strict=True)
        }

    def replace(self, vector: Tensor) -> ParameterScope:
        """The same scope with the parameters ``vector`` (P,)."""
        return replace(self, parameters=self.split(vector.detach()))

    def to(self, device: torch.device | str) -> ParameterScope:
        """The scope on another device, with a copy of the module."""
        if torch.device(device) == self.parameters["logit_scale"].device:
            return self
        moved = {name: value.to(device) for name, value in self.parameters.items()}
        return replace(self, module=copy.deepcopy(self.module).to(device), parameters=moved)

    def linearize(self, image_input: Tensor, text_input: Tensor) -> ParameterLinearization:
        """Embed one batch.

        Args:
            image_input: (B, 3, H, W), preprocessed
            text_input: (B, context_length), tokens

        Returns:
            a :class:`ParameterLinearization`
        """
        like = self.parameters["logit_scale"]
        return ParameterLinearization(self, image_input.to(like), text_input.to(like.device))

    def plain_module(self) -> nn.Module:
        """A copy of the model with θ written into it, and with adapters merged into the weights that they adapt."""
        module = copy.deepcopy(self.module)
        with torch.no_grad():
            for name, value in self.parameters.items():
                module.get_parameter(name).copy_(value)
        adapted = [name for name, layer in module.named_modules() if hasattr(layer, "get_base_layer")]
        for name in adapted:
            layer: Any = module.get_submodule(name)  # a layer of peft's
            layer.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, layer.get_base_layer())
        return module

    @cached_property
    def frozen(self) -> dict[str, Tensor]:
        """Every parameter of the module by name, without a graph."""
        return {name: value.detach() for name, value in self.module.named_parameters()}

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position in the vector at which each parameter starts."""
        positions, end = {}, 0
        for name, value in self.parameters.items():
            positions[name] = end
            end += value.numel()
        return positions

    @cached_property
    def linear_layers(self) -> dict[nn.Linear, int]:
        """The linear layers whose weight is in θ, with the position at which it starts in the vector."""
        return {
            layer: self.positions[f"{name}.weight"]
            for name, layer in self.module.named_modules()
            if isinstance(layer, nn.Linear) and f"{name}.weight" in self.positions
        }


class ParameterLinearization(Linearization):
    """The unit embeddings of a batch, with tangents by forward mode and pull-backs by reverse mode."""

    def __init__(self, scope: ParameterScope, images: Tensor, tokens: Tensor) -> None:
        self.scope = scope
        self._towers = _Tower(scope, "encode_image", images), _Tower(scope, "encode_text", tokens)
        self.image, self.text = (tower.embeddings() for tower in self._towers)
        self.logit_scale = scope.parameters["logit_scale"].reshape(())
        bias = scope.parameters.get("logit_bias")
        self.logit_bias = None if bias is None else bias.reshape(())

    def tangent(self, directions: Tensor) -> Tangent:
        parts = self.scope.split(directions)
        along = [{name: part[number] for name, part in parts.items()} for number in range(len(directions))]
        image, text = (torch.stack([tower.tangent(direction) for direction in along]) for tower in self._towers)
        bias = parts.get("logit_bias")
        return Tangent(image, text, parts["logit_scale"].reshape(-1), None if bias is None else bias.reshape(-1))

    def pull_back(self, cotangent: Cotangent) -> Tensor:
        like = self.scope.parameters["logit_scale"]
        result = torch.zeros(len(cotangent.logit_scale), self.scope.size, dtype=like.dtype, device=like.device)
        blocks = self.scope.split(result)
        for tower, gradient in zip(self._towers, cotangent[:2], strict=True):
            for inputs, weights in tower.micro_batches(gradient):
                leaves = {name: value.detach().requires_grad_() for name, value in self.scope.parameters.items()}
                with torch.enable_grad():
                    unit = tower.embed(leaves, inputs)
                if not unit.requires_grad:  # θ has no parameter in this tower
                    continue
                for number, gradients in enumerate(_pulled_back(unit, list(leaves.values()), weights)):
                    for block, part in zip(blocks.values(), gradients, strict=True):
                        if part is not None:
                            block[number] += part
        for position, scalar in self._scalar_gradients(cotangent):
            result[:, position] = scalar
        return result

    def layer_statistics(self, cotangent: Cotangent) -> Iterator[LayerStatistics]:
        layers = self.scope.linear_layers
        for tower, gradient in zip(self._towers, cotangent[:2], strict=True):
            for inputs, weights in tower.micro_batches(gradient):
                with torch.enable_grad(), _recorded(layers) as calls:
                    unit = tower.embed(self.scope.parameters, inputs)
                if not calls:
                    continue
                gradients = zip(*_pulled_back(unit, [output for _, _, output in calls], weights))
                for (layer, fed, output), by_output in zip(calls, gradients, strict=True):
                    parts = [torch.zeros_like(output) if part is None else part for part in by_output]
                    stacked = torch.stack(parts).flatten(1, -2)
                    yield LayerStatistics(layers[layer], fed.flatten(0, -2).to(weights), stacked.to(weights))
        for position, scalar in self._scalar_gradients(cotangent):
            yield LayerStatistics(position, scalar.new_ones(1, 1), scalar[:, None, None])

    def _scalar_gradients(self, cotangent: Cotangent) -> list[tuple[int, Tensor]]:
        found = zip(SCALARS, cotangent[2:], strict=True)
        return [(self.scope.positions[name], scalar) for name, scalar in found if scalar is not None]


class _Tower:
    """One tower's unit embeddings of a batch as a function of the parameters."""

    def __init__(self, scope: ParameterScope, method: str, inputs: Tensor) -> None:
        self.scope, self.encoder = scope, Encoder(scope.module, method)
        self.inputs = torch.split(inputs, scope.micro_batch or max(1, len(inputs)))

    def embed(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        values = {f"model.{name}": value for name, value in {**self.scope.frozen, **parameters}.items()}
        with attention_by_formula(), self._precision():
            raw = functional_call(self.encoder, values, (inputs,))
        return normalize(raw.to(parameters["logit_scale"].dtype), dim=-1)

    def embeddings(self) -> Tensor:
        """(B, D), without a graph."""
        with torch.no_grad():
            return torch.cat([self.embed(self.scope.parameters, inputs) for inputs in self.inputs])

    def tangent(self, direction: dict[str, Tensor]) -> Tensor:
        """(B, D), the derivative along a direction in parameter space."""
        with torch.no_grad():
            return torch.cat([self._tangent(inputs, direction) for inputs in self.inputs])

    def micro_batches(self, gradient: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (b, ...), each with its part (K, b, D) of gradients by the embeddings (K, B, D)."""
        return zip(self.inputs, torch.split(gradient, [len(inputs) for inputs in self.inputs], dim=1), strict=True)

    def _tangent(self, inputs: Tensor, direction: dict[str, Tensor]) -> Tensor:
        tangent: Tensor = jvp(partial(self.embed, inputs=inputs), (self.scope.parameters,), (direction,))[1]
        return tangent

    def _precision(self) -> AbstractContextManager[Any]:
        device = self.scope.parameters["logit_scale"].device.type
        return nullcontext() if self.scope.autocast is None else torch.autocast(device, self.scope.autocast)


def full_precision(module: nn.Module) -> nn.Module:
    """The module, or a copy of it in float32 where some of its weights have fewer bits."""
    short = {value.dtype for value in module.parameters() if value.is_floating_point() and value.dtype.itemsize < 4}
    if not short:
        return module
    note(
        f"The model's weights are {', '.join(sorted(map(str, short)))}: second-order quantities need more digits, so "
        "its towers are computed in float32."
    )
    return copy.deepcopy(module).float()


def _pulled_back(output: Tensor, wanted: list[Tensor], weights: Tensor) -> Iterator[tuple[Tensor | None, ...]]:
    """Derivatives of ⟨weights[k], output⟩ by the wanted tensors, for one k after the other."""
    last = len(weights) - 1
    for number, weight in enumerate(weights):
        yield torch.autograd.grad(output, wanted, weight, retain_graph=number < last, allow_unused=True)


@contextmanager
def _recorded(layers: dict[nn.Linear, int]) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
    """Each layer's input and output in every call inside the block; one can differentiate by the outputs."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def record(layer: nn.Linear, fed: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:
            output.requires_grad_()
        calls.append((layer, fed[0].detach(), output))
        return output.clone()  # an in-place operation must not change what was recorded

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_by_formula() -> Iterator[None]:
    """Compute attention by plain operations.

    Fused kernels have no forward-mode derivative, and some are not deterministic.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _nearest(pattern: str, names: list[str], shown: int = 4) -> list[str]:
    """The names most similar to a pattern, as a whole or in one of their parts."""

    def likeness(name: str) -> float:
        return max(
            difflib.SequenceMatcher(None, pattern.lower(), part.lower()).ratio() for part in (name, *name.split("."))
        )

    return sorted(names, key=likeness, reverse=True)[:shown]
