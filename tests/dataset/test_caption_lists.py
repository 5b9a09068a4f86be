"""Lists of captions become pairs that can be scored."""

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from tests.support.grouped import as_slice


@pytest.fixture
def listed(pair_dataset):
    """Ten images with two captions each."""
    dataset = pair_dataset[:10].clone()
    captions = dataset.values("caption")
    dataset.set_values("captions", [[caption, f"also {caption}"] for caption in captions])
    dataset.delete_sample_field("caption")
    return dataset


def test_each_caption_gets_a_sample_that_says_where_it_comes_from(listed):
    made = ecif.one_caption_per_sample(listed, "captions")
    assert made.count("id") == 20 and listed.count("id") == 10
    by_id = dict(zip(*listed.values(["id", "captions"]), strict=True))
    for text, source, number, path, label in zip(
        *made.values(["caption", "source_id", "caption_number", "filepath", "ground_truth.label"]), strict=True
    ):
        assert by_id[source][number] == text
        assert (path, label) == (listed[source].filepath, listed[source].ground_truth.label)
    assert made.get_field("captions") is None
    assert len(set(made.values("ground_truth.id"))) == 20  # labels are copies of their own


def test_what_cannot_serve_is_counted(listed):
    listed.set_values("captions", [None, [], ["one", " "], *listed.values("captions")[3:]])
    with pytest.warns(UserWarning, match="2 samples without a caption and 1 captions that are empty or no text"):
        made = ecif.one_caption_per_sample(listed, "captions")
    assert made.count("id") == 15


def test_fields_of_runs_and_groups_are_left_behind(scored_dataset):
    scored_dataset.set_values("captions", [[text] for text in scored_dataset.values("caption")])
    made = ecif.one_caption_per_sample(scored_dataset, "captions", "text")
    assert not [name for name in made.get_field_schema() if name.startswith("first_")] and not made.list_runs()
    grouped = as_slice(scored_dataset, "first")
    with pytest.raises(ValueError, match="choose the slice"):
        ecif.one_caption_per_sample(grouped, "captions", "text")
    made = ecif.one_caption_per_sample(grouped.select_group_slices("left"), "captions", "text")
    assert made.media_type == "image" and made.values("text") == scored_dataset.values("caption")


def test_nothing_is_made_where_nothing_can_be(listed, pair_dataset):
    before = fo.list_datasets()
    pair_dataset.add_sample_field("empty", fo.ListField, subfield=fo.StringField)
    refused = {
        "does not hold lists of texts": lambda: ecif.one_caption_per_sample(pair_dataset, "caption"),
        "There is no caption in the field 'empty'": lambda: ecif.one_caption_per_sample(pair_dataset, "empty", "text"),
        "There is a field 'caption' already": lambda: ecif.one_caption_per_sample(pair_dataset, "empty"),
        "There is a dataset": lambda: ecif.one_caption_per_sample(listed, "captions", name=listed.name),
        "There is no field 'captoins'": lambda: ecif.one_caption_per_sample(listed, "captoins"),
    }
    for words, ask in refused.items():
        with pytest.raises(ValueError, match=words):
            ask()
    assert fo.list_datasets() == before


def test_the_error_for_lists_names_the_way_out(listed):
    with pytest.raises(ValueError, match=r"list of texts per sample.*one_caption_per_sample\(samples, 'captions'\)"):
        ecif.compute_influence(listed, "captions", progress=False)
