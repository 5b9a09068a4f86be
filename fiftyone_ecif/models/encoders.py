"""Encoders of images or texts alone: the pair that effective mutual information was published with, and any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.models.contrastive import ContrastiveModel

PUBLISHED_IMAGES = ("ViT-B-32-quickgelu", "openai")
PUBLISHED_TEXTS = "xlm-roberta-base"
"""The published pair: :class:`PatchMean` of CLIP ViT-B/32, and the embedding layer of XLM-R base."""

LONGEST = 512
"""Tokens of a text at most."""

PROBES = ["a photo of a cat", "Where is the red car?", "…", "0"]
"""Texts that tell encoders apart."""


class PatchMean(ContrastiveModel):
    """A model whose image features are the mean of the patch tokens of the last hidden state, before the final norm.

    Args:
        base: a model with open_clip's vision transformer

    Raises:
        ValueError: if it has another image tower
    """

    def __init__(self, base: ContrastiveModel) -> None:
        super().__init__(base.model, base.preprocess, base.tokenizer, base.name, base.pretrained, base.config)
        self.base = base
        self._tokens: list[Tensor] = []
        blocks = getattr(self._visual, "transformer", None)
        if not isinstance(blocks, nn.Module):
            raise ValueError(f"The image tower of {base.title} has no patch tokens: it is not a vision transformer.")
        blocks.register_forward_hook(lambda module, given, found: self._tokens.append(found))

    @property
    def title(self) -> str:
        """The model's, and that patch tokens are averaged."""
        return f"{self.base.title}, mean patch token"

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ from those of the model itself."""
        return hashlib.sha256(f"{self.base.fingerprint} patch mean".encode()).hexdigest()

    def image_features(self, images: Tensor) -> Tensor:
        """Mean patch tokens, (B, width), float32; the class token, which is the first, is left out."""
        self._tokens.clear()
        self.base.image_features(images)
        means: Tensor = self._tokens.pop()[:, 1:].float().mean(1)
        return means

    def head(self) -> Head:
        """The identity in the place of the image projection; texts are not for it to embed, and keep their features."""
        head = super().head()
        width = self.model.get_parameter("visual.class_embedding").shape[-1]
        return Head(torch.eye(width), torch.eye(width, head.text_weight.shape[1]), head.logit_scale, head.logit_bias)


class TokenMean:
    """A transformer's mean over a text's tokens; a :class:`~fiftyone_ecif.features.texts.TextEncoder`.

    Args:
        name: a folder, or the name of a model of Hugging Face
        layer: "last" for the last hidden state, as sentence encoders have it; "embedding" for what goes into the first
            block, without the start token, as published for EMI
        device: where it runs

    Raises:
        ValueError: if the model, or the library that runs it, is not here
    """

    def __init__(self, name: str, layer: str = "last", device: str = "cpu") -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise ValueError("A text encoder by its name needs transformers: pip install transformers.") from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModel.from_pretrained(name, use_safetensors=None).eval().to(device)
        except (OSError, ValueError) as error:
            raise ValueError(f"The text encoder {name!r} cannot be loaded: {error}") from error
        self.layer, self.device, self.dim = layer, device, int(self.model.config.hidden_size)
        self.title = name if layer == "last" else f"{name}, embedding layer"
        self.fingerprint = _fingerprint(self.title, self.encode)

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """The means, (B, dim), float32, on the CPU."""
        given = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        given = {name: value.to(self.device) for name, value in given.items()}
        mask = given["attention_mask"].float()
        if self.layer == "embedding":
            states = self.model(**given, output_hidden_states=True).hidden_states[0]
            mask[:, 0] = 0.0
        else:
            states = self.model(**given).last_hidden_state
        means: Tensor = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1.0)
        return means.float().cpu()


class GivenEncoder:
    """Somebody's own encoder; a :class:`~fiftyone_ecif.features.texts.TextEncoder`.

    What it computes for a few texts tells it from others, so that its vectors can be stored.

    Args:
        encoder: a function of a list of texts, or an object with such a method ``encode``, as sentence-transformers has

    Raises:
        ValueError: if it does not give a vector of numbers for each text
    """

    def __init__(self, encoder: Any) -> None:
        self._encode: Callable[[list[str]], Any] = getattr(encoder, "encode", encoder)
        self.title = type(encoder).__name__
        if not callable(self._encode):
            raise ValueError(
                "text_encoder must be the name of a text encoder, a function of a list of texts, or an object with "
                f"such a method encode, not {type(encoder).__name__}."
            )
        try:
            probe = self.encode(PROBES)
        except Exception as error:  # it is somebody's own, and may raise anything
            raise ValueError(f"The text encoder cannot read a list of texts: {error}") from error
        if probe.ndim != 2 or len(probe) != len(PROBES):
            raise ValueError(
                f"The text encoder gave {tuple(probe.shape)} numbers for {len(PROBES)} texts: it must give a vector "
                "for each."
            )
        self.dim = probe.shape[1]
        self.fingerprint = _fingerprint(self.title, self.encode)

    def encode(self, texts: list[str]) -> Tensor:
        """The vectors, (B, dim), float32, on the CPU."""
        return torch.as_tensor(self._encode(texts)).detach().float().cpu()


def _fingerprint(title: str, encode: Callable[[list[str]], Tensor]) -> str:
    """64 hexadecimal digits of what an encoder computes for a few texts, in five digits each."""
    found = torch.cat([encode([text]) for text in PROBES]).double()
    scaled = (found / found.abs().max().clamp_min(1e-12) * 1e4).round().to(torch.int64)
    return hashlib.sha256(title.encode() + scaled.numpy().tobytes()).hexdigest()
