"""Exports of a run's pairs: what is left of them, in a folder that is there whole or not at all."""

import json
from pathlib import Path

import pytest

import fiftyone_ecif as ecif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def results(pair_dataset):
    def rewrite(images, prompts):
        return [prompt.rpartition("Answer: ")[2] + " and a cat" for prompt in prompts]

    dataset = pair_dataset.limit(5).clone()
    asked = dict(chosen_field="caption", negatives="error_injected", rewriter=rewrite, progress=False)
    return ecif.build_preferences(dataset, **asked)


def test_pairs_that_were_not_dropped_are_exported(results, tmp_path):
    first, *others = results.pairs()
    results.decide(first.key, "drop")
    results.edit(others[0].key, rejected="something else")
    assert results.export(tmp_path / "out") == 4
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [[each.path] for each in others]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": "something else"}]}]
    assert rows[0]["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "Describe the image."}]
    assert results.export(tmp_path / "kto", form="kto") == 8
    assert results.export(tmp_path / "llava", form="llava", embed_images=True) == 4
    assert json.loads((tmp_path / "llava" / "llava.json").read_text())[0]["image"].startswith("data:image/png;base64,")


def test_an_export_that_cannot_be_leaves_nothing(results, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for change, words in [
        (dict(folder=tmp_path / "full"), "not empty"),
        (dict(form="csv"), "form must be one of"),
        (dict(container="zip"), "container must be one of"),
        (dict(form="llava", container="parquet"), "JSON file"),
        (dict(origin="fixed"), "No pair is left"),
        (dict(min_grounding=0.0), "No pair is left"),
    ]:
        with pytest.raises(ValueError, match=words):
            results.export(**(dict(folder=tmp_path / "new") | change))
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(results.pairs()[0].path).read_bytes())
    sample = results.dataset.first()
    sample.filepath = str(copy)
    sample.save()
    copy.unlink()
    with pytest.raises(ValueError, match="1 images are gone"):
        results.export(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_pairs_of_samples_that_were_deleted_are_gone_with_them(results):
    results.dataset.delete_samples(results.dataset.values("id")[:2])
    assert len(results.pairs()) == 3
    results.dataset.delete_sample_field("preference_preferences")
    with pytest.raises(ValueError, match="were deleted"):
        results.pairs()
