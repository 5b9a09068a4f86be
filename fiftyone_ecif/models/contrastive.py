"""An open_clip model taken apart into towers and head, and put together again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.models.projection import Projection, image_projection, text_projection

# A larger parameter enters the fingerprint as this many evenly spaced values.
_SAMPLED_VALUES = 65_536


class ContrastiveModel:
    """An open_clip model as tower features followed by a :class:`~fiftyone_ecif.core.head.Head`.

    ``normalise(features @ head.weight.T)`` is the model's own embedding, for either tower.

    Args:
        model: the open_clip module; put into eval mode
        preprocess: PIL image to tensor (3, H, W), the validation transform
        tokenizer: list of texts to int64 (B, context_length)
        name: open_clip's name of the architecture
        pretrained: the tag or checkpoint its weights came from; None for random or unknown weights

    Attributes:
        image: where the image tower's last projection is
        text: where the text tower's last projection is
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable,
        tokenizer: Callable,
        name: str,
        pretrained: str | None = None,
    ) -> None:
        self.model = model.eval()
        self.preprocess, self.tokenizer, self.name, self.pretrained = preprocess, tokenizer, name, pretrained
        self.image: Projection = image_projection(model)
        self.text: Projection = text_projection(model)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.logit_scale.device

    @property
    def loss(self) -> str:
        """The loss the model was made for: "siglip" where it has a logit bias, else "clip"."""
        return "clip" if getattr(self.model, "logit_bias", None) is None else "siglip"

    @cached_property
    def context_length(self) -> int:
        """Number of tokens a text is cut or padded to."""
        return self.tokenize([""]).shape[1]

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the architecture's name, its preprocessing and its weights."""
        digest = hashlib.sha256(repr((self.name, getattr(self.model.visual, "preprocess_cfg", None))).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
            flat = value.detach().reshape(-1)
            sample = flat[:: max(1, len(flat) // _SAMPLED_VALUES)]
            digest.update(sample.double().cpu().numpy().tobytes())
        return digest.hexdigest()

    def head(self) -> Head:
        """The towers' last projections, the log logit scale and the logit bias: float32, on the CPU."""
        bias = getattr(self.model, "logit_bias", None)
        return Head(
            self.image.weight(self._output_dim),
            self.text.weight(self._output_dim),
            _scalar(self.model.logit_scale),
            None if bias is None else _scalar(bias),
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens (B, context_length), int64, on the CPU."""
        return self.tokenizer(list(texts))

    def truncated(self, texts: list[str], tokens: Tensor) -> Tensor:
        """Which texts are longer than the context.

        Args:
            texts: B texts
            tokens: (B, context_length), their tokens

        Returns:
            bool (B,); all False for a tokenizer that takes no ``context_length``, which cannot tell
        """
        cut = torch.zeros(len(texts), dtype=torch.bool)
        full = (tokens[:, -1] != self.tokenize([""])[0, -1]).nonzero().flatten().tolist()
        try:  # with room for one token more, that token is padding unless the text goes on
            *last, padding = self.tokenizer([texts[row] for row in full] + [""], self.context_length + 1)[:, -1]
        except TypeError:
            return cut
        cut[full] = torch.tensor([token != padding for token in last], dtype=torch.bool)
        return cut

    def image_features(self, images: Tensor) -> Tensor:
        """What the image projection is given.

        Args:
            images: (B, 3, H, W), preprocessed

        Returns:
            (B, F_image), float32, on the model's device; the last column is ones where the projection has a bias
        """
        return self.image.features(images.to(self.device, self._image_dtype))

    def text_features(self, tokens: Tensor) -> Tensor:
        """What the text projection is given.

        Args:
            tokens: (B, context_length), int64

        Returns:
            (B, F_text), float32, on the model's device; the last column is ones where the projection has a bias
        """
        return self.text.features(tokens.to(self.device))

    def with_head(self, head: Head) -> dict[str, Tensor]:
        """The model's state dict with a head written back into it; the model itself stays as it is.

        Args:
            head: of the shapes of :meth:`head`

        Returns:
            a state dict on the CPU, in the dtypes of the model

        Raises:
            ValueError: if the head does not fit the model, or changes a projection that the model does not have
        """
        if (head.logit_bias is None) != (self.loss == "clip"):
            raise ValueError("Either the head or the model has a logit bias, the other has none.")
        state = dict(self.model.state_dict())
        state.update(self.image.written_back(head.image_weight))
        state.update(self.text.written_back(head.text_weight))
        for name in ("logit_scale", "logit_bias"):
            if (value := getattr(head, name)) is not None:
                state[name] = value.detach().reshape(state[name].shape).to(state[name])
        return {name: value.detach().cpu() for name, value in state.items()}

    def save_checkpoint(self, path: str | os.PathLike, head: Head | None = None) -> None:
        """Write a checkpoint that ``open_clip.create_model_and_transforms(name, pretrained=path)`` loads.

        A checkpoint holds weights only: where the model's tag comes with its own image mean and standard deviation,
        hand ``model.visual.preprocess_cfg`` on beside it.

        Args:
            path: ends in ".safetensors", or in ".pt" for a plain state dict
            head: replaces the model's own; None writes the model as it is

        Raises:
            ValueError: if the suffix is another, or the head cannot be written back
        """
        path = Path(path)
        if path.suffix not in (".safetensors", ".pt"):
            raise ValueError(f"A checkpoint's name ends in .safetensors or .pt, not {path.name!r}.")
        # Contiguous copies: a transposed projection is a view, and safetensors refuses tensors that share memory.
        state = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in self.with_head(head or self.head()).items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        if path.suffix == ".safetensors":
            save_file(state, part)
        else:
            torch.save(state, part)
        part.replace(path)

    @cached_property
    def _output_dim(self) -> int:
        """Dimension of the shared space, asked of the text tower: not every tower knows it."""
        with torch.no_grad():
            return self.model.encode_text(self.tokenize([""]).to(self.device)).shape[-1]

    @cached_property
    def _image_dtype(self) -> torch.dtype:
        """What the first convolution takes: in mixed precision, class and position embeddings stay float32."""
        convolutions = (module.weight for module in self.model.visual.modules() if isinstance(module, nn.Conv2d))
        return next(convolutions, next(self.model.visual.parameters())).dtype


def wrap_model(
    model: nn.Module, preprocess: Callable, tokenizer: Callable, *, name: str, pretrained: str | None = None
) -> ContrastiveModel:
    """Take apart an open_clip model that is already loaded.

    Args:
        model: an open_clip CLIP, CustomTextCLIP or CoCa module
        preprocess: its validation transform, PIL image to tensor (3, H, W)
        tokenizer: its tokenizer, list of texts to int64 (B, context_length)
        name: the architecture's name, which enters the fingerprint
        pretrained: what its weights are, for the record

    Returns:
        a :class:`ContrastiveModel`

    Raises:
        ValueError: if ``model`` is not a model with two towers and a logit scale
    """
    for attribute in ("encode_image", "encode_text", "visual", "logit_scale"):
        if not hasattr(model, attribute):
            raise ValueError(f"{type(model).__name__} has no {attribute!r}: hand in a model made by open_clip.")
    return ContrastiveModel(model, preprocess, tokenizer, name, pretrained)


def _scalar(parameter: Tensor) -> Tensor:
    """A scalar (), float32, on the CPU; some checkpoints keep it with shape (1,)."""
    return parameter.detach().float().cpu().reshape(()).clone()
