"""The benchmark of shift risk: what its shifts do, and that its figures are those of its rows."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.shift import corruptions, measure, published
from benchmarks.shift.measure import Row
from benchmarks.shift.model import Seen
from benchmarks.shift.scenarios import Scenario
from benchmarks.shift.tasks import Items
from fiftyone_ecif.shift import TensorVectors, club_estimate

KNOWN = {"cat": ["feline"], "red": ["scarlet", "ruby"]}


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).resize((96, 96))


@pytest.mark.parametrize("kind", corruptions.IMAGE_SHIFTS)
def test_an_image_changes_more_with_each_severity_and_always_in_the_same_way(picture, kind):
    shift, before = corruptions.IMAGE_SHIFTS[kind], np.asarray(picture, dtype=float)
    changes = [np.abs(np.asarray(shift(picture, each, 3), dtype=float) - before).mean() for each in (1, 3, 5)]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert shift(picture, 3, 3).size == picture.size
    assert np.array_equal(shift(picture, 3, 3), shift(picture, 3, 3))


@pytest.mark.parametrize("kind", corruptions.TEXT_SHIFTS)
def test_a_text_changes_more_with_each_severity_and_always_in_the_same_way(monkeypatch, kind):
    monkeypatch.setattr(corruptions, "wordnet", lambda: KNOWN)
    shift, text = corruptions.TEXT_SHIFTS[kind], " ".join(["a red cat,"] * 40)
    words = [shift(text, each, 1).split() for each in (1, 5)]
    changed = [sum(one != other for one, other in zip(each, text.split())) for each in words]
    assert 0 < changed[0] < changed[1]
    assert shift(text, 4, 1) == shift(text, 4, 1)


def test_synonyms_keep_the_marks_around_a_word(monkeypatch):
    monkeypatch.setattr(corruptions, "wordnet", lambda: KNOWN)
    assert corruptions.synonyms("The cat, unknown!", 5, 0) == "The feline, unknown!"


def made_up_seen(seed, count=60, shift=0.0, accuracy=1.0):
    parts = torch.randn(4, count, 6, generator=torch.Generator().manual_seed(seed))
    parts[0, :, 0] += shift
    return Seen(*torch.nn.functional.normalize(parts, dim=2), accuracy)


def test_a_row_is_what_the_mathematics_finds():
    sets = [made_up_seen(1), made_up_seen(2, shift=3.0, accuracy=0.4)]
    club, fit = measure.estimator(sets)
    assert fit.rows + fit.validation_rows == 120
    found = measure.measured([Scenario("task", "blur", 3, *sets)], club)[0]
    emi = []
    for each in sets:
        z = TensorVectors((each.image + each.query) / 2)
        answers = (TensorVectors(part) for part in (each.response, each.reference))
        response, reference = (club_estimate(club, z, answer) for answer in answers)
        emi.append(response - reference)
    assert found.emid == pytest.approx(emi[0] - emi[1], abs=1e-6)
    assert found.image > found.query and found.lost == pytest.approx(0.6)


def test_contributions_are_asked_to_tell_the_shifted_half():
    reference, before, other = made_up_seen(4, 600), made_up_seen(1, 400), made_up_seen(2, 400, shift=6.0)
    after = Seen(other.image, before.query, before.response, before.reference, 1.0)
    assert measure.detection_auroc(reference, Scenario("task", "blur", 5, before, after)) > 0.9
    mild = made_up_seen(3, 400)
    nothing = Seen(mild.image, before.query, before.response, before.reference, 1.0)
    assert abs(measure.detection_auroc(reference, Scenario("task", "none", 1, before, nothing)) - 0.5) < 0.2


def made_up_rows(values, kind="blur"):
    return [Row("task", kind, each, value, 0.0, value, value, 1.0, 1 - value) for each, value in enumerate(values, 1)]


def test_steps_of_severity_are_counted_where_the_divergence_grows():
    rows = made_up_rows([0.1, 0.2, 0.15, 0.3, 0.4]) + [Row("task", "natural", 0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)]
    assert measure.monotone(rows) == [True, False, True, True]
    found = measure.correlations(made_up_rows([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert list(found.values()) == pytest.approx([1.0] * 4)


def test_published_results_and_real_answers_are_read(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "responses").mkdir()
    emi = {"llava_bench_coco": 0.5, "a": 0.25, "b": 0.125, "c": 0.375}
    emid = {name: 0.5 - emi[name] for name in "abc"}
    result = dict(shift_type="SYNTHETIC", model_name="m", EMI=emi, EMID=emid, PearsonR=1.0)
    result["EMID_UB"] = {name: 2 * value for name, value in emid.items()}
    (tmp_path / "results" / "pairs.json").write_text(json.dumps(result))
    found = published.recomputed(tmp_path)[0]
    assert (found["scenarios"], found["largest_emid_error"]) == (3, 0.0)
    assert found["pearson"] == pytest.approx(1.0) and found["spearman"] == pytest.approx(1.0)
    lines = [dict(question_id=number, prompt=f"p{number}", text=f"t{number}") for number in (10, 2)]
    (tmp_path / "responses" / "llava_bench_coco_frost_1_m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert published.texts_of(tmp_path, "_frost_1", "m", "answers") == ["t2", "t10"]
    assert published.texts_of(tmp_path, "_frost_1", "m", "prompts") == ["p2", "p10"]


def test_items_stay_together():
    items = Items(["a", "b", "c"], ["1", "2", "3"], ["x", "y", "z"])
    assert items.of([2, 0]) == Items(["c", "a"], ["3", "1"], ["z", "x"]) and len(items) == 3
