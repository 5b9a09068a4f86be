"""Image-text-to-text models of Hugging Face: their answers, and how likely a text is to them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fiftyone_ecif.preference.asking import CannotAnswer
from fiftyone_ecif.preference.noise import weakened

_SAMPLED_VALUES = 4_096


class VisionLanguageModel:
    """A model with its processor; a :class:`~fiftyone_ecif.preference.asking.Generator`, and a judge of texts.

    Args:
        model: of Hugging Face, image-text-to-text; put into eval mode
        processor: its processor
        temperature: of answers; 0 for the likeliest tokens
        longest: tokens of an answer
    """

    patience = math.inf

    def __init__(self, model: Any, processor: Any, temperature: float = 0.2, longest: int = 256) -> None:
        self.model, self.processor = model.eval(), processor
        self.temperature, self.longest = temperature, longest
        self.title = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the weights, the template and how answers are drawn."""
        drawn = (self.temperature, self.longest, getattr(self.processor, "chat_template", None))
        digest = hashlib.sha256(repr((type(self.model).__name__, drawn)).encode())
        for name, value in sorted(self.model.state_dict().items()):
            flat = value.detach().reshape(-1)
            sample = flat[:: max(1, len(flat) // _SAMPLED_VALUES)]
            digest.update(repr((name, tuple(value.shape))).encode() + sample.double().cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def markers(self) -> list[str]:
        """Tokens that mean something to the model, as its place for an image: no text may hold them."""
        return [str(each) for each in self._tokenizer.all_special_tokens]

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    @torch.no_grad()
    def answer(
        self, images: Sequence[Image.Image], prompts: Sequence[str], steps: Sequence[int], seeds: Sequence[int]
    ) -> list[str]:
        """Answers to the weakened images, each of which is the only image that the model is shown for it."""
        given = self._inputs(images, [self._asked(each) for each in prompts], steps, seeds)
        if given is None:
            alone = [self.answer([image], [prompt], [step], [seed]) for image, prompt, step, seed in
                     zip(images, prompts, steps, seeds, strict=True)]  # fmt: skip
            return [text for texts in alone for text in texts]
        drawn = {"do_sample": True, "temperature": self.temperature} if self.temperature > 0 else {"do_sample": False}
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(seeds[0])
            tokens = self.model.generate(**given, max_new_tokens=self.longest, **drawn)
        texts = self._tokenizer.batch_decode(tokens[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.no_grad()
    def fit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        texts: Sequence[str],
        steps: Sequence[int],
        seeds: Sequence[int],
    ) -> list[float]:
        """The mean log-likelihood of each text's tokens as an answer, in nats per token."""
        found = []
        for image, prompt, text, step, seed in zip(images, prompts, texts, steps, seeds, strict=True):
            asked = self._asked(prompt)
            before = self._inputs([image], [asked], [step], [seed])
            whole = self._inputs([image], [asked + text], [step], [seed])
            assert before is not None and whole is not None  # one image goes with any processor
            start = min(before["input_ids"].shape[1], whole["input_ids"].shape[1] - 1)
            logits = self.model(**whole).logits[0, start - 1 : -1].float()
            tokens = whole["input_ids"][0, start:]
            found.append(float(logits.log_softmax(1).gather(1, tokens[:, None]).mean()))
        return found

    def _asked(self, prompt: str) -> str:
        """A prompt about an image, as the model's chat template writes it."""
        if getattr(self.processor, "chat_template", None) is None:
            raise CannotAnswer("the model has no chat template, so that it cannot be asked")
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return str(
            self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        )

    def _inputs(
        self, images: Sequence[Image.Image], texts: list[str], steps: Sequence[int], seeds: Sequence[int]
    ) -> dict[str, Tensor] | None:
        """What the model takes; None if its pixels are not one row per image, so that each has to go alone."""
        begun = self._tokenizer.bos_token is not None and texts[0].startswith(self._tokenizer.bos_token)
        given = self.processor(
            images=[[image] for image in images],
            text=texts,
            padding=True,
            padding_side="left",
            add_special_tokens=not begun,
            return_tensors="pt",
        )
        pixels = given["pixel_values"]
        if len(images) == 1:
            pixels = weakened(pixels, steps[0], seeds[0])
        elif len(pixels) == len(images):
            pixels = torch.stack([weakened(*each) for each in zip(pixels, steps, seeds, strict=True)])
        else:
            return None
        given["pixel_values"] = pixels.to(self.model.dtype)
        return {name: value.to(self.model.device) for name, value in given.items()}


def load_vision_language(name: str, device: str, temperature: float, longest: int) -> VisionLanguageModel:
    """Load a model from a folder or by its name.

    Raises:
        ValueError: if the model, or the library that runs it, is not here
    """
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise ValueError("A model by its name needs transformers: pip install transformers.") from error
    try:
        processor = AutoProcessor.from_pretrained(name)
        model = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"The model {name!r} cannot be loaded: {error}") from error
    return VisionLanguageModel(model.to(device), processor, temperature, longest)
