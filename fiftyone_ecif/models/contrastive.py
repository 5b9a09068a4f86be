"""An open_clip model taken apart into towers and head, and put together again."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.models.description import DESCRIPTION, Description
from fiftyone_ecif.models.preprocessing import Preprocess as Preprocess
from fiftyone_ecif.models.projection import Encoder, Projection, image_projection, text_projection
from fiftyone_ecif.models.saving import check_free, describe, files_beside, save, weights_path
from fiftyone_ecif.models.tokenizer import Tokenizer as Tokenizer
from fiftyone_ecif.notes import note

# The last tokens of a full context that may be no content: an end, padding and a class token.
_ENDING = 4
# A larger parameter enters the fingerprint as this many evenly spaced values.
_SAMPLED_VALUES = 65_536


class ContrastiveModel:
    """An open_clip model as tower features followed by a :class:`~fiftyone_ecif.core.head.Head`.

    ``normalise(features @ head.weight.T)`` is the model's own embedding, for either tower.

    Args:
        model: the open_clip module, which is put into eval mode
        preprocess: the validation transform, from a PIL image to a tensor (3, H, W)
        tokenizer: from a list of texts to int64 (B, context_length)
        name: open_clip's name of the architecture
        pretrained: the tag or checkpoint its weights came from; None for random or unknown weights, and for those that
            come with the name
        config: open_clip's configuration of the module, its sizes included; None where only the name is known
        load_arguments: those with which ``load_model`` makes it again; None where it was made in memory

    Attributes:
        image: where the image tower's last projection is
        text: where the text tower's last projection is
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Preprocess,
        tokenizer: Tokenizer,
        name: str,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        load_arguments: dict[str, Any] | None = None,
    ) -> None:
        self.model = model.eval()
        self.preprocess, self.tokenizer, self.name, self.pretrained = preprocess, tokenizer, name, pretrained
        self.config, self.load_arguments = config, load_arguments
        self.image: Projection = image_projection(model)
        self.text: Projection = text_projection(model)

    @property
    def title(self) -> str:
        """The model's name and weights, for people."""
        return " ".join(filter(None, (self.name, self.pretrained)))

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self.model.get_parameter("logit_scale").device

    @property
    def loss(self) -> str:
        """The loss that the model was made for: "siglip" where it has a logit bias, else "clip"."""
        return "clip" if getattr(self.model, "logit_bias", None) is None else "siglip"

    @cached_property
    def context_length(self) -> int:
        """The number of tokens that a text is cut or padded to."""
        return self.tokenize([""]).shape[1]

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the architecture's name, its preprocessing and its weights."""
        digest = hashlib.sha256(repr((self.name, getattr(self._visual, "preprocess_cfg", None))).encode())
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
            _scalar(self.model.get_parameter("logit_scale")),
            None if bias is None else _scalar(bias),
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens (B, context_length), int64, on the CPU."""
        return self.tokenizer(list(texts))

    def truncated(self, texts: list[str], tokens: Tensor) -> Tensor:
        """Tell which texts are longer than the context: given twice the room, they have more tokens of their own.

        Args:
            texts: B texts
            tokens: (B, context_length), their tokens

        Returns:
            bool (B,); all False where the tokenizer takes no context length, since this cannot be told then
        """
        cut = torch.zeros(len(texts), dtype=torch.bool)
        content = self._content(tokens)
        full = content[:, -_ENDING:].any(dim=1).nonzero().flatten()
        try:
            wider = self.tokenizer([*(texts[row] for row in full), ""], 2 * tokens.shape[1])[:-1]
        except TypeError:
            return cut
        cut[full] = self._content(wider).sum(1) > content[full].sum(1)
        return cut

    def _content(self, tokens: Tensor) -> Tensor:
        """Which tokens (B, L) stand for a text's own content: an empty text has all others, such as its end."""
        found: Tensor = torch.isin(tokens, self._empty, invert=True)
        return found

    @cached_property
    def _empty(self) -> Tensor:
        tokens: Tensor = self.tokenize([""]).unique()
        return tokens

    def image_features(self, images: Tensor) -> Tensor:
        """The input of the image projection.

        Args:
            images: (B, 3, H, W), preprocessed

        Returns:
            (B, F_image), float32, on the model's device; the last column is ones where the projection has a bias
        """
        return self.image.features(images.to(self.device, self._image_dtype))

    def text_features(self, tokens: Tensor) -> Tensor:
        """The input of the text projection.

        Args:
            tokens: (B, context_length), int64

        Returns:
            (B, F_text), float32, on the model's device; the last column is ones where the projection has a bias
        """
        return self.text.features(tokens.to(self.device))

    def with_head(self, head: Head) -> dict[str, Tensor]:
        """The model's state dict with another head in it; the model itself does not change.

        Args:
            head: has the shapes of :meth:`head`

        Returns:
            a state dict on the CPU, in the dtypes of the model

        Raises:
            ValueError: if the head does not fit the model, or changes the identity of a tower without a projection
        """
        if (head.logit_bias is None) != (self.loss == "clip"):
            raise ValueError(
                "The head and the model do not agree: one of them has a logit bias, and the other has none."
            )
        state = dict(self.model.state_dict())
        state.update(self.image.written_back(head.image_weight))
        state.update(self.text.written_back(head.text_weight))
        for name in ("logit_scale", "logit_bias"):
            if (value := getattr(head, name)) is not None:
                state[name] = value.detach().reshape(state[name].shape).to(state[name])
        return {name: value.detach().cpu() for name, value in state.items()}

    def check_checkpoint(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Refuse what :meth:`save_checkpoint` would refuse, before anything is computed for it.

        Args:
            path: as there
            overwrite: as there

        Raises:
            ValueError: as there
        """
        check_free(weights_path(path), self._beside, overwrite)

    def check_editable(self) -> None:
        """Raise a ValueError unless any head of this model's shapes can be written into its checkpoint."""
        self.image.check_has_place()
        self.text.check_has_place()

    def save_checkpoint(self, path: str | os.PathLike[str], head: Head | None = None, overwrite: bool = False) -> None:
        """Write a checkpoint that ``open_clip.create_model_and_transforms(name, pretrained=path)`` loads.

        Beside it goes ``open_clip_config.json``, and the files of a Hugging Face tokenizer. So in a folder of its own
        the model is whole: ``local-dir:FOLDER`` is open_clip's name for weights, preprocessing and tokenizer in one.

        Args:
            path: ends in ".safetensors", or in ".pt" for a plain state dict, which ``local-dir:`` does not look for;
                or is a folder's, for the file name that open_clip prefers
            head: replaces the model's own head; None writes the model as it is
            overwrite: whether to replace files that are there

        Raises:
            ValueError: if the path has another suffix, the head cannot be written back, or files are in the way
        """
        file = weights_path(path)
        check_free(file, self._beside, overwrite)
        # Contiguous copies: a transposed projection is a view, and safetensors refuses tensors that share memory.
        state = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in self.with_head(head or self.head()).items()
        }
        if missing := self._described[1]:
            note(
                f"{file.name} is written without {DESCRIPTION}, since the model's {missing} is not one that open_clip "
                "can make from a description. Keep what made it beside the checkpoint."
            )
        save(file, state, self._beside)

    @cached_property
    def _described(self) -> tuple[Description | None, str]:
        """What open_clip makes the same model from; or what of it cannot be described."""
        config = self.config or open_clip.get_model_config(self.name if ":" not in self.name else "")
        return describe(self.model, config, self.preprocess, self.tokenizer)

    @cached_property
    def _beside(self) -> dict[str, bytes]:
        """The files that belong beside the model's weights."""
        return files_beside(self._described[0], self.tokenizer)

    @cached_property
    def _output_dim(self) -> int:
        """The dimension of the shared space, found by encoding a text, since not every tower states it."""
        with torch.no_grad():
            encoded: Tensor = Encoder(self.model, "encode_text")(self.tokenize([""]).to(self.device))
        return encoded.shape[-1]

    @cached_property
    def _image_dtype(self) -> torch.dtype:
        """The dtype of the first convolution, since class and position embeddings are float32 in mixed precision."""
        convolutions = (module.weight for module in self._visual.modules() if isinstance(module, nn.Conv2d))
        return next(convolutions, next(self._visual.parameters())).dtype

    @property
    def _visual(self) -> nn.Module:
        return self.model.get_submodule("visual")


def wrap_model(
    model: nn.Module,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    *,
    name: str,
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
) -> ContrastiveModel:
    """Take an open_clip model apart that is already loaded.

    Args:
        model: an open_clip CLIP, CustomTextCLIP or CoCa module
        preprocess: its validation transform, from a PIL image to a tensor (3, H, W)
        tokenizer: its tokenizer, from a list of texts to int64 (B, context_length)
        name: the architecture's name, which is part of the fingerprint
        pretrained: a name of its weights, which runs record
        config: open_clip's configuration of it, for the description beside its checkpoints; None for that of ``name``

    Returns:
        a :class:`ContrastiveModel`

    Raises:
        ValueError: if ``model`` is not a model with two towers and a logit scale
    """
    for attribute in ("encode_image", "encode_text", "visual", "logit_scale"):
        if not hasattr(model, attribute):
            raise ValueError(f"{type(model).__name__} has no {attribute!r}: pass a model that open_clip made.")
    return ContrastiveModel(model, preprocess, tokenizer, name, pretrained, config)


def _scalar(parameter: Tensor) -> Tensor:
    """A parameter as a scalar (), float32, on the CPU; some checkpoints keep it with the shape (1,)."""
    return parameter.detach().float().cpu().reshape(()).clone()
