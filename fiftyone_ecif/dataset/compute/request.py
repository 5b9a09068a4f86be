"""What a run is asked for: every parameter once, with its kind, its default and what people read about it.

The signature of ``compute_influence``, its checks, the stored configuration, ``refresh_run``, the operator and its form
are made of this. Cheap to import: no tensors, no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fiftyone_ecif.dataset.arguments import (
    Anything,
    Choice,
    Flag,
    Number,
    SettingsByName,
    Text,
    Texts,
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
    Parameter,
    Request,
    about,
    described,
)

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from fiftyone_ecif.attribution import Settings
    from fiftyone_ecif.models import ContrastiveModel

DEFAULT_BATCH_SIZE = 256
DEFAULT_ROUNDS = 4


@dataclass(frozen=True)
class RunRequest(Request):
    """The parameters of ``compute_influence`` but the samples, converted to plain Python and checked one by one.

    Raises:
        ValueError: for a value that cannot work; names the parameter and what it may be
    """

    text_field: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "a StringField with captions, or a Classification field whose labels go into ``templates``; may be left "
            "out with stored embeddings",
            label="Captions",
            hint="The field that holds each image's caption or label",
        ),
    )
    target: SampleCollection | None = field(
        default=None,
        metadata=about(
            Anything(),
            "Dataset or view of trusted pairs whose mean contrastive loss is the target; None cross-fits the pairs: "
            "each is scored by fits that it is part of, against the loss of the pairs that these have not seen and "
            "whose misalignment is below 0.2",
            stored=False,
            label="Trusted pairs (target)",
            hint="Pairs known to be right. Influence is measured on their loss, and they get no scores themselves",
        ),
    )
    run_key: str = field(default="ecif", metadata=RUN_KEY)
    model: str | ContrastiveModel = field(
        default=DEFAULT_MODEL[0],
        metadata=about(
            Model(),
            "open_clip's name of a model, or a loaded model (``fiftyone_ecif.wrap_model``)",
            stored=False,
            label="Model",
            hint="The name of an open_clip model",
        ),
    )
    pretrained: str | None = field(default=None, metadata=PRETRAINED)
    scope: str = field(
        default="head",
        metadata=about(
            Text(),
            'the parameters that may change: "head" for the last projections and the logit scale, "lora" for low-rank '
            'adapters on the towers, "full" for all, or a regular expression of parameter names; values and '
            "self-influence follow it, misalignment is the head's",
        ),
    )
    removal: str = field(
        default="exact",
        metadata=about(
            Choice({"exact": "Exact", "first_order": "First order: faster, less accurate"}),
            '"exact" deletes a pair\'s negative role, "first_order" follows its derivative',
            label="Removal",
            hint="How a pair's removal from its batch is computed",
            advanced=True,
        ),
    )
    rounds: int = field(
        default=DEFAULT_ROUNDS,
        metadata=about(
            WholeNumber(1, 1_000),
            "random partitions into batches that the scores are averaged over",
            label="Rounds",
            hint="The number of random partitions into batches that the scores are averaged over",
            advanced=True,
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=about(
            WholeNumber(2),
            f"pairs per batch of the attributed loss; None for {DEFAULT_BATCH_SIZE}",
            label="Batch size",
            hint="Pairs per batch",
            advanced=True,
        ),
    )
    damping: float | None = field(
        default=None,
        metadata=about(
            Number(),
            "added to the curvature on top of the anchor; None for none",
            label="Damping",
            hint="A constant added to the curvature, on top of the anchor",
            advanced=True,
        ),
    )
    seed: int = field(default=0, metadata=SEED)
    device: str | None = field(default=None, metadata=DEVICE)
    engine: str = field(
        default="local",
        metadata=about(
            Choice({"local": "This machine", "ray": "A Ray cluster"}),
            'where the towers, the curvature and the scores are computed: "local" for this process, "ray" for the '
            "workers of a Ray cluster, which may have GPUs that this machine has not (docs/cluster.md)",
            label="Where to compute",
            hint="A Ray cluster is found by RAY_ADDRESS; without it, one that runs on this machine is used",
            advanced=True,
        ),
    )
    num_workers: int | None = field(
        default=None,
        metadata=about(
            WholeNumber(0, 10_000),
            '"local": processes that decode images, None to choose; "ray": workers, None for all that are free',
        ),
    )
    skip_failures: bool = field(
        default=True,
        metadata=about(Flag(), "whether an unusable pair is left out and its reason kept, or raises", stored=False),
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE)
    progress: bool | Callable[[str, int, int], None] | None = field(default=None, metadata=PROGRESS)
    templates: list[str] | None = field(
        default=None,
        metadata=about(
            Texts(),
            "with ``{}`` for the label, when ``text_field`` is a Classification field",
            label="Caption templates",
            hint="One per line; {} stands for the label",
            keyword_only=True,
        ),
    )
    anchor: float | None = field(
        default=None,
        metadata=about(
            Number(0.0, above=True, unless=": without it the problem has no minimum"),
            "δ, the weight of the proximal term, which pulls towards the given weights; None to choose by curvature",
            keyword_only=True,
            label="Anchor",
            hint="Weight of the proximal term; left empty, the curvature decides",
            advanced=True,
        ),
    )
    preprocess: Mapping[str, Any] | None = field(
        default=None,
        metadata=about(
            SettingsByName(),
            "settings of the images' preprocessing that go before those that belong to the weights: mean, std, "
            "interpolation, resize_mode, fill_color (docs/models.md)",
            stored=False,
            keyword_only=True,
            label="Preprocessing",
            hint="Left empty, the images are prepared as the weights were trained. Else JSON, such as "
            '{"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}',
        ),
    )
    image_embeddings: str | None = field(
        default=None,
        metadata=about(
            Text(),
            "field with image embeddings to use in place of a model",
            keyword_only=True,
            label="Image embeddings",
        ),
    )
    text_embeddings: str | None = field(
        default=None,
        metadata=about(Text(), "field with text embeddings, likewise", keyword_only=True, label="Caption embeddings"),
    )
    evidence: bool = field(
        default=False,
        metadata=about(
            Flag(),
            "whether to write the kinds of evidence that misalignment stands on, too "
            "(:data:`~fiftyone_ecif.dataset.fields.EVIDENCE_FIELDS`)",
            keyword_only=True,
            label="Write a field for each kind of evidence of misalignment",
            advanced=True,
        ),
    )
    apply_orientation: bool = field(
        default=False,
        metadata=about(
            Flag(),
            "whether the model sees images turned as their EXIF orientation says, as the App shows them; open_clip "
            "trains on images as they are stored",
            keyword_only=True,
            label="Turn images as their EXIF orientation says",
            advanced=True,
        ),
    )
    refresh_features: bool = field(
        default=False,
        metadata=about(
            Flag(),
            "whether images and captions are embedded again whose features are stored already",
            keyword_only=True,
            stored=False,
            label="Embed again what was embedded before",
            advanced=True,
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.image_embeddings is None) != (self.text_embeddings is None):
            raise ValueError(
                "Stored embeddings come in two fields: pass image_embeddings and text_embeddings together."
            )
        if self.text_field is None and self.image_embeddings is None:
            raise ValueError("Pass text_field: the field that holds the captions or labels.")

    def settings(self) -> Settings:
        """The choices behind the scores."""
        from fiftyone_ecif.attribution import Settings  # brings torch

        batch_size, damping = self.batch_size or DEFAULT_BATCH_SIZE, self.damping or 0.0
        return Settings(self.removal, self.rounds, batch_size, self.anchor, damping, self.seed)

    @classmethod
    def again(cls, config: Any, **more: Any) -> RunRequest:
        """The request that a run's configuration keeps; a parameter that is younger than the run has its default.

        Args:
            config: of the run
            **more: the parameters that it does not keep
        """
        kept: dict[str, Any] = {
            each.name: getattr(config, each.name, each.default) for each in fields(cls) if described(each).stored
        }
        return cls(**{**kept, **more})


PARAMETERS: Mapping[str, Field] = {each.name: each for each in fields(RunRequest)}
"""The fields of :class:`RunRequest` by name."""


ASKED: Mapping[str, Parameter] = {name: described(each) for name, each in PARAMETERS.items() if described(each).label}
"""The parameters that the operator takes and its form asks for."""
