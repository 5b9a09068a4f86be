"""The sample fields that a run writes: their names, types and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import fiftyone as fo

METHOD = "ecif"
"""What FiftyOne lists runs of ``compute_influence`` under."""

SHIFT_METHOD = "ecif-shift"
"""What it lists runs of ``compute_shift`` under."""

PREFERENCE_METHOD = "ecif-preference"
"""What it lists runs of ``build_preferences`` under."""

METHODS = (METHOD, SHIFT_METHOD, PREFERENCE_METHOD)
"""What runs of every kind are listed under."""

ORIGINS = {
    "fixed": "Corrected texts against what they replaced",
    "image_weakened": "Right texts against what a model says of a weakened image",
    "error_injected": "Right texts against themselves with something wrong",
}
"""Where the rejected texts of preference pairs come from."""

SIGN = "Positive: removing the pair would raise the target loss, so it helps. Negative: it harms."


def ownership(name: str, tensors: str) -> dict[str, str]:
    """What a run's field says of whose it is; a copy that somebody made of it has another name, and is theirs."""
    return {"ecif_run": tensors, "ecif_field": name}


@dataclass(frozen=True)
class ScoreField:
    """One field of a run.

    Args:
        suffix: what follows ``<run_key>_`` in the field's name
        ftype: FiftyOne field type
        embedded: document type of an embedded field
        subfield: field type of what a list holds
        parts: field types of what each document of a list holds, by name
        description: unit and sign, shown by the App
        indexed: whether views sort by it
        lacking: why a run may not have written it, for those who ask for it; empty if every run does
    """

    suffix: str
    ftype: type
    description: str
    embedded: type | None = None
    subfield: type | None = None
    indexed: bool = False
    lacking: str = ""
    parts: Mapping[str, type] | None = None

    def name(self, run_key: str) -> str:
        """The field's name on a sample."""
        return f"{run_key}_{self.suffix}"

    def add_to(self, dataset: fo.Dataset, run_key: str, tensors: str | None = None) -> None:
        """Declare the field, with its description and, by the name of its run's tensors, whose it is."""
        name = self.name(run_key)
        info = None if tensors is None else ownership(name, tensors)
        kinds = {"embedded_doc_type": self.embedded, "subfield": self.subfield}
        dataset.add_sample_field(name, self.ftype, description=self.description, info=info, **kinds)

    def index(self, dataset: fo.Dataset, run_key: str) -> None:
        """Make the field's index, where views sort by it; cheaper when its values are written."""
        if self.indexed:
            dataset.create_index(self.name(run_key))


SCORE_FIELDS = [
    ScoreField(
        "value",
        fo.FloatField,
        f"Predicted change of the mean target loss, in nats, if this pair were removed. {SIGN}",
        indexed=True,
    ),
    ScoreField(
        "value_positive",
        fo.FloatField,
        f"The part of value that the pair has as a positive: its image and caption pulled together. Nats. {SIGN}",
    ),
    ScoreField(
        "value_negative",
        fo.FloatField,
        f"The part of value that the pair has as a negative: pushed away from the others in its batch. Nats. {SIGN}",
    ),
    ScoreField(
        "value_std",
        fo.FloatField,
        "Standard error of value, in nats: how far value lies off in a repeat of the run with another seed, which "
        "draws other batches and, without a target, other folds.",
    ),
    ScoreField(
        "self_influence",
        fo.FloatField,
        "How much of its own loss the pair explains by itself, in nats; never negative. High: no other pair supports "
        "it. By the EK-FAC inverse of the curvature, which makes it larger by the factor in the run's health, "
        "self_influence_factor.",
    ),
    ScoreField(
        "misalignment",
        fo.FloatField,
        "Estimated probability, 0 to 1, that the caption does not belong to the image. High: suspicious.",
        indexed=True,
    ),
    ScoreField(
        "suggestion",
        fo.EmbeddedDocumentField,
        "The caption or label of the data set that is likelier than the pair's own, with its probability, 0 to 1, as "
        "confidence.",
        embedded=fo.Classification,
    ),
]
CANDIDATES = ScoreField(
    "candidates",
    fo.EmbeddedDocumentField,
    "Up to five captions or labels of the data set that may belong to the image, the likeliest first, with the "
    "probability of each, 0 to 1, as confidence.",
    embedded=fo.Classifications,
    lacking="runs without captions or labels, and those of earlier versions, have none",
)
"""What a run with texts writes for the pairs that it suspects."""

VAGUENESS = ScoreField(
    "vagueness",
    fo.FloatField,
    "How little the caption tells its image from others: the share of the other pairs, 0 to 1, whose captions say the "
    "same although their images look otherwise. High: it says little.",
    indexed=True,
    lacking="runs on labels, and those of earlier versions, have none",
)
"""What a run on captions writes. The name of a class is meant to fit many images, so that labels have none."""

WRONG_WORDS = ScoreField(
    "wrong_words",
    fo.ListField,
    "The words of the caption that belong to its image the least, the worst first: a guess, of captions that are "
    "suspected.",
    subfield=fo.StringField,
)
"""What ``results.name_wrong_words`` writes."""

AUDIT = ScoreField(
    "audit",
    fo.EmbeddedDocumentField,
    "Drawn for a review that says how many pairs are wrong: a random number that orders the review, the group of pairs "
    "that was drawn from, and how many of them this pair stands for.",
    embedded=fo.DynamicEmbeddedDocument,
)
"""What ``audit_sample`` writes."""

EVIDENCE_FIELDS = {
    kind: ScoreField(
        f"evidence_{kind}", fo.FloatField, f"{what}, in standard deviations over the run's pairs. High: suspicious."
    )
    for kind, what in {
        "head": "How surprising the caption is to a head that was not fitted on the pair",
        "neighbours": "How little the texts of the nearest images speak for the caption",
        "classifier": "How surprising the caption is to a classifier of images that has not seen the pair; "
        "0 where captions do not repeat or the model has memorised nothing",
    }.items()
}
"""What ``compute_influence(evidence=True)`` writes, by the names of ``Misalignment.evidence``."""

FAILURE_FIELDS = [
    ScoreField(
        "failed",
        fo.BooleanField,
        "Whether a wrong answer is nearer to the sample than every right one, under the run's fitted heads.",
        indexed=True,
    ),
    ScoreField("rank", fo.IntField, "Rank of the best right answer among all, from 1, under the run's fitted heads."),
    ScoreField(
        "margin",
        fo.FloatField,
        "Similarity of the best right answer less that of the best wrong one, times the logit scale, in nats. "
        "Below 0: the sample fails.",
        indexed=True,
    ),
]
"""What ``find_failures`` writes."""

SLICE_FIELD = ScoreField(
    "error_slice",
    fo.StringField,
    "The recurring error that the pair is part of, by its name; none for pairs outside of every slice. "
    "Not every pair of a slice is wrong.",
    indexed=True,
)
"""What ``error_slices`` of a run's results writes."""

SHIFT_FIELDS = {
    field.suffix: field
    for field in (
        ScoreField(
            "scenario",
            fo.StringField,
            'Which set the sample is of: "reference", or the name of the set that was compared with it.',
            indexed=True,
        ),
        ScoreField(
            "image_shift",
            fo.FloatField,
            "What the sample's image adds to the divergence between its set and the reference, in nats: the mean over "
            "a set is the set's part of it. High: the image is typical of its own set and not of the other. "
            "For reference samples the mean over the scenarios.",
            indexed=True,
        ),
        ScoreField(
            "query_shift",
            fo.FloatField,
            "The same of the sample's query.",
            indexed=True,
        ),
        ScoreField(
            "emi",
            fo.FloatField,
            "What the sample adds to the effective mutual information of its set, in the estimator's units: the mean "
            "over a set is the set's. Low: the response has less to do with the query than the reference has. None for "
            "samples that the estimator was trained on.",
            indexed=True,
        ),
    )
}
"""What ``compute_shift`` writes, by suffix."""

PREFERENCE_FIELDS = {
    field.suffix: field
    for field in (
        ScoreField(
            "preferences",
            fo.ListField,
            "Preference pairs: a prompt with a chosen and a rejected answer, where the rejected one comes from, the "
            "step t of the noise it was given under, its grounding in nats, and what a reviewer decided.",
            embedded=fo.DynamicEmbeddedDocument,
            subfield=fo.EmbeddedDocumentField,
            parts={
                **dict.fromkeys(("key", "prompt", "chosen", "rejected", "origin", "decision"), fo.StringField),
                "t": fo.IntField,
                "grounding": fo.FloatField,
            },
        ),
        ScoreField(
            "grounding",
            fo.FloatField,
            "How far the fit of the sample's rejected answers falls when the image is weakened, in nats, on average. "
            "Low: they are as likely without the image, and teach nothing about seeing.",
            indexed=True,
        ),
    )
}
"""What ``build_preferences`` writes, by suffix."""

RUN_FIELDS = [
    *SCORE_FIELDS,
    *(CANDIDATES, VAGUENESS, WRONG_WORDS, AUDIT, SLICE_FIELD),
    *EVIDENCE_FIELDS.values(),
    *FAILURE_FIELDS,
    *SHIFT_FIELDS.values(),
    *PREFERENCE_FIELDS.values(),
]
"""The sample fields that belong to a run: they are renamed and deleted with it."""

FIELDS = {field.suffix: field for field in (*SCORE_FIELDS, CANDIDATES, VAGUENESS)}
"""Those that views and pages ask for, by suffix."""
