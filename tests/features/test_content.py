"""A pair is known by what its image file holds and by its caption, and unchanged files are read once."""

import hashlib
import os
import shutil
import time

import pytest
import torch

import fiftyone_ecif.features.content as content
from fiftyone_ecif.features import PairRow, embed_pairs, read_image
from fiftyone_ecif.features.content import HALF, earlier_key, file_contents, row_keys


@pytest.fixture(autouse=True)
def settled(tmp_path, monkeypatch):
    """An index of its own that trusts files which were written a moment ago."""
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "SETTLED", -1)


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read."""
    names, read = [], content.content_of

    def counted(file):
        names.append(os.path.basename(file.name))
        return read(file)

    monkeypatch.setattr(content, "content_of", counted)
    return names


def key(row):
    return row_keys([row])[0]


def replaced_by(path, other, by):
    """Replace a file by another of the same size and times, as tools for archives and copies do."""
    before = os.stat(path)
    if by == "rename":  # rsync -t
        shutil.copy(other, f"{path}.new")
        os.utime(f"{path}.new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(f"{path}.new", path)
    else:  # tar -x over a file that is there, cp --preserve
        with open(other, "rb") as source, open(path, "r+b") as target:
            target.write(source.read())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("by", ["rename", "write"])
def test_a_file_of_the_same_size_and_time_is_embedded_again(model, rows, tmp_path, store, by):
    path = tmp_path / "picture.bmp"  # whose size says nothing of what it holds
    read_image(rows[0].filepath).save(path)
    read_image(rows[1].filepath).save(tmp_path / "other.bmp")
    row = PairRow("id", str(path), "a picture")
    before = embed_pairs(model, [row], store).gather(torch.tensor([0]))[0].clone()
    time.sleep(0.02)  # a tick of the file system's clock
    replaced_by(path, tmp_path / "other.bmp", by)
    after = embed_pairs(model, [row], store).gather(torch.tensor([0]))[0]
    assert model.counts()[0] == 2 and (before - after).abs().max() > 1e-5


def test_copied_moved_and_touched_files_and_other_ids_are_the_same_pair(model, rows, store, tmp_path):
    embed_pairs(model, rows, store)
    model.counts()
    (tmp_path / "elsewhere").mkdir()
    moved = []
    for row in rows:
        path = tmp_path / "elsewhere" / f"{row.id}.png"
        shutil.copy(row.filepath, path) if row.id > "id-3" else shutil.move(row.filepath, path)
        moved.append(PairRow(f"new-{row.id}", str(path), row.caption))
    pairs = embed_pairs(model, moved, store)
    assert model.counts() == (0, 0) and len(pairs) == 12


def test_the_key_changes_with_image_caption_and_orientation(rows):
    first, second = rows[:2]
    assert key(first)[:HALF] != key(second)[:HALF]
    assert key(first)[HALF:] != key(second)[HALF:]
    assert key(first._replace(caption="other"))[:HALF] == key(first)[:HALF]
    assert key(first._replace(filepath=second.filepath))[HALF:] == key(first)[HALF:]
    assert key(first._replace(apply_orientation=True)) != key(first)
    texts = [None, "None", "", "\ud800", "a", "A"]
    assert len({key(first._replace(caption=text)) for text in texts}) == len(texts)


def test_unchanged_files_are_read_once(rows, reads, monkeypatch):
    keys = row_keys(rows)
    assert sorted(reads) == sorted(os.path.basename(row.filepath) for row in rows)
    reads.clear()
    assert row_keys([row._replace(id="other") for row in rows]) == keys and reads == []
    os.utime(rows[4].filepath)
    assert row_keys(rows) == keys and reads == ["4.png"]


def test_a_file_that_was_written_a_moment_ago_is_not_trusted(rows, reads, monkeypatch):
    monkeypatch.setattr(content, "SETTLED", 3600)  # its times may not tell a second change in the same tick
    for _ in range(2):
        row_keys(rows[:1])
    assert len(reads) == 2


def test_files_that_cannot_be_opened_are_known_by_their_paths(tmp_path):
    missing, other = (str(tmp_path / name) for name in "ab")
    found = file_contents([missing, other])
    assert found[missing] != found[other] and file_contents([missing]) == {missing: found[missing]}
    (tmp_path / "a").write_bytes(b"it is back")
    assert file_contents([missing])[missing] != found[missing]


def test_a_damaged_index_is_said_and_changes_nothing(rows, tmp_path):
    keys = row_keys(rows)
    index = tmp_path / "cache" / "contents" / "files.sqlite"
    index.write_bytes(b"no database at all" * 100)
    with pytest.warns(UserWarning, match=r"index of image files .*files.sqlite cannot be used .*Delete it"):
        assert row_keys(rows) == keys


def test_reading_many_files_can_be_interrupted(rows, monkeypatch):
    monkeypatch.setattr(content, "TOGETHER", 5)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        row_keys(rows, interrupt)


def test_keys_of_earlier_runs_stay_what_they_were(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1234")
    os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    written = repr((str(path), (4, 1_600_000_000_123_456_789), "a caption"))
    assert earlier_key(PairRow("id", str(path), "a caption")) == hashlib.sha256(written.encode()).digest()[:16]
