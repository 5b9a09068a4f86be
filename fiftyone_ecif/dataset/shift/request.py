"""What a shift run is asked for: every parameter once, as those of ECIF are in ``compute/request.py``.

Cheap to import: no tensors, no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fiftyone_ecif.dataset.arguments import (
    Anything,
    Choice,
    Flag,
    Number,
    SettingsByName,
    Text,
    WholeNumber,
)
from fiftyone_ecif.dataset.parameters import (
    DEFAULT_MODEL,
    DEVICE,
    OVERWRITE,
    PRETRAINED,
    PROGRESS,
    RUN_KEY,
    SEED,
    Model,
    Request,
    about,
    described,
)

ROLES = ("image", "query", "response", "reference")
"""What can be compared: a model's inputs, its answer, and what is right."""

MEASURES = {"image": "image_shift", "query": "query_shift", "emi": "emi"}
"""The suffix of the field that holds each sample's part, by what it is a part of."""

PUBLISHED = "emi-published"
"""The name of the encoders that the method was published with."""

DEFAULT_RESAMPLES, MOST_RESAMPLES = 200, 10_000

WEIGHTINGS = {"mean": "Each set counts alike", "count": "Each sample counts alike, as in the authors' code"}


@dataclass(frozen=True)
class ShiftRequest(Request):
    """The parameters of ``compute_shift`` but the views, converted to plain Python and checked one by one.

    Raises:
        ValueError: for a value that cannot work; names the parameter and what it may be
    """

    image: bool = field(
        default=True,
        metadata=about(Flag(), "whether images are compared", label="Compare images"),
    )
    query_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with what the model is asked; None for none",
            label="Queries",
            hint="The field that holds what the model is asked about each image",
        ),
    )
    response_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with what it answers; None for the shift of the inputs alone",
            label="Responses",
            hint="The field that holds what the model answers; left empty, the inputs alone are compared",
        ),
    )
    reference_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with what is right; goes with ``response_field``",
            label="References",
            hint="The field that holds the right answers",
        ),
    )
    model: Any = field(
        default=DEFAULT_MODEL[0],
        metadata=about(
            Model(),
            "open_clip's name of a model, or a loaded one, for images, and for texts without an encoder of their own; "
            f'or "{PUBLISHED}" for the encoders that the method was published with',
            stored=False,
            label="Model",
            hint="The name of an open_clip model",
        ),
    )
    pretrained: str | None = field(default=None, metadata=PRETRAINED)
    text_encoder: Any = field(
        default=None,
        metadata=about(
            Anything(),
            "for texts: a folder, the Hugging Face name of a model whose token mean is taken, a function of a list of "
            "texts, or an object with such a method ``encode``; None for the model's own text tower",
            stored=False,
            label="Text encoder",
            hint="A folder, or the Hugging Face name of a sentence encoder; left empty, the model reads the texts",
        ),
    )
    estimator: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "path of a trained estimator; None to train one on a half of the samples, which EMI then leaves out",
            label="Estimator",
            hint="The file of a trained estimator; left empty, one is trained on half of the samples",
            advanced=True,
        ),
    )
    run_key: str = field(default="shift", metadata=RUN_KEY)
    weighting: str = field(
        default="mean",
        metadata=about(
            Choice(WEIGHTINGS),
            '"mean" weighs both sets ½, "count" each sample alike, as the authors\' code does',
            label="Weighting",
            hint="How sets of different sizes are mixed",
            advanced=True,
        ),
    )
    entropy: float | None = field(
        default=None,
        metadata=about(
            Number(0.0),
            "for the entropy form of the bound; None for none",
            label="Entropy",
            hint="For the entropy form of the bound; left empty, that is not computed",
            advanced=True,
        ),
    )
    resamples: int = field(
        default=DEFAULT_RESAMPLES,
        metadata=about(
            WholeNumber(0, MOST_RESAMPLES),
            "of the bootstrap, and permutations; 0 for neither intervals nor p-values",
            label="Resamples",
            hint="For intervals and p-values; 0 for none",
            advanced=True,
        ),
    )
    bounded: bool = field(
        default=True,
        metadata=about(
            Flag(),
            "whether a trained estimator's log-variance stays within [−1, 1], as published",
            label="Bound the estimator's log-variance, as published",
            advanced=True,
        ),
    )
    embeddings: Mapping[str, str] | None = field(
        default=None,
        metadata=about(
            SettingsByName(ROLES),
            'fields with vectors in place of encoders, by "image", "query", "response" and "reference"',
        ),
    )
    seed: int = field(default=0, metadata=SEED)
    device: str | None = field(default=None, metadata=DEVICE)
    overwrite: bool = field(default=False, metadata=OVERWRITE)
    progress: bool | Callable[[str, int, int], None] | None = field(default=None, metadata=PROGRESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        roles = self.roles
        if "image" not in roles and "query" not in roles:
            raise ValueError("There is nothing to compare: pass image=True or a query_field.")
        if ("response" in roles) != ("reference" in roles):
            raise ValueError(
                "Responses are judged against references: pass response_field and reference_field together, or neither "
                "for the shift of the inputs alone."
            )

    @property
    def vectors(self) -> dict[str, str]:
        """The fields with vectors, by role."""
        return {role: name for role, name in (self.embeddings or {}).items() if role in self.roles}

    @property
    def text_fields(self) -> dict[str, str]:
        """The fields with texts that are embedded, by role."""
        named = {role: getattr(self, f"{role}_field") for role in ROLES if role != "image"}
        return {role: name for role, name in named.items() if name is not None and role not in self.vectors}

    @property
    def roles(self) -> list[str]:
        """What is compared, of :data:`ROLES`."""
        given = self.embeddings or {}
        texts = [role for role in ROLES[1:] if getattr(self, f"{role}_field") is not None or role in given]
        return [*(["image"] if self.image else []), *texts]


ASKED = {each.name: described(each) for each in fields(ShiftRequest) if described(each).label}
"""The parameters that a form asks for."""
