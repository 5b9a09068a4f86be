"""What each tab of the panel shows, and what its events do to the data and the grid."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.panel.tabs.trace import blame_figure
from tests.support.headless_panel import Panel
from tests.support.operators import requests_of


def test_lassoed_pairs_are_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    ids = panel.data["roles"][0]["ids"][:5]
    panel.event("select_points", data=[{"id": id} for id in ids])
    assert set(panel.samples.values("id")) == set(ids)
    panel.event("on_change_ctx")  # the App shows the selection
    scored_dataset.delete_samples(ids[:2])  # by another page
    panel.event("refresh")
    assert panel.state["influence"]["drawn"] == 58


def test_a_card_is_accepted_and_undone(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    card = next(card for card in panel.state["cards"] if card["suggestion"])
    panel.event("accept", id=card["id"])
    assert scored_dataset[card["id"]].caption == card["suggestion"]
    assert card["id"] not in [each["id"] for each in panel.state["cards"]]
    panel.event("undo")
    assert scored_dataset[card["id"]].caption == card["text"]
    first, second = (each["id"] for each in panel.state["cards"][:2])
    panel.event("fine", id=first)
    panel.event("reject", id=second)
    assert ecif.trusted(scored_dataset).values("id") == [first]
    assert not {first, second} & {each["id"] for each in panel.state["cards"]}
    assert panel.state["waiting"] == 58
    assert len(ecif.cleaned(scored_dataset)) == 59


def test_any_of_the_candidates_on_a_card_can_be_accepted(scored_dataset):
    id = ecif.to_review(scored_dataset, "first").first().id
    labels = [fo.Classification(label=text, confidence=p) for text, p in (("one", 0.6), ("*two*", 0.3))]
    scored_dataset.set_values("first_suggestion", {id: labels[0]}, key_field="id")
    scored_dataset.set_values("first_candidates", {id: fo.Classifications(classifications=labels)}, key_field="id")
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    assert panel.state["cards"][0]["candidates"] == [["one", 0.6], ["*two*", 0.3]]
    words = panel.words("card_0").replace("\\\\", "\\")
    assert "**one** (0.60)" in words and r"**\*two\*** (0.30)" in words
    assert "Nothing was replaced" in panel.event("accept", id=id, text="three").requests["notify"]["message"]
    panel.event("accept", id=id, text="*two*")
    sample = scored_dataset[id]
    assert (sample.caption, sample["first_suggestion"].label) == ("*two*", "*two*")
    assert sample.caption_fixes[0].confidence == 0.3


def test_an_audit_is_drawn_judged_and_recalibrates(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    assert "calibration" not in panel.shown
    assert "audit_sample" in panel.event("choose_order", value="audit").requests["notify"]["message"]
    panel.event("audit")
    for order in ("misalignment", "audit"):
        assert panel.event("choose_order", value=order).state["order"] == order
    assert panel.state["order"] == "audit" and panel.state["waiting"] == 20
    assert "None of the drawn pairs has been judged" in panel.state["audited"]
    drawn = scored_dataset.exists("first_audit").sort_by("first_audit.number").values("id")
    assert [card["id"] for card in panel.state["cards"]] == drawn[:4]
    assert "None of the drawn" in panel.event("recalibrate").requests["notify"]["message"]
    for id, wrong in zip(drawn, scored_dataset.select(drawn, ordered=True).values("planted"), strict=True):
        panel.event("reject" if wrong else "fine", id=id)
    found = ecif.load_results(scored_dataset, "first").audit()
    assert f"Judged 20 pairs, {found.wrong} of them wrong" in panel.state["audited"]
    before = scored_dataset.values("first_misalignment")
    panel.event("recalibrate")
    assert scored_dataset.values("first_misalignment") != before
    assert panel.event("audit").state["waiting"] == 20  # of forty that are drawn now
    assert Panel(scored_dataset).state["order"] == "audit"  # after a reload


def test_captions_that_say_little_are_shown_reviewed_and_left_out(scored_dataset):
    panel = Panel(scored_dataset)
    name = "first_vagueness"
    vaguest = scored_dataset.sort_by(name, reverse=True).values("id")
    assert panel.event("show_vague").samples.values("id") == vaguest
    assert name in panel.requests["set_active_fields"]["fields"]
    panel.event("on_change_ctx").event("choose_tab", value="review").event("choose_order", value="vagueness")
    cards = panel.state["cards"]
    assert [card["id"] for card in cards] == vaguest[:4]
    assert f"{cards[0]['vagueness']:.2%}" in panel.words("card_0").replace("\\", "")
    panel.event("empty", id=vaguest[0])
    assert scored_dataset[vaguest[0]].tags == ["empty_caption"]
    assert [card["id"] for card in panel.state["cards"]] == vaguest[1:5]
    assert Panel(scored_dataset).state["order"] == "vagueness"  # after a reload


def test_wrong_words_are_marked_on_their_card_and_are_no_markup(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    id = panel.state["cards"][0]["id"]
    scored_dataset.set_values("caption", {id: "a *red* cow, no cowboy"}, key_field="id")
    scored_dataset.set_values("first_wrong_words", {id: ["cow", "red"]}, key_field="id")
    words = panel.event("refresh").words("card_0").replace("\\\\", "\\")
    assert r"a \***red**\* **cow**\, no cowboy" in words
    scored_dataset.set_values("first_wrong_words", {id: ["gone"]}, key_field="id")
    assert r"**a \*red\* cow\, no cowboy**" in panel.event("refresh").words("card_0").replace("\\\\", "\\")
    (prompt,) = (each for name, each in panel.event("name_words").requests.items() if "prompt" in name)
    assert "@ecif/ecif/name_wrong_words" in prompt.values()


def test_a_run_of_before_there_was_vagueness_is_shown_without_it(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review").event("choose_order", value="vagueness")
    scored_dataset.delete_sample_field("first_vagueness")
    panel = Panel(scored_dataset)
    assert panel.state["order"] == "misalignment" and panel.state["cards"][0]["vagueness"] is None
    assert "orders" not in panel.shown
    words = panel.event("choose_order", value="vagueness").requests["notify"]["message"]
    assert "earlier versions" in words and panel.state["order"] == "misalignment"
    assert "vague" not in panel.event("choose_tab", value="suspects").shown
    assert "earlier versions" in panel.event("show_vague").requests["notify"]["message"]


def test_of_two_pages_the_second_is_told_what_the_first_did(scored_dataset):
    first, second = (Panel(scored_dataset).event("choose_tab", value="review") for _ in range(2))
    fixed, deleted, *_ = (card["id"] for card in first.state["cards"] if card["suggestion"])
    first.event("accept", id=fixed)
    assert "Nothing was replaced" in second.event("accept", id=fixed).requests["notify"]["message"]
    assert len(scored_dataset[fixed].caption_fixes) == 1
    scored_dataset.delete_samples([deleted])
    for event in ("accept", "fine", "reject", "find"):
        assert "deleted in the meantime" in first.event(event, id=deleted).requests["notify"]["message"]
    assert deleted not in [card["id"] for card in first.state["cards"]]


def test_a_read_only_caption_is_refused_in_words(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    card = next(card for card in panel.state["cards"] if card["suggestion"])
    field = scored_dataset.get_field("caption")
    field.read_only = True
    field.save()
    notification = panel.event("accept", id=card["id"]).requests["notify"]
    assert "read-only" in notification["message"] and notification["variant"] == "error"


def test_captions_are_no_markup(scored_dataset):
    markup = "<script>alert(1)</script> **bold** [a](b)"
    scored_dataset.set_field("caption", markup).save()
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    words = panel.words("card_0")
    assert r"\<script\>" in words and "<script>" not in words and "**bold**" not in words


def test_precision_is_measured_against_other_scores_in_their_better_direction(scored_dataset):
    from sklearn.metrics import average_precision_score

    planted = np.array(scored_dataset.values("planted"))
    scored_dataset.set_values("clip_score", [0.5 - 0.4 * wrong + 1e-3 * row for row, wrong in enumerate(planted)])
    panel = Panel(scored_dataset).event("choose_truth", value="field:planted")
    score, value = (np.array(each) for each in scored_dataset.values(["first_misalignment", "first_value"]))
    own = average_precision_score(planted, score)
    assert panel.state["measured"] == {"average": pytest.approx(own), "wrong": 12}
    names = [curve["name"] for curve in panel.data["precision"] if "name" in curve]
    drawn = {name: float(area) for name, area in (name[:-1].split(" (") for name in names)}
    assert list(drawn)[:2] == ["first_misalignment", "clip_score"]
    assert drawn["clip_score"] == 1.0  # low scores are wrong pairs
    rival = max(average_precision_score(planted, value), average_precision_score(planted, -value))
    assert drawn["first_value"] == pytest.approx(rival, abs=1e-3)


def test_the_removal_curve_adds_up_the_harmful_values(scored_dataset):
    panel = Panel(scored_dataset)
    unscored = scored_dataset.limit(5)
    unscored.set_field("first_value", None).save()
    panel.event("choose_tab", value="influence")
    harmful = np.sort([value for value in scored_dataset.values("first_value") if value is not None and value < 0])
    curve = panel.data["removal"][0]
    assert curve["y"][1:] == pytest.approx(harmful.cumsum()[np.array(curve["x"][1:]) - 1])
    panel.event("choose_remove", value=7)
    assert panel.state["influence"]["change"] == pytest.approx(harmful[:7].sum())
    assert panel.event("show_harmful").samples.values("first_value") == harmful[:7].tolist()


def test_suspects_that_seem_to_help_are_counted_and_explained(scored_dataset):
    scored_dataset.set_values("first_misalignment", [0.9] * 7 + [0.1] * 53)
    scored_dataset.set_values("first_value", [0.1] * 3 + [-0.1] * 57)
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    assert "3 of the 7 suspected pairs have a positive value" in panel.words("disagreement")
    scored_dataset.set_values("first_value", [-0.1] * 60)
    assert "disagreement" not in panel.event("refresh").shown


def test_the_health_of_a_run_is_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="health")
    assert {"settings", "health", "timings"} <= set(panel.shown)
    value, spread = (np.array(each) for each in scored_dataset.values(["first_value", "first_value_std"]))
    assert panel.state["sureness"] == {"sure": int((abs(value) >= 2 * spread).sum()), "scored": 60}
    assert len(scored_dataset.match(F("tags").length() > 0)) == 0  # looking changes nothing


def test_predicted_removals_are_drawn_for_the_view_that_they_are_of(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    assert len(panel.data["removal"]) == 1
    requests = requests_of(foo.get_operator("@ecif/ecif/forecast_removal")(scored_dataset, "first"))
    rows = requests["show_output"]["results"]["figures"]
    panel.event("refresh")
    loss, recall = panel.data["removal"][1:]
    assert len(rows) == len(loss["x"]) == len(recall["y"])
    losses = [float(row["target_loss"].split(" ± ")[0]) for row in rows]
    predicted = [loss - losses[0] for loss in losses]
    assert loss["y"] == pytest.approx(predicted, abs=1e-4)
    panel.event("choose_remove", value=loss["x"][2])
    assert "recall at 1 from" in panel.words("what_if") and "± is two standard errors" in panel.words("what_if")
    panel.samples = scored_dataset.limit(50)
    assert len(panel.event("on_change_ctx").data["removal"]) == 1


def test_a_new_trace_is_turned_to_and_shown_with_its_effects(scored_dataset):
    results = ecif.load_results(scored_dataset, "first")
    panel = Panel(scored_dataset)
    query = ecif.find_failures(scored_dataset, "first", progress=False).first()
    trace = results.trace(query, k=5, progress=False)
    panel.event("refresh")
    assert (panel.state["tab"], panel.state["trace"]) == ("trace", trace.key)
    blame = panel.state["blame"]
    assert blame["asking"]["text"] == query.caption and blame["measured"] is None
    assert blame["predicted"] == pytest.approx(trace.predicted_effect(len(trace)).predicted)
    drawn = [id for group in panel.data["blamed"] for id in group.get("ids", [])]
    assert sorted(drawn) == sorted(trace.ids)

    panel.event("choose_remove_traced", value=2)
    requests = requests_of(foo.get_operator("@ecif/ecif/verify_trace")(scored_dataset, "first", n=2))
    panel.event("refresh")
    measured = panel.state["blame"]["measured"]
    assert measured == results.load_trace(trace.key).predicted_effect(2).measured
    assert f"{measured:.4g}" in str(requests["show_output"]).replace("\\", "")
    assert panel.event("show_blamed").samples.values("id") == trace.ids[:2]
    scored_dataset.delete_samples(trace.ids[:1])  # by another page
    assert "(deleted)" in str(panel.event("refresh").data["blamed"])
    panel.event("delete_trace")
    assert "No trace yet" in panel.words("empty")


def test_captions_in_pictures_are_no_markup():
    row = {"id": "0", "value": -1.0, "value_positive": -1.0, "value_negative": 0.0, "text": "<b>bold</b>"}
    assert "&lt;b&gt;" in str(blame_figure([row], 1)) and "<b>" not in str(blame_figure([row], 1))
