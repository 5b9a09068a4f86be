"""Traces of failing queries on a dataset: found, explained, verified, kept."""

import json

import fiftyone as fo
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution.trace_tables import COMPANY
from fiftyone_ecif.dataset.ask.trace_record import trace_file
from fiftyone_ecif.dataset.run.config import trace_folder
from fiftyone_ecif.features import FeatureStore, cache_folder
from fiftyone_ecif.models import load_model
from tests.support.planted import plant_errors

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def make_run(dataset):
    """A run on the first 50 pairs, on which some samples fail."""
    return ecif.compute_influence(
        dataset[:50], "caption", image_embeddings="image_embedding", text_embeddings="text_embedding", rounds=2,
        batch_size=20, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(pair_rows):
    """For tests that change nothing but traces."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path, caption=caption) for path, caption, _ in pair_rows])
    plant_errors(dataset)
    yield make_run(dataset)
    dataset.delete()


@pytest.fixture(scope="module")
def failing(results):
    return ecif.find_failures(results.dataset, "ecif", progress=False)


@pytest.fixture
def own_results(pair_dataset):
    """For tests that change the run or its dataset."""
    plant_errors(pair_dataset)
    return make_run(pair_dataset)


def test_failures_are_marked_with_rank_and_margin(results, failing):
    embedded_dataset = results.dataset
    margins = dict(zip(*embedded_dataset.values(["id", "ecif_margin"])))
    ranks = dict(zip(*embedded_dataset.values(["id", "ecif_rank"])))
    failed = dict(zip(*embedded_dataset.values(["id", "ecif_failed"])))
    assert 0 < len(failing) < 60
    assert set(failing.values("id")) == {id for id in failed if failed[id]}
    assert failing.values("ecif_margin") == sorted(failing.values("ecif_margin"))
    beyond = set(margins) - set(results.samples.values("id"))
    assert beyond and len(margins) == 60
    for id, margin in margins.items():  # those beyond the run are judged by their own captions, too
        assert failed[id] == (margin < 0) == (ranks[id] > 1)


def test_a_trace_names_pairs_in_order_and_predicts_what_a_refit_measures(results, failing):
    trace = results.trace(failing.first(), k=50, progress=False)
    assert trace.view().values("id") == trace.ids and COMPANY < len(trace) <= 50
    blame = [relative * doubt for relative, doubt in zip(trace.relative, trace.doubt)]
    assert max(blame) < 0 and min(trace.doubt) > 0
    study = results.trace_study()
    rows = [study.row[id] for id in trace.ids]
    images = [torch.from_numpy(study.embeddings(fit.number, "image")[rows]).float() for fit in study.fits]
    likeness = sum(image @ image.T for image in images).fill_diagonal_(-torch.inf)
    near = likeness.argsort(1, descending=True)[:, :COMPANY].tolist()
    shared = [-((own * sum(blame[row] for row in some) / COMPANY) ** 0.5) for own, some in zip(blame, near)]
    assert shared == sorted(shared)
    assert [row["id"] for row in trace.table()] == trace.ids
    assert all(isinstance(row["text"], str) for row in trace.table())
    for value, positive, negative in zip(trace.value, trace.value_positive, trace.value_negative):
        assert value == pytest.approx(positive + negative, abs=1e-6)
    effect = trace.verify(3, progress=False)
    assert effect.before == pytest.approx(failing.values("ecif_margin")[0], rel=0.01)
    assert effect.predicted > effect.before and effect.measured > effect.before
    # Three of 40 pairs are far from few: to first order their removal does a fifth to a half of what it really does.
    assert 0.1 < (effect.predicted - effect.before) / (effect.measured - effect.before) < 1.2
    assert effect.predicted == trace.predicted_effect(3).predicted and effect.standard_error >= 0


def test_other_orders_can_be_asked_for_and_pairs_marked_as_fine_are_not_blamed(own_results):
    dataset = own_results.dataset
    failing = ecif.find_failures(dataset, "ecif", progress=False).first().id
    for order in ("relative", "value"):
        trace = own_results.trace(failing, order=order, progress=False)
        assert getattr(trace, order) == sorted(getattr(trace, order)) and getattr(trace, order)[-1] < 0
    first = own_results.trace(failing, progress=False)
    assert set(first.ids) == set(trace.ids)
    ecif.mark_as_fine(dataset.select(first.ids[0]))
    assert set(own_results.trace(failing, progress=False).ids) == set(first.ids[1:])
    assert first.ids[0] in own_results.trace(failing, order="value", progress=False).ids


def test_a_training_pair_is_left_out_of_its_own_trace_and_that_is_said(results, failing):
    inside = next(id for id in failing.values("id") if id in results.samples.values("id"))
    trace = results.trace(inside, progress=False)
    assert inside not in trace.ids
    assert any("itself a training pair" in note for note in trace.notes)


def test_a_view_gives_one_joint_trace_and_a_list_one_each(results, failing):
    joint = results.trace(results.dataset, k=10, progress=False)
    assert any("answered right" in note for note in joint.notes)
    assert not set(joint.ids) & set(failing.values("id"))
    first, second = results.trace(failing.values("id")[:2], k=10, progress=False)
    alone = results.trace(failing.values("id")[1], k=10, progress=False)
    assert second.ids == alone.ids and second.value == pytest.approx(alone.value, rel=1e-3)
    assert first.key != second.key


def test_texts_look_for_images_and_texts_of_the_run_can_be_asked_about_from_outside(results):
    failing = ecif.find_failures(results.dataset, "ecif", "text_to_image", progress=False)
    trace = results.trace(failing.first(), direction="text_to_image", kind="loss", progress=False)
    assert trace.target > 0 and trace.predicted_effect(5).predicted < trace.target
    first = results.samples.first()
    wrong = next(id for id, caption in zip(*results.samples.values(["id", "caption"])) if caption != first.caption)
    query = ecif.Query(text=first.caption, right=first.id, wrong=wrong)
    assert len(results.trace(query, progress=False)) > 0


def test_traces_are_kept_with_the_run_listed_reopened_and_deleted(own_results):
    dataset = own_results.dataset
    failing = ecif.find_failures(dataset, "ecif", progress=False)
    trace = own_results.trace(failing.first(), k=5, key="mine", progress=False)
    ecif.rename_run(dataset, "ecif", "other")
    assert dataset.has_sample_field("other_failed")
    again = ecif.load_results(dataset, "other")
    assert again.list_traces() == ["mine"]
    opened = again.load_trace("mine")
    assert (opened.ids, opened.value, opened.query) == (trace.ids, trace.value, trace.query)
    assert opened.predicted_effect(2) == trace.predicted_effect(2)
    assert opened.verify(2, progress=False).measured > opened.predicted_effect(2).before
    path = trace_file(again, "mine")
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in list(file.keys())}
        record = json.loads(file.metadata()["trace"])
    del record["doubt"]  # as before doubt was part of a trace
    save_file(kept, path, metadata={"trace": json.dumps(record)})
    with pytest.raises(ValueError, match="another version of fiftyone-ecif"):
        again.load_trace("mine")
    again.delete_trace("mine")
    with pytest.raises(ValueError, match="it has none"):
        again.load_trace("mine")
    folder = trace_folder(again.config)
    assert folder.exists()
    ecif.delete_run(dataset, "other")
    assert not folder.exists() and not dataset.has_sample_field("other_failed")


def test_a_cloned_dataset_keeps_its_own_traces_and_deletes_only_its_own_run(own_results):
    dataset = own_results.dataset
    failing = ecif.find_failures(dataset, "ecif", progress=False)
    trace = own_results.trace(failing.first(), k=5, key="mine", progress=False)
    clone = dataset.clone()
    try:
        cloned = ecif.load_results(clone, "ecif")
        assert cloned.list_traces() == []
        again = cloned.trace(failing.first().id, k=5, key="mine", progress=False)
        assert again.value == trace.value
        ecif.delete_run(clone, "ecif")
    finally:
        clone.delete()
    assert own_results.list_traces() == ["mine"]
    assert ecif.load_results(dataset, "ecif").trace(failing.first(), k=5, progress=False).value == trace.value


def test_failures_are_found_without_what_only_traces_need(own_results, monkeypatch):
    tables = "fiftyone_ecif.attribution.trace_tables.TraceTables.build"
    monkeypatch.setattr(tables, lambda *arguments, **more: pytest.fail("trace tables were built"))
    assert len(ecif.find_failures(own_results.dataset, "ecif", progress=False)) > 0


def test_several_traces_keep_the_key_with_a_number_each(results):
    failing = ecif.find_failures(results.dataset, "ecif", progress=False)
    first, second = failing.values("id")[:2]
    both = results.trace([first, second], k=3, key="both", progress=False)
    assert [trace.key for trace in both] == ["both-1", "both-2"]
    assert [trace.sample_ids for trace in both] == [[first], [second]]
    assert [results.load_trace(trace.key).sample_ids for trace in both] == [[first], [second]]
    numbered = results.trace([first, second], k=3, progress=False)
    assert len({trace.key for trace in numbered}) == 2 and not {"both-1", "both-2"} & {trace.key for trace in numbered}
    assert results.trace([], progress=False) == []
    with pytest.raises(ValueError, match="has a trace 'both-1' already"):
        results.trace([first], key="both", progress=False)
    with pytest.raises(ValueError, match="Trace key 'a/b' cannot be used"):
        results.trace(first, key="a/b", progress=False)
    for trace in both + numbered:
        results.delete_trace(trace.key)


def test_a_joint_trace_names_the_samples_that_ask(results):
    failing = ecif.find_failures(results.dataset, "ecif", progress=False)
    trace = results.trace(failing.limit(3), k=3, progress=False)
    assert sorted(trace.sample_ids) == sorted(failing.limit(3).values("id"))
    query = ecif.Query(text="nothing of the kind", right=failing.first().id)
    with pytest.raises(ValueError, match="no model to embed"):
        results.trace(query, progress=False)
    results.delete_trace(trace.key)


def test_what_cannot_be_traced_is_said(results, failing):
    right = next(id for id in results.samples.values("id") if id not in failing.values("id"))
    with pytest.raises(ValueError, match=r"does not fail.*wrong="):
        results.trace(right, progress=False)
    with pytest.raises(ValueError, match="did you mean"):
        results.trace(failing.first(), right=results.samples.first().caption + "s", progress=False)
    with pytest.raises(ValueError, match="no model to embed"):
        results.trace(ecif.Query(image="no.png", right="x"), progress=False)
    with pytest.raises(ValueError, match="none of the run's texts"):
        results.trace(ecif.Query(text="a zeppelin", right=right), progress=False)
    with pytest.raises(ValueError, match="right answer"):
        results.trace(ecif.Query(text="a zeppelin"), progress=False)
    with pytest.raises(ValueError, match="empty"):
        results.trace(results.dataset.limit(0), progress=False)
    with pytest.raises(ValueError, match="kind"):
        results.trace(right, kind="other", progress=False)
    with pytest.raises(ValueError, match="order"):
        results.trace(right, order="other", progress=False)


def test_changed_data_deleted_samples_and_other_scopes_are_said(own_results):
    dataset = own_results.dataset
    failing = ecif.find_failures(dataset, "ecif", progress=False).values("id")
    gone = dataset.last().id
    dataset.delete_samples([gone])
    with pytest.raises(ValueError, match="was deleted"):
        own_results.trace(gone, progress=False)
    dataset.delete_samples(dataset[:2])
    left = next(id for id in failing if id in dataset.values("id"))
    with pytest.raises(ValueError, match=r"has changed since.*refresh_run.*only what changed"):
        own_results.trace(left, progress=False)
    refreshed = ecif.refresh_run(dataset, "ecif", progress=False)
    assert refreshed.health["pairs"] == 48 and refreshed.list_traces() == []
    assert ecif.find_failures(dataset, "ecif", progress=False) is not None
    info = dataset.get_run_info("ecif")
    info.config.scope = "lora"
    dataset.update_run_config("ecif", info.config)
    with pytest.raises(ValueError, match="head scope"):
        ecif.load_results(dataset, "ecif").trace(left, progress=False)


def test_images_from_outside_are_embedded_by_the_run_s_model(pair_dataset, pair_rows, tmp_path):
    torch.manual_seed(0)
    base = tmp_path / "base.pt"
    load_model("ecif-tiny").save_checkpoint(base)
    results = ecif.compute_influence(
        pair_dataset, "ground_truth", model="ecif-tiny", pretrained=str(base), rounds=1, batch_size=20,
        num_workers=0, anchor=1.0, progress=False,
    )  # fmt: skip
    path, _, label = pair_rows[0]
    others = [name for name in ("circle", "square", "triangle") if name != label]
    traces = [results.trace(ecif.Query(image=path, right=label, wrong=other), progress=False) for other in others]
    assert all(len(trace) > 0 for trace in traces)
    # The run's texts are its classes: the loss is the zero-shot loss.
    failing = ecif.find_failures(pair_dataset, "ecif", progress=False).first()
    trace, study = results.trace(failing, kind="loss", progress=False), results.trace_study()
    classes = dict(zip(pair_dataset.values("ground_truth.label"), map(study.row.get, pair_dataset.values("id"))))
    image, text = study.pairs.gather(torch.tensor([study.row[failing.id], *classes.values()]))
    right = torch.tensor([list(classes).index(failing.ground_truth.label)])
    scores = [fit.head.linearize(image[:1], text[1:]).similarity() for fit in study.fits]
    expected = sum(torch.nn.functional.cross_entropy(score, right).item() for score in scores) / len(scores)
    assert trace.target == pytest.approx(expected, rel=1e-4)
    assert trace.predicted_effect(1).predicted < trace.predicted_effect(1).before
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an image"):
        results.trace(ecif.Query(image=str(broken), right=label), progress=False)
    with pytest.raises(ValueError, match="missing"):
        unreadable = fo.Sample(filepath=str(tmp_path / "gone.png"), ground_truth=fo.Classification(label=label))
        pair_dataset.add_sample(unreadable)
        results.trace(unreadable.id, progress=False)


def test_changed_pairs_are_traced_as_they_were_and_a_refresh_embeds_them_alone(pair_dataset, tmp_path):
    torch.manual_seed(0)
    base = tmp_path / "base.pt"
    load_model("ecif-tiny").save_checkpoint(base)
    results = ecif.compute_influence(
        pair_dataset, "caption", model="ecif-tiny", pretrained=str(base), rounds=1, batch_size=20, num_workers=0,
        anchor=1.0, progress=False,
    )  # fmt: skip

    def stored():
        return len(FeatureStore(cache_folder("features"), results.config.model_fingerprint))

    before = stored()
    failing = ecif.find_failures(pair_dataset, "ecif", progress=False).first().id
    trace = results.trace(failing, progress=False)
    changed = pair_dataset.first()
    changed.caption = "something else"
    changed.save()
    pair_dataset.delete_samples(pair_dataset.last().id)
    results = ecif.load_results(pair_dataset, "ecif")
    assert results.trace(failing, progress=False).value == trace.value
    refreshed = ecif.refresh_run(pair_dataset, "ecif", progress=False)
    assert stored() == before + 1 and refreshed.health["pairs"] == 59
    assert refreshed.config.anchor == 1.0 and refreshed.config.rounds == 1
    failing = ecif.find_failures(pair_dataset, "ecif", progress=False)
    assert len(refreshed.trace(failing.first(), progress=False)) > 0
    first = failing.first()
    query = ecif.Query(image=first.filepath, right="what nobody has said", wrong=first.caption)
    trace = refreshed.trace(query, k=5, progress=False)
    assert "none of the run's texts" in trace.query
    assert refreshed.load_trace(trace.key).verify(2, progress=False).measured is not None
