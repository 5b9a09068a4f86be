"""Embeddings and texts that cannot serve are counted or refused, with the field and a sample."""

import fiftyone as fo
import numpy as np
import pytest
from bson import ObjectId

import fiftyone_ecif as ecif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def put(dataset, vectors):
    """Store vectors in a list field as they are, unchecked by FiftyOne."""
    dataset.add_sample_field("odd", fo.ListField)
    for id, vector in zip(dataset.values("id"), vectors, strict=True):
        dataset._sample_collection.update_one({"_id": ObjectId(id)}, {"$set": {"odd": vector}})
    return dataset


ODD = {
    "ragged": (lambda v: v[:5], "has 5 numbers, most have 16"),
    "nested": (lambda v: [v[:3], v], "not a vector of numbers"),
    "strings": (lambda v: ["a"] * 16, "not a vector of numbers"),
    "dicts": (lambda v: {"a": 1.0}, "not a vector of numbers"),
    "booleans": (lambda v: [number > 0 for number in v], "not a vector of numbers"),
    "huge": (lambda v: [1e25 * number for number in v], "cannot be computed with"),
    "tiny": (lambda v: [1e-25 * number for number in v], "cannot be computed with"),
    "none": (lambda v: None, "is missing"),
}


def test_odd_embeddings_are_skipped_and_counted(embedded_dataset, stored):
    vectors, kinds = embedded_dataset.values("clip_image"), list(ODD)
    put(embedded_dataset, [ODD[name][0](vector) for name, vector in zip(kinds, vectors)] + vectors[len(kinds) :])
    results = ecif.compute_influence(embedded_dataset, **(stored | {"image_embeddings": "odd", "rounds": 1}))
    assert results.health["pairs"] == 60 - len(kinds)
    for kind, id in zip(kinds, embedded_dataset.values("id")):
        assert ODD[kind][1] in results.skipped[id]


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "ragged"])
def test_a_field_of_odd_embeddings_alone_is_refused(embedded_dataset, stored, kind):
    change, reason = ODD[kind]
    put(embedded_dataset, [change(vector) for vector in embedded_dataset.values("clip_image")])
    with pytest.raises(ValueError, match=f"None of the 60 samples can be used. Sample .*{reason}.*'odd', 'clip_text'"):
        ecif.compute_influence(embedded_dataset, **(stored | {"image_embeddings": "odd"}))


def test_arrays_serve_as_lists_do(embedded_dataset, stored):
    listed = ecif.compute_influence(embedded_dataset, run_key="listed", **stored)
    embedded_dataset.add_sample_field("array", fo.VectorField)
    embedded_dataset.set_values("array", [np.array(vector) for vector in embedded_dataset.values("clip_image")])
    arrays = ecif.compute_influence(embedded_dataset, run_key="arrays", **(stored | {"image_embeddings": "array"}))
    assert arrays.misaligned().values("id") == listed.misaligned().values("id")


def shortened(samples):
    """The same samples with embeddings of 8 numbers."""
    other = samples.clone()
    for name in ("clip_image", "clip_text"):
        other.set_values(name, [vector[:8] for vector in other.values(name)])
    return other


def test_embeddings_of_another_length_than_the_runs_are_refused(embedded_dataset, stored):
    train, other = embedded_dataset[:40], shortened(embedded_dataset[40:])
    words = "image embeddings of the target have 8 numbers, and those of the run's pairs 16"
    with pytest.raises(ValueError, match=words):
        ecif.compute_influence(train, target=other, **stored)
    results = ecif.compute_influence(train, **stored)
    for ask in (
        lambda: ecif.find_failures(other, run_dataset=embedded_dataset, progress=False),
        lambda: results.trace(other.first(), progress=False),
    ):
        with pytest.raises(ValueError, match="image embeddings of the queries have 8 numbers"):
            ask()
    assert not other.has_sample_field("ecif_rank")


KINDS = {
    "tags": "ListField",
    "boxes": "Detections",
    "number": "Regression",
    "id": "says where a sample is",
    "filepath": "says where a sample is",
    "metadata": "ImageMetadata",
    "listed": "one_caption_per_sample",
}


@pytest.mark.parametrize("name", KINDS)
def test_fields_that_hold_no_captions_are_refused_before_anything_is_computed(embedded_dataset, stored, name):
    embedded_dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    embedded_dataset.add_sample_field("number", fo.EmbeddedDocumentField, embedded_doc_type=fo.Regression)
    embedded_dataset.add_sample_field("listed", fo.ListField, subfield=fo.StringField)
    steps = []
    asked = stored | {"text_field": name, "progress": lambda *step: steps.append(step)}
    with pytest.raises(ValueError, match=f"Field '{name}'.*{KINDS[name] if name != 'tags' else 'list of texts'}"):
        ecif.compute_influence(embedded_dataset, **asked)
    assert steps == []
