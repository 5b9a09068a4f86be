"""An export writes into its own folder alone, and takes nothing away."""

import pytest

import fiftyone_ecif as ecif


@pytest.mark.parametrize("label", ["../../outside", "/outside", "..", "a/b", "a\\b", "", "a\0b"])
def test_a_label_that_names_no_folder_inside_is_refused(pair_dataset, tmp_path, label):
    pair_dataset.set_values("ground_truth.label", [label] + pair_dataset.values("ground_truth.label")[1:])
    folder = tmp_path / "here" / "clean"
    with pytest.raises(ValueError, match="cannot name an image folder"):
        ecif.export_cleaned(pair_dataset, str(folder), "folders", "ground_truth")
    assert not list(tmp_path.iterdir())
    assert ecif.export_cleaned(pair_dataset, str(folder), "csv", "ground_truth") == 60


@pytest.mark.parametrize("fails", [False, True])
def test_what_lies_beside_the_folder_stays(pair_dataset, tmp_path, monkeypatch, fails):
    (tmp_path / "clean.part").mkdir()
    (tmp_path / "clean.part" / "mine.txt").write_text("mine")
    if fails:
        monkeypatch.setattr("fiftyone.core.dataset.Dataset.export", lambda *_, **__: 1 / 0)
        monkeypatch.setattr("fiftyone.core.view.DatasetView.export", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ecif.export_cleaned(pair_dataset, str(tmp_path / "clean"), "csv", "caption")
    else:
        ecif.export_cleaned(pair_dataset, str(tmp_path / "clean"), "csv", "caption")
        assert (tmp_path / "clean").stat().st_mode & 0o055  # others may read it as any folder of the user's
    assert (tmp_path / "clean.part" / "mine.txt").read_text() == "mine"
    left = ["clean.part"] if fails else ["clean", "clean.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
