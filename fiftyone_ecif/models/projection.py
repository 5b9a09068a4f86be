"""A tower's own last linear projection: where it is, how to run the tower without it, how to write a new one back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Encoder(nn.Module):
    """One of the model's two ``encode_*`` methods as a module, so that its parameters can be replaced for a call."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, inputs: Tensor) -> Tensor:
        return getattr(self.model, self.method)(inputs, normalize=False)


@dataclass(frozen=True)
class Projection:
    """The last linear map W of a tower: ``encode(x) = W @ features(x)``.

    A bias is the last column of the weight, and the features then end in a one. A tower without a linear map at its
    end has the identity.

    Args:
        model: the open_clip model
        method: "encode_image" or "encode_text"
        name: the weight's name in the model's state dict; None for a tower without a projection
        bias: the bias's name in the state dict, or None
        transposed: whether the weight is stored as (F, D), for ``x @ weight``
    """

    model: nn.Module = field(repr=False)
    method: str
    name: str | None = None
    bias: str | None = None
    transposed: bool = False

    def weight(self, output_dim: int) -> Tensor:
        """W (D, F), float32, detached, on the CPU; ``output_dim`` D is only read where there is no projection."""
        if self.name is None:
            return torch.eye(output_dim)
        stored = self.model.get_parameter(self.name)
        columns = [stored.T if self.transposed else stored]
        if self.bias is not None:
            columns.append(self.model.get_parameter(self.bias)[:, None])
        return torch.cat([column.detach().float().cpu() for column in columns], dim=1)

    def features(self, inputs: Tensor) -> Tensor:
        """What the projection is given for a batch: (B, F), float32, without a graph.

        The tower runs with the projection replaced by the identity. That holds for a matrix, a Linear and a weight
        handed to a functional attention alike, and is exact in every dtype.
        """
        with torch.no_grad():
            features = functional_call(Encoder(self.model, self.method), self._identity(), (inputs,)).float()
        if self.bias is None:
            return features
        return torch.cat([features, features.new_ones(len(features), 1)], dim=1)

    def written_back(self, weight: Tensor) -> dict[str, Tensor]:
        """State-dict entries that make the tower project with ``weight`` (D, F).

        Raises:
            ValueError: if the shape differs, or the tower has no projection and ``weight`` is not the identity
        """
        tower = self.method.removeprefix("encode_")
        current = self.weight(weight.shape[0])
        if weight.shape != current.shape:
            raise ValueError(
                f"The head's {tower} weight is {tuple(weight.shape)}, this model's is {tuple(current.shape)}."
            )
        if self.name is None:
            if not torch.equal(weight.detach().float().cpu(), current):
                raise ValueError(
                    f"This model's {tower} tower has no projection of its own, so a changed one cannot be folded into "
                    "its checkpoint. Keep the head beside the checkpoint instead."
                )
            return {}
        entries = {}
        if self.bias is not None:
            weight, bias = weight[:, :-1], weight[:, -1]
            entries[self.bias] = bias
        entries[self.name] = weight.T if self.transposed else weight
        return {name: value.detach().to(self.model.get_parameter(name)) for name, value in entries.items()}

    def _identity(self) -> dict[str, Tensor]:
        if self.name is None:
            return {}
        stored = self.model.get_parameter(self.name)
        width = stored.shape[0] if self.transposed else stored.shape[1]
        replaced = {f"model.{self.name}": torch.eye(width, dtype=stored.dtype, device=stored.device)}
        if self.bias is not None:
            replaced[f"model.{self.bias}"] = self.model.get_parameter(self.bias).new_zeros(width)
        return replaced


def image_projection(model: nn.Module) -> Projection:
    """The last projection of an open_clip model's image tower (ViT, ModifiedResNet, timm)."""
    return _first(model, "encode_image", _image_candidates(model.visual))


def text_projection(model: nn.Module) -> Projection:
    """The last projection of an open_clip model's text tower (CLIP, CustomTextCLIP, CoCa, Hugging Face)."""
    prefix = "text." if hasattr(model, "text") else ""
    return _first(model, "encode_text", (prefix + name for name in ("text_projection", "proj")))


def _image_candidates(visual: nn.Module) -> Iterator[str]:
    """Where image towers keep their last projection, outermost first."""
    for name in ("proj", "attnpool.c_proj", "head.proj", "head.mlp.fc2", "head.pool.proj"):
        yield f"visual.{name}"
    if hasattr(visual, "trunk"):  # timm without a projection of open_clip's: the trunk's classifier, where it has one
        classifier = visual.trunk.get_classifier()
        yield from (f"visual.{name}" for name, module in visual.named_modules() if module is classifier)


def _first(model: nn.Module, method: str, names: Iterator[str]) -> Projection:
    """The first of ``names`` that is a linear map of the model."""
    for name in names:
        owner = _find(model, name)
        if isinstance(owner, nn.Sequential) and len(owner):  # Hugging Face's two-layer projection ends in a Linear
            name, owner = f"{name}.{len(owner) - 1}", owner[-1]
        if isinstance(owner, nn.Parameter):
            return Projection(model, method, name, transposed=True)
        if isinstance(owner, nn.Linear):
            return Projection(model, method, f"{name}.weight", f"{name}.bias" if owner.bias is not None else None)
    return Projection(model, method)


def _find(model: nn.Module, name: str) -> object:
    """The attribute at a dotted name, or None."""
    found: object = model
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
