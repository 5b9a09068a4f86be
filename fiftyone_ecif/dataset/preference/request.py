"""What a run of preference pairs is asked for: every parameter once, as those of ECIF are in ``compute/request.py``.

Cheap to import: no tensors, no models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fiftyone_ecif.dataset.arguments import PROBABILITY, Flag, Number, Text, Texts, WholeNumber, shown
from fiftyone_ecif.dataset.fields import ORIGINS
from fiftyone_ecif.dataset.parameters import (
    DEVICE,
    OVERWRITE,
    PROGRESS,
    RUN_KEY,
    SEED,
    Model,
    Request,
    about,
    described,
)

LAST_STEP = 999
"""Of the noise schedule."""


FORMS = {
    "dpo": "DPO: prompt, chosen, rejected and images, as TRL's DPOTrainer reads them",
    "kto": "KTO: prompt, completion, label and images, as TRL's KTOTrainer reads them",
    "llava": "LLaVA: conversations with the right answers alone, for fine-tuning",
}
"""What pairs can be written as."""

CONTAINERS = {
    "jsonl": "JSON: one file, train.jsonl or llava.json",
    "parquet": "Hugging Face dataset: a Parquet file that load_dataset() reads with its images",
}
"""What files they can be written to."""


class Answering:
    """A model that answers questions about images."""

    def __call__(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return Text()(name, value)
        if callable(value) or hasattr(value, "answer"):
            return value
        raise ValueError(
            f"{name} must be a folder or the Hugging Face name of an image-text-to-text model, or a function of images "
            f"and prompts that gives texts, not {type(value).__name__}."
        )


class NoiseSteps:
    """Steps of the noise schedule."""

    def __call__(self, name: str, value: Any) -> list[int]:
        given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not given:
            raise ValueError(f"{name} must name at least one step, such as 700.")
        return list(dict.fromkeys(WholeNumber(1, LAST_STEP)(f"Each of {name}", each) for each in given))


class Origins:
    """Where wrong answers come from."""

    def __call__(self, name: str, value: Any) -> list[str]:
        given = list(dict.fromkeys(Texts()(name, list(value) if isinstance(value, tuple) else value)))
        strange = [each for each in given if each not in ORIGINS]
        if strange or not given:
            what = f"not {shown(strange[0])}" if strange else "and not empty"
            raise ValueError(f"{name} must be some of {', '.join(ORIGINS)}, {what}.")
        return given


@dataclass(frozen=True)
class PreferenceRequest(Request):
    """The parameters of ``build_preferences`` but the samples, converted to plain Python and checked one by one.

    Raises:
        ValueError: for a value that cannot work; names the parameter and what it may be
    """

    chosen_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with the right answers, or captions; labels serve, too. Needed",
            label="Right answers",
            hint="The field that holds the right answer, or the caption, of each image",
        ),
    )
    prompt_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with what is asked about each image; None for the same ``prompt`` about all",
            label="Prompts",
            hint="The field that holds what is asked about each image; left empty, the same prompt goes with all",
        ),
    )
    prompt: str = field(
        default="Describe the image.",
        metadata=about(
            Text(),
            "what is asked about every image, without a ``prompt_field``",
            label="Prompt",
            hint="What is asked about every image, where no field says it",
        ),
    )
    negatives: Sequence[str] = field(
        default=tuple(ORIGINS),
        metadata=about(
            Origins(),
            'where wrong answers come from: "fixed" for texts that fixes replaced, "image_weakened" for what ``model`` '
            'says of a weakened image, "error_injected" for right answers with something wrong in them',
        ),
    )
    model: Any = field(
        default=None,
        metadata=about(
            Answering(),
            "what answers about weakened images: a folder, the Hugging Face name of an image-text-to-text model, a "
            "``fiftyone_ecif.preference.VisionLanguageModel``, or a function of PIL images and prompts that gives as "
            "many texts, as one that asks an endpoint",
            stored=False,
            label="Model",
            hint="A folder, or the Hugging Face name of an image-text-to-text model",
        ),
    )
    rewriter: Any = field(
        default=None,
        metadata=about(
            Answering(),
            "what rewrites right answers into wrong ones, likewise; None to exchange an object, a count, a colour or a "
            "relation for one that the image does not show by ``clip``",
            stored=False,
        ),
    )
    suspects_run: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "an ECIF run: its model is the ``clip``, and its suggestions count with ``min_confidence``",
            label="ECIF run",
            hint="The run whose model says what an image shows, and whose suggestions can be used",
        ),
    )
    min_confidence: float | None = field(
        default=None,
        metadata=about(
            PROBABILITY,
            'suggestions of at least this confidence count as corrections, for "fixed"; None for none',
            label="Confidence of suggestions",
            hint="Suggestions from this confidence on count as corrections; left empty, none do",
        ),
    )
    clip: Any = field(
        default=None,
        metadata=about(
            Model(),
            "open_clip's name of a model, or a loaded one, that says what an image shows; None for the one of "
            "``suspects_run``",
            stored=False,
        ),
    )
    clip_pretrained: str | None = field(
        default=None,
        metadata=about(Text(), "open_clip's tag of its weights, or the path of a checkpoint", stored=False),
    )
    noise_steps: Sequence[int] = field(
        default=(500, 700, 900),
        metadata=about(
            NoiseSteps(), "steps t of the noise, 1 to 999, each of which gives a wrong answer; published: 500 to 900"
        ),
    )
    temperature: float = field(
        default=0.2,
        metadata=about(Number(0.0, 5.0), "of the answers of a ``model`` by its name; 0 for the likeliest tokens"),
    )
    max_new_tokens: int = field(
        default=256, metadata=about(WholeNumber(1, 8192), "tokens of an answer at most, likewise")
    )
    batch_size: int = field(default=8, metadata=about(WholeNumber(1, 4096), "questions that a model gets at a time"))
    concurrency: int = field(
        default=4, metadata=about(WholeNumber(1, 256), "calls of a function at a time; a model on this machine has one")
    )
    retries: int = field(default=2, metadata=about(WholeNumber(0, 100), "repetitions of a call that fails"))
    timeout: float = field(
        default=300.0, metadata=about(Number(0.0, above=True), "seconds after which a function's call is given up")
    )
    balance: bool = field(
        default=False,
        metadata=about(
            Flag(),
            "whether to leave out as many pairs as it takes until the mean lengths of chosen and rejected texts differ "
            "by 5 % at most",
            label="Balance lengths",
        ),
    )
    run_key: str = field(default="preference", metadata=RUN_KEY)
    seed: int = field(default=0, metadata=SEED)
    device: str | None = field(default=None, metadata=DEVICE)
    overwrite: bool = field(default=False, metadata=OVERWRITE)
    progress: bool | Callable[[str, int, int], None] | None = field(default=None, metadata=PROGRESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chosen_field is None:
            raise ValueError("Pass chosen_field: the field that holds the right answer, or the caption, of each image.")
        if "image_weakened" in self.negatives and self.model is None:
            raise ValueError(
                "Wrong answers about weakened images need a model that gives them: pass model, or leave "
                '"image_weakened" out of negatives.'
            )
        if "error_injected" in self.negatives and all(
            each is None for each in (self.rewriter, self.clip, self.suspects_run)
        ):
            raise ValueError(
                "Errors are put into texts by a rewriter, or where a CLIP model says what the image lacks: pass "
                'rewriter, clip or suspects_run, or leave "error_injected" out of negatives.'
            )
        if self.min_confidence is not None and self.suspects_run is None:
            raise ValueError("min_confidence is about the suggestions of an ECIF run: pass suspects_run with it.")


ASKED = {each.name: described(each) for each in fields(PreferenceRequest) if described(each).label}
"""The parameters that a form asks for."""
