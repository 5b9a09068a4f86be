"""Embedding computes what is missing, once, and keeps it whatever happens."""

import multiprocessing
import os
import pickle
import signal
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fiftyone_ecif.features.content as content
import fiftyone_ecif.features.embedding as embedding
from fiftyone_ecif.features import FeatureStore, PairRow, UnreadablePair, embed_pairs
from fiftyone_ecif.features.reading import Marks, read_image
from fiftyone_ecif.features.towers import CHANGED
from tests.support.damaged import with_foreign_exif, with_short_exif
from tests.support.workers import Several

EVERY = torch.arange(12)


def reference(model, rows):
    """One pair at a time."""
    image = [model.image_features(model.preprocess(read_image(row.filepath))[None])[0] for row in rows]
    text = [model.text_features(model.tokenize([row.caption]))[0] for row in rows]
    return torch.stack(image), torch.stack(text)


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("batch_size", "num_workers", "shard_rows"), [(1, 0, 1024), (5, 0, 4), (3, 2, 7), (64, 1, 12)])
def test_features_are_the_same_whatever_the_batches(
    model, rows, store, monkeypatch, batch_size, num_workers, shard_rows
):
    monkeypatch.setattr(embedding, "SHARD_ROWS", shard_rows)
    pairs = embed_pairs(model, rows, store, batch_size=batch_size, num_workers=num_workers)
    assert pairs.ids == [row.id for row in rows] and len(pairs) == 12 and not pairs.skipped
    assert_same(pairs.gather(EVERY), reference(model, rows))


def test_gather_keeps_the_order_asked_for(model, rows, store, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 5)
    pairs = embed_pairs(model, rows, store)
    image, text = pairs.gather(EVERY)
    index = torch.tensor([11, 0, 7, 7, 4])
    assert_same(pairs.gather(index), (image[index], text[index]))
    assert_same(pickle.loads(pickle.dumps(pairs)).gather(index), (image[index], text[index]))
    assert [half.shape for half in pairs.gather(torch.tensor([], dtype=torch.int64))] == [
        (0, pairs.image_dim),
        (0, pairs.text_dim),
    ]


def test_second_call_computes_nothing(model, rows, store):
    first = embed_pairs(model, rows, store).gather(EVERY)
    assert model.counts() == (12, 12)
    again = embed_pairs(model, rows[::-1], store)
    assert model.counts() == (0, 0)
    assert again.ids == [row.id for row in rows[::-1]]
    assert_same(again.gather(EVERY.flip(0)), first)


def test_only_new_and_changed_pairs_are_computed(model, rows, store):
    embed_pairs(model, rows[:9], store)
    model.counts()
    embed_pairs(model, rows, store)
    assert model.counts() == (3, 3)

    changed = [*rows[:5], rows[5]._replace(caption="something else"), *rows[6:]]
    pairs = embed_pairs(model, changed, store)
    assert model.counts() == (1, 1)
    assert_same(pairs.gather(EVERY), reference(model, changed))

    model.counts()
    read_image(rows[3].filepath).rotate(90).resize((9, 9)).save(rows[2].filepath)
    pairs = embed_pairs(model, changed, store)
    assert model.counts() == (1, 1)
    assert_same(pairs.gather(EVERY), reference(model, changed))


def test_shared_images_and_captions_go_through_the_towers_once(model, rows, store):
    shared = [PairRow(str(i), rows[i % 3].filepath, f"a photo of {i % 4}") for i in range(12)]
    pairs = embed_pairs(model, shared, store, batch_size=2)
    assert model.counts() == (3, 4)
    assert_same(pairs.gather(EVERY), reference(model, shared))


def test_equal_pairs_of_different_ids_share_a_row(model, rows, store):
    twice = [*rows, *(row._replace(id=f"clone-{row.id}") for row in rows)]
    pairs = embed_pairs(model, twice, store)
    assert model.counts() == (12, 12) and len(pairs) == 24
    assert_same(pairs.gather(EVERY + 12), pairs.gather(EVERY))


def test_failures_are_skipped_with_their_reasons(model, rows, store):
    empty = rows[3].filepath
    open(empty, "w").close()
    rows[1] = rows[1]._replace(caption="  ")
    rows[6] = rows[6]._replace(filepath=rows[6].filepath + ".none")
    rows[8] = rows[8]._replace(caption=None)
    kept = [row for i, row in enumerate(rows) if i not in (1, 3, 6, 8)]
    for _ in range(2):  # and again where the others are in the store
        pairs = embed_pairs(model, rows, store, batch_size=4)
        assert pairs.ids == [row.id for row in kept]
        assert pairs.skipped == {
            "id-1": "caption is empty",
            "id-3": "image file is empty",
            "id-6": "image file is missing",
            "id-8": "caption is missing",
        }
        assert_same(pairs.gather(EVERY[:8]), reference(model, kept))


def test_repaired_pair_is_embedded(model, rows, store):
    hidden = rows[4].filepath + ".hidden"
    os.rename(rows[4].filepath, hidden)
    assert list(embed_pairs(model, rows, store).skipped) == ["id-4"]
    os.rename(hidden, rows[4].filepath)
    pairs = embed_pairs(model, rows, store)
    assert not pairs.skipped and len(pairs) == 12


def test_first_failure_raises_where_failures_are_not_skipped(model, rows, store):
    rows[5] = rows[5]._replace(filepath="none.png")
    with pytest.raises(UnreadablePair, match=r"pair id-5 \(none.png\): image file is missing"):
        embed_pairs(model, rows, store, skip_failures=False)
    model.counts()
    embed_pairs(model, rows, store)
    assert model.counts()[0] == 6  # the five before the failure were kept


def test_every_pair_failing_leaves_no_pairs(model, rows, store):
    pairs = embed_pairs(model, [row._replace(caption="") for row in rows], store)
    assert len(pairs) == 0 and len(pairs.skipped) == 12 and pairs.marked("truncated") == 0
    assert embed_pairs(model, [], store).ids == []


@pytest.mark.parametrize(
    ("value", "reason"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (0.0, "zeros")]
)
def test_features_without_a_direction_are_skipped(model, rows, store, monkeypatch, value, reason):
    compute = type(model).text_features

    def broken(self, tokens):
        features = compute(self, tokens)
        features[2] = value
        return features

    monkeypatch.setattr(type(model), "text_features", broken)
    pairs = embed_pairs(model, rows, store)
    assert list(pairs.skipped) == ["id-2"] and reason in pairs.skipped["id-2"]


def test_preprocessing_that_fails_is_a_skip(model, rows, store):
    transform = model.preprocess

    def preprocess(image):
        if image.size == (7, 7):
            raise ZeroDivisionError("too small")
        return transform(image)

    model.preprocess = preprocess
    read_image(rows[0].filepath).resize((7, 7)).save(rows[0].filepath)
    assert embed_pairs(model, rows, store).skipped == {"id-0": "image cannot be preprocessed (too small)"}


def test_interruption_keeps_what_was_computed(model, rows, store, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)

    def interrupt(done, total):
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_pairs(model, rows, store, batch_size=2, progress=interrupt)
    model.counts()
    pairs = embed_pairs(model, rows, store)
    assert model.counts() == (2, 2)
    assert_same(pairs.gather(EVERY), reference(model, rows))


@pytest.mark.slow
def test_kill_at_any_moment_wastes_at_most_a_shard_and_changes_nothing(model, rows, tmp_path, monkeypatch):
    """kill -9, after so many of the calls that an embedding process makes."""
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    monkeypatch.setattr(content, "SETTLED", -1)  # else the first processes read the files, and later ones do not
    expected = reference(model, rows)
    embed_pairs(model, rows, tmp_path / "first")  # what is done once in a process is done now
    model.counts()
    calls, embedded = embed_in_child(model, rows, tmp_path / "whole")
    assert embedded == 12
    for moment in torch.linspace(1, calls - 9, 12).long().tolist():
        store = tmp_path / str(moment)
        _, embedded = embed_in_child(model, rows, store, kill_after=moment)
        pairs = embed_pairs(model, rows, store)
        assert embedded + model.counts()[0] <= 12 + 4
        assert_same(pairs.gather(EVERY), expected)


def embed_in_child(model, rows, store, kill_after=None):
    """Embed in another process that kills itself after so many calls; the calls made and the images embedded."""
    calls, embedded = multiprocessing.Value("q", 0), multiprocessing.Value("q", 0)

    def count(frame, event, argument):
        calls.value += 1
        embedded.value = model.images
        if calls.value == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        sys.setprofile(count)
        embed_pairs(model, rows, store, batch_size=2, num_workers=0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == (0 if kill_after is None else signal.SIGKILL)
    return calls.value, embedded.value


def test_captions_without_a_word_are_skipped(model, rows, store):
    nothing = ["&nbsp;", "\x00", "\u200b", "&amp;nbsp;", "\ufeff"]
    wordless = [text for text in nothing if (model.tokenize([text]) == model.tokenize([""])).all()]
    assert {"&nbsp;", "\x00"} <= set(wordless)
    captions = [*wordless, "&nbsp; a dog", "nan"]
    pairs = embed_pairs(model, [row._replace(caption=text) for row, text in zip(rows, captions)], store)
    assert [row.id for row in rows[len(wordless) : len(captions)]] == pairs.ids
    assert set(pairs.skipped.values()) == {"caption has no word that the model's tokenizer keeps"}


def test_refresh_computes_everything_again_and_replaces_it(model, rows, store, monkeypatch):
    compute, factor = type(model).image_features, 2.0
    monkeypatch.setattr(type(model), "image_features", lambda self, images: factor * compute(self, images))
    before = [half.clone() for half in embed_pairs(model, rows, store).gather(EVERY)]
    factor = 1.0
    model.counts()
    assert_same(embed_pairs(model, rows, store).gather(EVERY), before)
    assert model.counts() == (0, 0)
    refreshed = embed_pairs(model, rows, store, refresh=True)
    assert model.counts() == (12, 12)
    for pairs in (refreshed, embed_pairs(model, rows, store), FeatureStore(store, model.fingerprint).pairs(rows)):
        assert_same(pairs.gather(EVERY), (before[0] / 2, before[1]))
    assert model.counts() == (0, 0)


def test_orientation_is_counted_kept_and_followed_where_that_is_asked_for(model, rows, store):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(rows[2].filepath) as image:
        image.save(rows[2].filepath, exif=exif)
    for _ in range(2):
        stored = embed_pairs(model, rows, store)
        assert (stored.marked("oriented"), embed_pairs(model, rows[3:], store).marked("oriented")) == (1, 0)
    assert model.counts()[0] == 12
    turned = embed_pairs(model, [row._replace(apply_orientation=True) for row in rows], store)
    assert model.counts()[0] == 12 and turned.marked("oriented") == 1
    apart = (turned.gather(EVERY)[0] - stored.gather(EVERY)[0]).abs().amax(dim=1)
    assert apart[2] > 10 * torch.cat([apart[:2], apart[3:]]).max()
    assert_same(embed_pairs(model, rows, store).gather(EVERY), reference(model, rows))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", [dict(num_workers=0), dict(num_workers=2), dict(num_workers=0, workers=Several(3))])
def test_damaged_metadata_is_counted_and_kept(model, rows, store, how):
    with_short_exif(read_image(rows[2].filepath), rows[2].filepath)
    with_foreign_exif(read_image(rows[9].filepath), rows[9].filepath)
    rows[4] = rows[4]._replace(caption="word " * 60)
    for wanted, damaged in ((rows, 2), (rows, 2), (rows[3:], 1)):
        pairs = embed_pairs(model, wanted, store, **how)
        assert [pairs.marked(mark) for mark in Marks._fields] == [1, 0, damaged]
    assert model.counts() == (12, 12)
    assert_same(embed_pairs(model, rows, store).gather(EVERY), reference(model, rows))


def test_shards_from_before_there_was_a_mark_are_used(model, rows, store, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 6)
    for row in (rows[2], rows[9]):
        with_short_exif(read_image(row.filepath), row.filepath)
    before = embed_pairs(model, rows, store)
    assert before.marked("damaged_metadata") == 2
    shard = next(before.folder.here.glob("shard-00000-*.safetensors"))
    tensors = load_file(shard)
    del tensors["damaged_metadata"]
    save_file(tensors, shard)
    model.counts()
    again = embed_pairs(model, rows, store)
    assert model.counts() == (0, 0) and again.marked("damaged_metadata") == 1
    assert_same(again.gather(EVERY), reference(model, rows))


def test_a_file_that_changes_between_its_look_up_and_its_decoding_is_skipped(model, rows, store, monkeypatch):
    look_up = embedding.row_keys

    def change(wanted, report):
        keys = look_up(wanted, report)
        read_image(rows[7].filepath).rotate(90).save(rows[7].filepath)
        return keys

    monkeypatch.setattr(embedding, "row_keys", change)
    assert embed_pairs(model, rows, store).skipped == {"id-7": CHANGED}
    monkeypatch.undo()
    assert_same(embed_pairs(model, rows, store).gather(EVERY), reference(model, rows))


def test_equal_images_and_captions_have_equal_parts_of_keys(model, rows, store):
    rows[5] = rows[5]._replace(filepath=rows[4].filepath)
    pairs = embed_pairs(model, rows, store)
    assert len(pairs.image_keys.unique(dim=0)) == 11 and len(pairs.keys.unique(dim=0)) == 12
    assert torch.equal(pairs.image_keys[4], pairs.image_keys[5])


def test_progress_reaches_the_total(model, rows, store):
    seen = []
    embed_pairs(model, rows, store, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (4, 12) and seen[-1] == (12, 12) and seen == sorted(seen)
    seen.clear()
    embed_pairs(model, rows, store, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(12, 12)]


def test_cut_captions_are_counted(model, rows, store):
    rows[0] = rows[0]._replace(caption="word " * 40)
    rows[7] = rows[7]._replace(caption="word " * 60)
    assert embed_pairs(model, rows, store).marked("truncated") == 2
    assert embed_pairs(model, rows[1:], store).marked("truncated") == 1


def test_store_can_be_read_without_the_model(model, rows, store):
    written = embed_pairs(model, rows[:8], store)
    reopened = FeatureStore(store, model.fingerprint).pairs(rows)
    assert reopened.ids == written.ids
    assert_same(reopened.gather(EVERY[:8]), written.gather(EVERY[:8]))
    assert set(reopened.skipped.values()) == {"pair is not embedded yet"} and len(reopened.skipped) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_features_agree_between_gpu_and_cpu(loaded, rows, tmp_path):
    from fiftyone_ecif.models import load_model

    loaded.save_checkpoint(tmp_path / "model.safetensors")
    on_gpu = load_model("ecif-tiny", tmp_path / "model.safetensors", device="cuda")
    assert on_gpu.fingerprint == loaded.fingerprint
    ours = embed_pairs(on_gpu, rows, tmp_path / "gpu").gather(EVERY)
    for one, other in zip(ours, embed_pairs(loaded, rows, tmp_path / "cpu").gather(EVERY), strict=True):
        assert torch.nn.functional.cosine_similarity(one, other).min() > 0.9999
