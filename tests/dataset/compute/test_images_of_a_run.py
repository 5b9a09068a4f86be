"""A run sees images as it was asked to, says what is odd about them, and knows them by what they hold."""

import os
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.compute.request import RunRequest
from fiftyone_ecif.features import read_image
from fiftyone_ecif.models import load_model
from tests.support.damaged import with_a_tag_outside, with_short_exif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def quick():
    torch.manual_seed(0)
    return dict(
        text_field="caption", rounds=1, batch_size=20, num_workers=0, progress=False, model=load_model("ecif-tiny")
    )


@pytest.fixture
def copied_dataset(pair_dataset, tmp_path):
    """The generated pairs with image files of their own, of which three have an orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for number, path in enumerate(pair_dataset.values("filepath")):
        paths.append(str(tmp_path / os.path.basename(path)))
        if number < 3:
            with Image.open(path) as image:
                image.save(paths[-1], exif=exif)
        else:
            shutil.copy(path, paths[-1])
    pair_dataset.set_values("filepath", paths)
    return pair_dataset


def said(results, words):
    return [note for note in results.warnings if words in note]


def test_orientation_is_in_the_health_and_followed_where_that_is_asked_for(copied_dataset, quick):
    plain = ecif.compute_influence(copied_dataset, run_key="plain", **quick)
    assert plain.health["oriented_images"] == 3 and plain.config.apply_orientation is False
    assert len(said(plain, "3 image files have an EXIF orientation")) == 1
    turned = ecif.compute_influence(copied_dataset, run_key="turned", apply_orientation=True, **quick)
    assert turned.health["oriented_images"] == 3 and not said(turned, "EXIF orientation")
    everyone = torch.arange(60)
    images = [results.pairs().gather(everyone)[0] for results in (plain, turned)]
    apart = (images[0] - images[1]).abs().amax(dim=1)
    assert apart[:3].min() > 10 * apart[3:].max()
    assert RunRequest.again(turned.config).apply_orientation is True  # which a refresh asks for
    turned.check_inputs(turned.rows())
    assert turned.rows_of(copied_dataset).apply_orientation and not plain.rows_of(copied_dataset).apply_orientation


def test_damaged_metadata_is_said_once_and_in_the_health(copied_dataset, quick, capfd):
    paths = [Path(path) for path in copied_dataset.values("filepath")]
    for number in (5, 6):
        with_short_exif(read_image(paths[number]), paths[number])
    with_a_tag_outside(read_image(paths[7]), paths[7].with_suffix(".tiff"))
    copied_dataset.set_values(
        "filepath", [str(path.with_suffix(".tiff")) if path is paths[7] else str(path) for path in paths]
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        results = ecif.compute_influence(copied_dataset, **quick)
    assert results.health["images_with_damaged_metadata"] == 3 and results.health["pairs"] == 60
    assert len(said(results, "3 image files have damaged metadata (EXIF data, TIFF tags), which was ignored")) == 1
    told = [str(warning.message) for warning in seen if "PIL" in warning.filename or "metadata" in str(warning.message)]
    assert told == said(results, "damaged metadata")
    assert not any(word in capfd.readouterr().err for word in ("Corrupt", "Truncated File", "Tag data"))


def test_images_that_moved_are_those_of_the_run_and_replaced_ones_are_not(copied_dataset, quick, tmp_path):
    results = ecif.compute_influence(copied_dataset, **quick)
    rows = results.rows()
    results.check_inputs(rows)
    (tmp_path / "moved").mkdir()
    paths = [shutil.move(path, tmp_path / "moved") for path in copied_dataset.values("filepath")]
    copied_dataset.set_values("filepath", list(map(str, paths)))
    results.check_inputs(results.rows())
    before = os.stat(paths[5])
    time.sleep(0.02)
    with open(paths[5], "r+b") as file:  # of the same size and time
        content = bytearray(file.read())
        content[-20] ^= 1
        file.seek(0)
        file.write(content)
    os.utime(paths[5], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match="1 of its pairs have another image now"):
        results.check_inputs(results.rows())


def test_a_target_with_copies_of_scored_pairs_is_noticed(copied_dataset, quick, tmp_path):
    import fiftyone as fo

    target = fo.Dataset()
    for number, sample in enumerate(copied_dataset[3:9]):
        path = shutil.copy(sample.filepath, tmp_path / f"copy-{number}.png")
        target.add_sample(fo.Sample(filepath=str(path), caption=sample.caption if number < 4 else "another"))
    results = ecif.compute_influence(copied_dataset, target=target, **quick)
    assert len(said(results, "4 of the scored pairs are in the target, too")) == 1


def test_features_are_computed_again_where_that_is_asked_for(copied_dataset, quick, monkeypatch):
    results = ecif.compute_influence(copied_dataset, **quick)
    seen = []
    compute = type(quick["model"]).image_features
    monkeypatch.setattr(
        type(quick["model"]), "image_features", lambda self, images: seen.append(len(images)) or compute(self, images)
    )
    ecif.compute_influence(copied_dataset, overwrite=True, **quick)
    assert not seen
    again = ecif.compute_influence(copied_dataset, overwrite=True, refresh_features=True, **quick)
    assert sum(seen) == 60 * 4  # as they are, and three views
    assert not hasattr(again.config, "refresh_features")
    assert torch.equal(again.pairs().gather(torch.arange(60))[0], results.pairs().gather(torch.arange(60))[0])


def test_pairs_of_runs_from_before_files_were_known_by_content_are_found(copied_dataset, quick, monkeypatch):
    from fiftyone_ecif.features import embedding
    from fiftyone_ecif.features.content import earlier_key

    monkeypatch.setattr(embedding, "row_keys", lambda rows, report=None: [earlier_key(row) for row in rows])
    monkeypatch.setattr("fiftyone_ecif.features.towers.image_key", lambda content, turned: Anything())
    results = ecif.compute_influence(copied_dataset, **quick)
    monkeypatch.undo()
    results = ecif.load_results(copied_dataset, "ecif")
    assert len(results.pairs()) == 60
    results.check_inputs(results.rows())
    os.utime(copied_dataset.first().filepath)
    with pytest.raises(ValueError, match="1 of its pairs have another image now"):
        results.check_inputs(results.rows())


class Anything:
    """Equals everything."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False
