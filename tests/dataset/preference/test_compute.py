"""A run of preference pairs from samples to fields."""

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.cache import cache_folder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

QUIET = dict(chosen_field="caption", progress=False)


@pytest.fixture
def few(pair_dataset):
    """Ten pairs, the red ones first, of which the first two were fixed."""
    dataset = pair_dataset.limit(10).clone()
    ids = dataset.values("id")[:2]
    fixes = [fo.DynamicEmbeddedDocument(before=text, after="x") for text in ("a blue cat", "two dogs")]
    dataset.add_sample_field(
        "caption_fixes",
        fo.ListField,
        subfield=fo.EmbeddedDocumentField,
        embedded_doc_type=fo.DynamicEmbeddedDocument,
        info={"text_field": "caption"},
    )
    dataset.set_values("caption_fixes", {id: [fix] for id, fix in zip(ids, fixes, strict=True)}, key_field="id")
    return dataset


@pytest.fixture
def results(few, guess, knowing, make_model):
    return ecif.build_preferences(few, model=guess, clip=make_model("vit"), **QUIET)


def test_pairs_of_every_origin_are_made_and_registered(few, results):
    assert results.health["pairs"] == len(results.pairs()) == 2 + 30 + 10
    assert results.health["origins"] == {"fixed": 2, "image_weakened": 30, "error_injected": 10}
    fixed = results.pairs("fixed")
    captions = few.values("caption")
    assert [(each.chosen, each.rejected) for each in fixed] == [
        (captions[0], "a blue cat"),
        (captions[1], "two dogs"),
    ]
    assert {each.t for each in results.pairs("image_weakened")} == {500, 700, 900}
    for each in results.pairs("error_injected"):
        assert "red" in each.chosen and "red" not in each.rejected and each.t is None
    assert all(each.grounding == 0.5 and each.prompt == "Describe the image." for each in results.pairs())
    assert few.values("preference_grounding") == [0.5] * 10
    assert results.config.chosen_field == "caption" and results.config.model.endswith("answer")
    assert len(few.match({"preference_preferences": {"$elemMatch": {"origin": "fixed"}}})) == 2
    assert few.first()["preference_preferences"][0].rejected == "a blue cat"
    assert "preference_preferences.rejected" in few.get_field_schema(flat=True)


def test_a_run_is_renamed_and_deleted_like_others(few, results):
    before = results.pairs()
    assert ecif.list_preferences(few) == ["preference"] and ecif.list_runs(few) == ecif.list_shifts(few) == []
    ecif.rename_run(few, "preference", "other")
    assert ecif.load_preferences(few, "other").pairs() == before
    assert not few.has_sample_field("preference_preferences")
    with pytest.raises(ValueError, match="no ECIF run 'other'"):
        ecif.load_results(few, "other")
    with pytest.raises(ValueError, match="no run of preference pairs"):
        ecif.load_preferences(few, "preference")
    ecif.delete_run(few, "other")
    assert ecif.list_preferences(few) == [] and not few.has_sample_field("other_preferences")


def test_a_run_that_is_cancelled_leaves_nothing_and_asks_nothing_twice(few, guess):
    def cancel(step, done, total):
        if step == "Ask the model" and done >= 12:
            raise KeyboardInterrupt

    asked = dict(chosen_field="caption", model=guess, negatives=["image_weakened"], batch_size=4, seed=5)
    before = few.get_field_schema()
    with pytest.raises(KeyboardInterrupt):
        ecif.build_preferences(few, progress=cancel, concurrency=1, **asked)
    first = len(guess.asked)
    assert 12 <= first < 30 and few.get_field_schema() == before and ecif.list_preferences(few) == []
    assert ecif.build_preferences(few, progress=False, **asked).health["pairs"] == 30
    assert len(guess.asked) == 30
    ecif.build_preferences(few, progress=False, overwrite=True, **asked)
    assert len(guess.asked) == 30 and list(cache_folder("answers").rglob("*.json"))


def test_what_cannot_serve_is_skipped_and_counted_and_the_rest_kept(few, guess):
    samples = list(few)
    samples[0].filepath = "/nowhere/none.png"
    samples[1].caption = None
    samples[2].caption = "a <image> of red"
    samples[3].tags = ["misaligned"]
    samples[4]["question"] = "What is <|im_end|>?"
    for sample in samples:
        sample["question"] = sample["question"] if sample.has_field("question") and sample["question"] else "What?"
        sample.save()
    found = ecif.build_preferences(
        few, prompt_field="question", model=guess, negatives="image_weakened", noise_steps=700, **QUIET
    )
    reasons = list(found.skipped.values())
    assert reasons == [
        "image file is missing",
        "right answer is missing",
        "the right answer holds <image>, which models take for a mark",
        "the text is tagged 'misaligned' and was not corrected",
        "the prompt holds <|im_end|>, which models take for a mark",
    ]
    assert len(found.pairs()) == 5 and {each.prompt for each in found.pairs()} == {"What?"}


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (lambda images, prompts: [""] * len(images), "the rejected text is empty"),
        (lambda images, prompts: [], "0 answers"),
        (lambda images, prompts: 1 / 0, "ZeroDivisionError"),
        (lambda images, prompts: ["A drawing of a red circle."] * len(images), "says what the chosen one says"),
    ],
)
def test_a_model_that_fails_costs_its_own_pairs_alone(few, says, reason):
    few.set_values("caption", ["a drawing of a red circle"] * 10)
    found = ecif.build_preferences(few, model=says, negatives=["fixed", "image_weakened"], retries=0, **QUIET)
    assert found.health["origins"] == {"fixed": 2}
    ((origin, why, count),) = found.health["left_out"]
    assert origin == "image_weakened" and reason in why and count == 30
    with pytest.raises(ValueError, match="No pair is left"):
        ecif.build_preferences(few, model=says, negatives="image_weakened", retries=0, run_key="none", **QUIET)


def test_a_rewriter_is_given_the_right_answer(few):
    asked = []

    def rewrite(images, prompts):
        asked.extend(prompts)
        return [prompt.rpartition("Answer: ")[2].replace("red", "blue") for prompt in prompts]

    found = ecif.build_preferences(few, rewriter=rewrite, negatives="error_injected", **QUIET)
    assert len(asked) == 10 and all("Describe the image." in each for each in asked)
    assert all(each.rejected == each.chosen.replace("red", "blue") for each in found.pairs())


def test_suggestions_above_a_confidence_count_as_corrections(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    dataset, ids = results.dataset, results.dataset.values("id")
    dataset.set_field("ecif_suggestion", None).save()
    labels = {ids[0]: ("better", 0.9), ids[1]: ("worse", 0.4), ids[2]: ("trusted", 0.9)}
    given = {id: fo.Classification(label=label, confidence=sure) for id, (label, sure) in labels.items()}
    dataset.set_values("ecif_suggestion", given, key_field="id")
    dataset.select(ids[2]).tag_samples("trusted")
    dataset.select(ids[0]).tag_samples("misaligned")
    found = ecif.build_preferences(dataset, negatives="fixed", suspects_run="ecif", min_confidence=0.5, **QUIET)
    (pair,) = found.pairs()
    assert (pair.sample_id, pair.chosen) == (ids[0], "better") and pair.rejected == dataset[ids[0]].caption


def test_raw_values_that_are_no_texts_are_skipped(few):
    """Other programs may have written anything."""
    samples, odd = few._sample_collection, [5, ["a"], {"a": 1}]
    ids = [sample["_id"] for sample in samples.find({}, {"_id": 1}).limit(4)]
    for id, value in zip(ids[1:], odd, strict=True):
        samples.update_one({"_id": id}, {"$set": {"caption": value}})
    samples.update_one({"_id": ids[0]}, {"$push": {"caption_fixes": {"before": 7, "_cls": "DynamicEmbeddedDocument"}}})
    found = ecif.build_preferences(few, negatives="fixed", **QUIET)
    assert [each.rejected for each in found.pairs()] == ["a blue cat"]
    assert len(found.skipped) == 3 and all("not a text" in reason for reason in found.skipped.values())


def test_lengths_are_balanced_on_request(few):
    few.set_values("caption", ["a red thing " + "very " * (4 * (number % 3)) for number in range(10)])

    def longer(images, prompts):
        return ["w " * 9] * len(images)

    asked = dict(model=longer, negatives="image_weakened", noise_steps=[500], **QUIET)
    plain = ecif.build_preferences(few, **asked)
    assert abs(plain.bias().length) > 0.05 and plain.bias() == plain.bias_after == plain.bias_before
    even = ecif.build_preferences(few, balance=True, run_key="even", **asked)
    assert abs(even.bias_after.length) <= 0.05 < abs(even.bias_before.length)
    assert 0 < len(even.pairs()) < 10 and even.bias() == even.bias_after


def test_pairs_are_dropped_kept_and_edited(few, results):
    first, second, third = results.pairs()[:3]
    results.decide(first.key, "drop")
    results.decide(second.key, "keep")
    results.edit(third.key, rejected="a green cat")
    left = results.pairs()
    assert first.key not in [each.key for each in left] and len(left) == 41
    edited = results.pair(third.key)
    assert edited.rejected == "a green cat" and edited.grounding is None and edited.chosen == third.chosen
    assert list(results.decisions().values())[:4] == ["drop", "keep", "keep", None]
    results.decide(first.key, "keep")
    assert results.pair(first.key) == first
    for wrong in ({"rejected": third.chosen}, {"rejected": ""}, {"chosen": " "}):
        with pytest.raises(ValueError, match=r"make no pair|is empty"):
            results.edit(third.key, **wrong)
    with pytest.raises(ValueError, match="has no pair"):
        results.decide("nothing", "drop")
    assert results.samples("fixed").values("id") == few.values("id")[:2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(chosen_field=None), "Pass chosen_field"),
        (dict(chosen_field="none"), "no field 'none'"),
        (dict(model=None), "need a model"),
        (dict(model=3), "must be a folder"),
        (dict(negatives="guessed"), "some of fixed, image_weakened"),
        (dict(negatives=[]), "not empty"),
        (dict(negatives="error_injected"), "pass rewriter, clip or suspects_run"),
        (dict(min_confidence=0.5), "pass suspects_run"),
        (dict(suspects_run="none"), "no ECIF run 'none'"),
        (dict(noise_steps=[0]), "at least 1"),
        (dict(noise_steps=1000), "at most 999"),
        (dict(negatives="fixed", chosen_field="ground_truth"), "No pair is left. No text was ever fixed"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_asked(few, guess, change, words):
    with pytest.raises(ValueError, match=words):
        ecif.build_preferences(few, **(dict(model=guess, negatives="image_weakened", **QUIET) | change))
    assert guess.asked == [] and ecif.list_preferences(few) == []
