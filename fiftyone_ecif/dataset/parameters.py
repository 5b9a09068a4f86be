"""What a request is made of: parameters with their kind and what people read about them, checked one by one.

Cheap to import: no tensors, no models.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any

from fiftyone_ecif.dataset.arguments import LARGEST_SEED, Device, Flag, Kind, Reporter, Text, WholeNumber
from fiftyone_ecif.dataset.checks import LONGEST_RUN_KEY

DEFAULT_MODEL = ("ViT-B-32", "laion2b_s34b_b79k")


@dataclass(frozen=True)
class Parameter:
    """What is known of a parameter besides its name, type and default.

    Attributes:
        kind: what it may be
        description: for the docstring
        label: its name in the form; empty where the form does not ask for it
        hint: one line below it in the form
        advanced: whether the form asks for it among the advanced settings, in the way that its kind says
        stored: whether the run's configuration keeps it, so that ``refresh_run`` asks for the same
        keyword_only: whether it must be passed by name
    """

    kind: Kind
    description: str
    label: str = ""
    hint: str = ""
    advanced: bool = False
    stored: bool = True
    keyword_only: bool = False


def about(kind: Kind, description: str, **more: Any) -> dict[str, Parameter]:
    """What is known of a field of a :class:`Request`; ``more`` are attributes of :class:`Parameter`."""
    return {"parameter": Parameter(kind, description, **more)}


class Model:
    """An open_clip name, or a model that is loaded already."""

    def __call__(self, name: str, value: Any) -> Any:
        if hasattr(value, "image_features") and hasattr(value, "head"):
            return value
        if isinstance(value, str):
            return Text()(name, value)
        raise ValueError(
            f"{name} must be open_clip's name of a model, or a model from fiftyone_ecif.wrap_model, "
            f"not {type(value).__name__}."
        )


def described(each: Field) -> Parameter:
    """What is known of a field of a :class:`Request`."""
    return each.metadata["parameter"]


class Request:
    """A dataclass whose fields are parameters (:func:`about`), converted to plain Python and checked one by one.

    Raises:
        ValueError: for a value that cannot work; names the parameter and what it may be
    """

    model: Any
    pretrained: str | None

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # of a dataclass that is made of it
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                object.__setattr__(self, each.name, described(each).kind(each.name, value))

    @property
    def weights(self) -> str | None:
        """The tag or checkpoint to load: the default's own where nobody named a model."""
        plain = isinstance(self.model, str) and self.model == DEFAULT_MODEL[0]
        return DEFAULT_MODEL[1] if self.pretrained is None and plain else self.pretrained

    def stored(self) -> dict[str, Any]:
        """What the run's configuration keeps."""
        known = fields(self)  # type: ignore[arg-type]
        return {each.name: getattr(self, each.name) for each in known if described(each).stored}


PRETRAINED = about(
    Text(),
    "open_clip's tag of its weights, or the path of a checkpoint",
    stored=False,
    label="Weights",
    hint="One of the model's tags in open_clip, or the path of a checkpoint",
)
RUN_KEY = about(
    Text(LONGEST_RUN_KEY),
    "name of the run, and prefix of its fields",
    label="Run key",
    stored=False,
    hint="The name of this run; its fields begin with it",
)
OVERWRITE = about(
    Flag(),
    "whether to replace a run of the same key and kind, once the new one is complete",
    stored=False,
    label="Replace the run and its fields",
)
SEED = about(
    WholeNumber(0, LARGEST_SEED),
    "of every random choice",
    label="Seed",
    hint="Seed of all random choices",
    advanced=True,
)
DEVICE = about(
    Device(),
    '"cpu", "cuda", "cuda:1"; None for a GPU where there is one',
    label="Device",
    hint="auto takes a GPU if there is one",
    advanced=True,
)
PROGRESS = about(
    Reporter(),
    "True, False, None for FiftyOne's setting, or a function of (step, done, total), which may raise to cancel",
    stored=False,
)
"""Parameters that several requests have."""
