"""The last linear projection of a tower: where it is, how the tower runs without it, how a new one is written back."""

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
        embedded: Tensor = getattr(self.model, self.method)(inputs, normalize=False)
        return embedded


@dataclass(frozen=True)
class Projection:
    """The last linear map W of a tower: ``encode(x) = W @ features(x)``.

    Where the map has a bias, it is the last column of W, and the features end in a one. For a tower that does not end
    in a linear map, W is the identity.

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
        """The matrix W.

        Args:
            output_dim: D, which is needed only for a tower without a projection

        Returns:
            (D, F), float32, detached, on the CPU
        """
        if self.name is None:
            return torch.eye(output_dim)
        stored = self.model.get_parameter(self.name)
        columns = [stored.T if self.transposed else stored]
        if self.bias is not None:
            columns.append(self.model.get_parameter(self.bias)[:, None])
        return torch.cat([column.detach().float().cpu() for column in columns], dim=1)

    def features(self, inputs: Tensor) -> Tensor:
        """The projection's input for a batch.

        The tower runs with the identity in place of its projection. This works for a matrix, for an ``nn.Linear`` and
        for a weight that is passed to a functional attention, and it is exact in every dtype.

        Args:
            inputs: (B, ...), what the tower takes, on its device

        Returns:
            (B, F), float32, on the model's device, without a graph
        """
        with torch.no_grad():
            features: Tensor = functional_call(Encoder(self.model, self.method), self._identity(), (inputs,)).float()
        if self.bias is None:
            return features
        return torch.cat([features, features.new_ones(len(features), 1)], dim=1)

    def check_has_place(self) -> None:
        """Raise a ValueError unless a changed projection has a place in the model's checkpoint."""
        if self.name is None:
            tower = self.method.removeprefix("encode_")
            raise ValueError(
                f"This model's {tower} tower has no projection of its own, so a changed one cannot be folded into its "
                "checkpoint. Keep the head beside the checkpoint instead."
            )

    def written_back(self, weight: Tensor) -> dict[str, Tensor]:
        """State-dict entries that make the tower project with another matrix.

        Args:
            weight: (D, F)

        Returns:
            the entries by name, in the dtypes of the model and on its device; none for a tower without a projection

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
                self.check_has_place()
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
    return _first(model, "encode_image", _image_candidates(model.get_submodule("visual")))


def text_projection(model: nn.Module) -> Projection:
    """The last projection of an open_clip model's text tower (CLIP, CustomTextCLIP, CoCa, Hugging Face)."""
    prefix = "text." if hasattr(model, "text") else ""
    return _first(model, "encode_text", (prefix + name for name in ("text_projection", "proj")))


def _image_candidates(visual: nn.Module) -> Iterator[str]:
    """The names under which image towers keep their last projection, outermost first."""
    for name in ("proj", "attnpool.c_proj", "head.proj", "head.mlp.fc2", "head.pool.proj"):
        yield f"visual.{name}"
    if (trunk := getattr(visual, "trunk", None)) is not None:
        # A timm tower to which open_clip adds no projection ends in its trunk's own classifier, if the trunk has one.
        classifier = trunk.get_classifier()
        yield from (f"visual.{name}" for name, module in visual.named_modules() if module is classifier)


def _first(model: nn.Module, method: str, names: Iterator[str]) -> Projection:
    """The projection at the first of ``names`` where the model has a linear map."""
    for name in names:
        owner = _find(model, name)
        if isinstance(owner, nn.Sequential) and len(
            owner
        ):  # a two-layer projection of a Hugging Face tower ends in a Linear
            name, owner = f"{name}.{len(owner) - 1}", owner[-1]
        if isinstance(owner, nn.Parameter):
            return Projection(model, method, name, transposed=True)
        if isinstance(owner, nn.Linear):
            return Projection(model, method, f"{name}.weight", f"{name}.bias" if owner.bias is not None else None)
    return Projection(model, method)


def _find(model: nn.Module, name: str) -> object:
    """The attribute at a dotted name, or None where there is none."""
    found: object = model
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
