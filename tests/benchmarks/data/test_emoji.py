"""Emoji drawings and their names, from packages that npm downloads and that run nothing."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import emoji, npm
from benchmarks.data.debian import SourceUnavailable

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><rect width="2" height="4" fill="#f00"/></svg>'


def packed(folder, files):
    """A fake npm that packs these files, and the log of its calls."""
    archive = folder / "made.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    program = folder / "npm"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\nwhile [ "$1" != --pack-destination ]; do shift; done\n'
        f'cp {archive} "$2/package.tgz"\n'
    )
    program.chmod(0o755)
    return folder / "calls"


def test_only_the_wanted_files_are_unpacked_once_and_no_script_is_run(tmp_path, monkeypatch):
    calls = packed(tmp_path, {"package/img/a.png": b"a", "package/sheet.png": b"b", "package/../../evil": b"c"})
    monkeypatch.setattr(npm.shutil, "which", lambda name: str(tmp_path / name))
    for _ in range(2):
        root = npm.npm_files("drawings", "1.2.3", ("img/",), tmp_path)
    assert [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()] == ["img/a.png"]
    (call,) = calls.read_text().splitlines()
    assert call.startswith("pack drawings@1.2.3 --ignore-scripts")
    assert {path.name for path in tmp_path.iterdir()} == {"made.tgz", "npm", "calls", "drawings-1.2.3"}


def test_without_npm_or_a_network_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(SourceUnavailable, match=r"drawings@1 comes by npm, which is not installed \(apt-get"):
        npm.npm_files("drawings", "1", ("img/",), tmp_path)
    (tmp_path / "npm").write_text("#!/bin/sh\necho no such host >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setattr(npm.shutil, "which", lambda name: str(tmp_path / name))
    with pytest.raises(SourceUnavailable, match=r"npm pack drawings@1 failed: .*no such host"):
        npm.npm_files("drawings", "1", ("img/",), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["npm"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """An empty package in place of a vendor's."""
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "package"
    root.mkdir()
    monkeypatch.setattr(emoji, "npm_files", lambda *_: root)
    return root


def test_a_drawing_is_put_on_white_with_its_name_and_category(source):
    images = source / "img" / "google" / "64"
    images.mkdir(parents=True)
    listed = [("dog.png", "DOG FACE", "mammal"), ("owl.png", "OWL", "bird"), ("not-drawn.png", "GNU", "mammal")]
    for name, *_ in listed[:2]:
        Image.new("RGBA", (64, 64), (0, 0, 255, 0)).save(images / name)
    (source / "emoji.json").write_text(
        json.dumps([{"image": i, "name": n, "category": "Animals", "subcategory": s} for i, n, s in listed])
    )
    table = emoji.drawings("google", progress=False)
    assert table.captions == ["dog face", "owl"]
    assert table.categories == ["Animals: mammal", "Animals: bird"]
    with Image.open(table.filepaths[0]) as image:
        assert image.mode == "RGB" and (np.asarray(image) == 255).all()
    assert not source.exists()  # what was made of it is kept
    assert emoji.drawings("google", progress=False).filepaths == table.filepaths

    split = emoji.load(train=1, heldout=1, seed=3, progress=False)
    assert sorted(split.captions) == ["dog face", "owl"] and list(split.split) == ["train", "heldout"]
    assert dict(zip(split.captions, split.categories, strict=True)) == dict(
        zip(table.captions, table.categories, strict=True)
    )
    with pytest.raises(ValueError, match=r"there are 2 pairs; 2 \+ 1 were asked for"):
        emoji.load(train=2, heldout=1, progress=False)


def test_openmoji_has_keywords_and_no_skin_tones(source):
    pytest.importorskip("resvg_py")
    (source / "color" / "svg").mkdir(parents=True)
    (source / "data").mkdir()
    for code in ("1F989", "1F44B", "1F44B-1F3FB"):
        (source / "color" / "svg" / f"{code}.svg").write_text(SVG)
    (source / "data" / "openmoji.csv").write_text(
        "hexcode,group,subgroups,annotation,tags,openmoji_tags,skintone\n"
        '1F989,animals-nature,animal-bird,owl,"bird, wise",bird,\n'
        '1F44B,people-body,hand,waving hand,"a, b, c, d, e, f, g",,\n'
        "1F44B-1F3FB,people-body,hand,waving hand: light,,,1\n"
    )
    table = emoji.drawings("openmoji", progress=False)
    assert table.captions == ["owl: bird, wise", "waving hand: a, b, c, d, e, f"]
    assert table.categories == ["animals-nature: animal-bird", "people-body: hand"]
    with Image.open(table.filepaths[0]) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (emoji.OPENMOJI_SIZE, emoji.OPENMOJI_SIZE, 3)
    assert (pixels[10, 10] == (255, 0, 0)).all() and (pixels[10, -10] == 255).all()
