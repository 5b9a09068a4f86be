import os

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, SCORE_FIELDS, VAGUENESS
from fiftyone_ecif.dataset.run.config import tensor_file

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_every_pair_gets_finite_scores_with_described_fields(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    schema = embedded_dataset.get_field_schema()
    for field in SCORE_FIELDS:
        assert schema[field.name("ecif")].description == field.description
        if field.ftype is fo.FloatField:
            values = np.array(embedded_dataset.values(field.name("ecif")), dtype=float)
            assert np.isfinite(values).all()
    value, positive, negative = (
        np.array(embedded_dataset.values(f"ecif_{name}")) for name in ("value", "value_positive", "value_negative")
    )
    np.testing.assert_allclose(value, positive + negative, atol=1e-6)
    probability = np.array(embedded_dataset.values("ecif_misalignment"))
    assert (probability >= 0).all() and (probability <= 1).all()
    assert {"ecif_value", "ecif_misalignment"} <= set(embedded_dataset.get_index_information())
    assert results.health["cg_relative_residual"] <= 1e-3


def test_captions_that_many_unlike_images_have_are_vague(embedded_dataset, stored):
    for sample in embedded_dataset.select(embedded_dataset.values("id")[::6]).iter_samples(autosave=True):
        sample["caption"], sample["clip_text"] = "a picture", [1.0, -2.0] * 8
    results = ecif.compute_influence(embedded_dataset, **stored)
    assert embedded_dataset.get_field("ecif_vagueness").description == VAGUENESS.description
    assert "ecif_vagueness" in embedded_dataset.get_index_information()
    view = results.vague()
    assert set(view[:10].values("caption")) == {"a picture"} and len(view) == 60
    shares = view.values(results.fields["vagueness"])
    assert shares == sorted(shares, reverse=True) and shares[-1] >= 0 and shares[0] <= 1
    assert results.vague(threshold=shares[4], limit=3).values("id") == view[:3].values("id")
    assert len(results.vague(threshold=shares[4])) < 60
    for wrong in (-0.1, 2, "much"):
        with pytest.raises(ValueError, match="threshold must be a"):
            results.vague(wrong)
    waiting = ecif.to_review(embedded_dataset, "ecif", order="vagueness")
    assert waiting.values("id") == view.values("id")
    assert ecif.mark_as_empty(view[:10]) == 10
    assert len(ecif.to_review(embedded_dataset, "ecif")) == 50
    assert len(ecif.cleaned(embedded_dataset)) == 50
    ecif.mark_as_fine(view[:1])
    assert len(ecif.cleaned(embedded_dataset)) == 51


def test_labels_and_runs_of_before_have_no_vagueness_and_say_so(embedded_dataset, stored):
    on_labels = ecif.compute_influence(embedded_dataset, run_key="labels", **stored | {"text_field": "ground_truth"})
    before = ecif.compute_influence(embedded_dataset, **stored)
    embedded_dataset.delete_sample_field("ecif_vagueness")
    for results in (on_labels, before):
        assert "vagueness" not in results.fields
        with pytest.raises(ValueError, match="runs on labels, and those of earlier versions, have none"):
            results.vague()
        with pytest.raises(ValueError, match="have none"):
            ecif.to_review(embedded_dataset, results.run_key, "vagueness")
        assert len(ecif.to_review(embedded_dataset, results.run_key)) == 60


def test_evidence_is_written_when_asked_for_and_lives_with_its_run(embedded_dataset, stored):
    plain = ecif.compute_influence(embedded_dataset, run_key="plain", **stored)
    results = ecif.compute_influence(embedded_dataset, evidence=True, **stored)
    names = [field.name("ecif") for field in EVIDENCE_FIELDS.values()]
    assert not [name for name in plain.fields if name.startswith("evidence")]
    assert [name for name in results.fields.values() if "evidence" in name] == names
    schema = embedded_dataset.get_field_schema()
    for field in EVIDENCE_FIELDS.values():
        assert schema[field.name("ecif")].description == field.description
        values = np.array(embedded_dataset.values(field.name("ecif")))
        assert np.isfinite(values).all() and abs(values.mean()) < 1e-4
        assert values.std(ddof=1) == pytest.approx(1, abs=1e-3) or (values == 0).all()
    planted = np.array(embedded_dataset.values("planted"))
    head = np.array(embedded_dataset.values("ecif_evidence_head"))
    assert head[planted].mean() > head[~planted].mean() + 1
    ecif.rename_run(embedded_dataset, "ecif", "other")
    assert embedded_dataset.has_sample_field("other_evidence_head")
    ecif.delete_run(embedded_dataset, "other")
    assert not [name for name in embedded_dataset.get_field_schema() if "evidence" in name]


def test_a_precision_is_turned_into_the_threshold_that_is_expected_to_reach_it(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    assert results.health["suggested_threshold"] == results.suggested_threshold()
    name = results.fields["misalignment"]
    embedded_dataset.set_values(name, [0.95, 0.9, 0.7, 0.3] + [0.01] * 56)
    assert results.suggested_threshold(0.8) == 0.7
    assert results.misaligned(precision=0.8).values(name) == [0.95, 0.9, 0.7]
    with pytest.warns(UserWarning, match="most suspicious pair is wrong with a probability of 95%"):
        assert len(results.misaligned(precision=0.99)) == 0
    with pytest.raises(ValueError, match="not both"):
        results.misaligned(threshold=0.5, precision=0.8)


def test_swapped_captions_come_first_and_get_their_own_back(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    suspects = results.misaligned(limit=6)
    assert sum(suspects.values("planted")) >= 5
    suggestions = suspects.match(F("planted")).values("ecif_suggestion")
    shapes = suspects.match(F("planted")).values("ground_truth.label")
    right = [s is not None and shape in s.label for s, shape in zip(suggestions, shapes, strict=True)]
    assert np.mean(right) >= 0.8
    assert all(0 <= s.confidence <= 1 for s in suggestions if s)


def test_a_run_on_a_view_scores_that_view_alone_against_the_target(embedded_dataset, stored):
    train, target = embedded_dataset[:40], embedded_dataset[40:]
    results = ecif.compute_influence(train, target=target, run_key="part", **stored)
    assert len(embedded_dataset.exists("part_value")) == 40
    assert results.samples.values("id") == train.values("id")
    assert results.health["target_pairs"] == 20
    assert len(results.harmful()) + len(results.valuable()) == 40
    assert max(results.harmful().values("part_value")) < 0
    values = results.valuable(limit=2).values("part_value")
    assert values == sorted(values, reverse=True) and len(values) == 2


def test_scores_are_the_same_again(embedded_dataset, stored):
    ecif.compute_influence(embedded_dataset, run_key="a", **stored)
    ecif.compute_influence(embedded_dataset, run_key="b", **stored)
    assert embedded_dataset.values("a_value") == embedded_dataset.values("b_value")
    assert embedded_dataset.values("a_misalignment") == embedded_dataset.values("b_misalignment")


def test_runs_are_listed_loaded_renamed_and_deleted_with_their_fields(embedded_dataset, stored):
    ecif.compute_influence(embedded_dataset, **stored)
    assert ecif.list_runs(embedded_dataset) == ["ecif"]
    ecif.rename_run(embedded_dataset, "ecif", "other")
    assert ecif.list_runs(embedded_dataset) == ["other"]
    assert embedded_dataset.has_sample_field("other_value") and not embedded_dataset.has_sample_field("ecif_value")
    results = ecif.load_results(embedded_dataset, "other")
    assert results.config.text_field == "caption" and len(results.misaligned()) == 60
    ids, image, text = results.embeddings()
    assert ids == embedded_dataset.values("id") and image.shape == text.shape == (60, 16)
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
    tensors = tensor_file(results.config)
    assert tensors.exists()
    ecif.delete_run(embedded_dataset, "other")
    assert ecif.list_runs(embedded_dataset) == [] and not tensors.exists()
    assert not [name for name in embedded_dataset.get_field_schema() if name.startswith("other")]
    with pytest.raises(ValueError, match="no ECIF run 'other'"):
        ecif.load_results(embedded_dataset, "other")


def test_a_failed_run_leaves_everything_as_it_was(embedded_dataset, stored, monkeypatch):
    ecif.compute_influence(embedded_dataset, **stored)
    before = embedded_dataset.values("ecif_value"), set(embedded_dataset.get_field_schema())

    def fail(*args, **kwargs):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("fiftyone_ecif.dataset.run.store._save_record", fail)
    for arguments in (dict(run_key="second"), dict(overwrite=True, seed=1)):
        with pytest.raises(RuntimeError, match="disk is full"):
            ecif.compute_influence(embedded_dataset, **stored, **arguments)
        assert (embedded_dataset.values("ecif_value"), set(embedded_dataset.get_field_schema())) == before
        assert ecif.list_runs(embedded_dataset) == ["ecif"]


def test_cancelling_leaves_nothing_behind(embedded_dataset, stored):
    class Cancelled(Exception):
        pass

    def cancel(step, done, total):
        if step == "Scores":
            raise Cancelled

    with pytest.raises(Cancelled):
        ecif.compute_influence(embedded_dataset, **(stored | dict(progress=cancel)))
    assert not embedded_dataset.has_sample_field("ecif_value") and not ecif.list_runs(embedded_dataset)


def test_overwriting_replaces_the_run_and_only_when_asked(embedded_dataset, stored):
    ecif.compute_influence(embedded_dataset, **stored)
    first = embedded_dataset.values("ecif_value")
    with pytest.raises(ValueError, match="in use"):
        ecif.compute_influence(embedded_dataset, **stored)
    ecif.compute_influence(embedded_dataset, overwrite=True, seed=5, **stored)
    assert ecif.list_runs(embedded_dataset) == ["ecif"]
    assert embedded_dataset.values("ecif_value") != first
    assert not [name for name in embedded_dataset.get_field_schema() if "replacement" in name]


def test_unusable_embeddings_are_skipped_counted_and_explained(embedded_dataset, stored):
    vectors = embedded_dataset.values("clip_image")
    vectors[3], vectors[4], vectors[5] = None, [0.0] * 16, [float("nan")] * 16
    embedded_dataset.set_values("clip_image", vectors)
    results = ecif.compute_influence(embedded_dataset, **stored)
    ids = embedded_dataset.values("id")
    assert set(results.skipped) == set(ids[3:6])
    assert results.health["skipped"] == 3 and any("3 pairs were skipped" in note for note in results.warnings)
    assert [row for row, value in enumerate(embedded_dataset.values("ecif_value")) if value is None] == [3, 4, 5]
    with pytest.raises(ValueError, match="skip_failures"):
        ecif.compute_influence(embedded_dataset, overwrite=True, skip_failures=False, **stored)


def test_pairs_without_a_caption_are_skipped_with_stored_embeddings_too(embedded_dataset, stored):
    ids = embedded_dataset.values("id")
    embedded_dataset.set_values("caption", {ids[2]: None, ids[7]: " "}, key_field="id")
    results = ecif.compute_influence(embedded_dataset, **stored)
    assert results.skipped == {ids[2]: "caption is missing", ids[7]: "caption is empty"}
    assert len(results.pairs()) == 58 and results.rows().texts == [
        caption for caption in embedded_dataset.values("caption") if caption and caption.strip()
    ]


def test_a_view_that_repeats_samples_is_refused(embedded_dataset, stored):
    twice = embedded_dataset[:40].concat(embedded_dataset[30:50])
    with pytest.raises(ValueError, match="samples holds 10 samples more than once"):
        ecif.compute_influence(twice, **stored)
    with pytest.raises(ValueError, match="target holds 5 samples more than once"):
        target = embedded_dataset[40:50].concat(embedded_dataset[45:50])
        ecif.compute_influence(embedded_dataset[:40], target=target, **stored)


BAD_ARGUMENTS = [
    (dict(text_field="filepath"), "says where a sample is"),
    (dict(text_field="capton"), "Did you mean 'caption'"),
    (dict(text_field="planted"), "BooleanField"),
    (dict(run_key="1st run"), "cannot be used"),
    (dict(removal="second_order"), "removal must be one of"),
    (dict(rounds=0), "rounds"),
    (dict(batch_size=1), "batch_size"),
    (dict(damping=-1.0), "damping"),
    (dict(anchor=0.0), "anchor"),
    (dict(scope="attention"), "scope"),
    (dict(engine="spark"), "engine"),
    (dict(device="cuda:99"), "device 'cuda:99' was asked for, but torch sees"),
    (dict(device="abacus"), "device"),
    (dict(device="meta"), "computes nothing"),
    (dict(text_embeddings=None), "two fields"),
    (dict(templates=["a {}"]), "templates"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_nonsense_is_refused_in_plain_words(embedded_dataset, stored, arguments, message):
    if "templates" in arguments or "text_field" in arguments:
        stored = dict(text_field="caption", model="ecif-tiny", progress=False)
    with pytest.raises(ValueError, match=message):
        ecif.compute_influence(embedded_dataset, **(stored | arguments))
    assert not ecif.list_runs(embedded_dataset)


def test_empty_views_overlapping_targets_and_too_few_pairs_are_refused(embedded_dataset, stored):
    with pytest.raises(ValueError, match="samples is empty"):
        ecif.compute_influence(embedded_dataset.match(F("caption") == "nowhere"), **stored)
    with pytest.raises(ValueError, match="both scored and in the target"):
        ecif.compute_influence(embedded_dataset[:40], target=embedded_dataset[39:], **stored)
    with pytest.raises(ValueError, match="at least"):
        ecif.compute_influence(embedded_dataset[:2], **stored)
    with pytest.raises(ValueError, match="must be a FiftyOne Dataset"):
        ecif.compute_influence([1, 2], **stored)


def test_a_model_reads_images_and_skips_what_it_cannot_read(pair_dataset, tmp_path):
    """The towers' own path, on captions and on labels with templates."""
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    sample = pair_dataset.first()
    sample.filepath = str(empty)
    sample.save()
    second = pair_dataset.skip(1).first()
    second.caption = "  "
    second.save()
    tiny = dict(model="ecif-tiny", rounds=1, batch_size=20, progress=False, num_workers=0)
    results = ecif.compute_influence(pair_dataset, "caption", **tiny)
    assert results.skipped == {sample.id: "image file is empty", second.id: "caption is empty"}
    assert len(pair_dataset.exists("ecif_value")) == 58
    assert not [warning for warning in results.warnings if "were changed" in warning]

    def touch(step, done, total):
        if step == "Scores":
            times = os.stat(second.filepath)
            os.utime(second.filepath, ns=(times.st_atime_ns, times.st_mtime_ns))

    labels = ecif.compute_influence(
        pair_dataset, "ground_truth", run_key="labels", templates=["a {}", "one {}"], **{**tiny, "progress": touch}
    )
    assert [warning for warning in labels.warnings if "1 images were changed while the run was computed" in warning]
    assert len(pair_dataset.exists("labels_value")) == 59
    suggested = {label.label for label in pair_dataset.exists("labels_suggestion").values("labels_suggestion")}
    assert suggested <= {"circle", "square", "triangle"}
    assert labels.embeddings()[1].shape[0] == 59
