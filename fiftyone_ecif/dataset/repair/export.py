"""The data set without its suspects, as FiftyOne's own exporters write it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import AbsolutePath, Choice, Samples, Text, checked, shown
from fiftyone_ecif.dataset.checks import check_field, check_flat, is_classification_field
from fiftyone_ecif.dataset.repair.fixes import fixed
from fiftyone_ecif.dataset.repair.review import suspected
from fiftyone_ecif.dataset.tags import tags_of

FORMATS = {
    "csv": "CSV: a table of image paths and captions, as open_clip trains on",
    "folders": "Image folders: one per label",
    "fiftyone": "FiftyOne dataset: every field",
}
"""What :func:`export_cleaned` can write."""


LONGEST_NAME = 255
"""Bytes of a folder's name, on common file systems."""


@checked(samples=Samples())
def cleaned(samples: SampleCollection, run_key: str | None = None, threshold: float | None = None) -> fo.DatasetView:
    """The pairs without those tagged "misaligned", "rejected" or "empty_caption", or as ``set_tags`` has named these.

    Args:
        samples: Dataset or view
        run_key: with ``threshold``: a run whose suspects are left out too, but for those fixed or marked as fine
        threshold: the least misalignment of a suspect, 0 to 1

    Returns:
        a view

    Raises:
        ValueError: if there is no such run, or only one of the two is given, or the collection is grouped
    """
    if (run_key is None) != (threshold is None):
        raise ValueError("run_key and threshold go together: pass both, or neither.")
    check_flat(samples)
    tags = tags_of(samples)
    view = samples.match_tags([tags.misaligned, tags.rejected, tags.empty], bool=False)
    if run_key is not None and threshold is not None:
        suspects = suspected(samples, run_key, threshold)
        text_field = samples._dataset.get_run_info(run_key).config.text_field
        mended = fixed(suspects, text_field).values("id") if text_field else []
        view = view.exclude(suspects.exclude(mended).values("id"))
    return view


@checked(samples=Samples(), format=Choice(FORMATS), text_field=Text())
def export_cleaned(
    samples: SampleCollection,
    folder: str,
    format: str = "csv",
    text_field: str | None = None,
    copy_images: bool = True,
    run_key: str | None = None,
    threshold: float | None = None,
) -> int:
    """Export the cleaned set; the folder appears when it is complete.

    A view that holds a sample several times, as one made by ``concat`` may, exports it as many times.

    Args:
        samples: Dataset or view
        folder: where to; must not exist, or be empty
        format: a key of :data:`FORMATS`
        text_field: captions or labels; not needed for "fiftyone"
        copy_images: whether the images are copied, or named by their present paths
        run_key: as in :func:`cleaned`
        threshold: likewise

    Returns:
        the number of samples exported

    Raises:
        ValueError: if the format, the folder or the field cannot serve
    """
    view, path = cleaned(samples, run_key, threshold), check_export(samples, folder, format, text_field)
    count = len(view)
    if count == 0:
        raise ValueError("No sample is left to export: all are tagged or suspected.")
    with appearing(path) as part:
        view.export(export_dir=str(part), progress=False, **_exporter(view, format, text_field, copy_images))
    return count


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A folder that appears when the block is done, and not at all where it fails.

    Args:
        path: of the folder, by :func:`free_folder`

    Yields:
        where to write what it will hold; not there yet
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as room:
        part = Path(room) / path.name
        yield part
        if path.exists():
            path.rmdir()
        part.rename(path)


def free_folder(folder: str) -> Path:
    """The path of a folder to export to; raises a ValueError unless it is absolute, and not there or empty."""
    path = AbsolutePath()("folder", folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{shown(folder)} is there already and not empty: choose another folder.")
    return path


@checked(samples=Samples(), format=Choice(FORMATS), text_field=Text())
def check_export(samples: SampleCollection, folder: str, format: str, text_field: str | None) -> Path:
    """The path of the folder; raises a ValueError unless the cleaned set could be exported so."""
    path = free_folder(folder)
    if format != "fiftyone":
        if text_field is None:
            raise ValueError("Pass text_field: the captions or labels to export.")
        check_field(samples, text_field)
    if format == "folders":
        if not is_classification_field(samples, str(text_field)):
            raise ValueError(f"Image folders are named by labels; {text_field!r} holds captions.")
        _check_folder_names(samples.distinct(f"{text_field}.label"))
    return path


def _check_folder_names(labels: Sequence[Any]) -> None:
    """Raise a ValueError unless each label names a folder inside the one that is exported to."""
    for label in labels:
        unusable = not isinstance(label, str) or label in ("", ".", "..")
        if unusable or any(mark in label for mark in ("/", "\\", "\0")) or len(label.encode()) > LONGEST_NAME:
            raise ValueError(
                f"Label {shown(label)} cannot name an image folder. Change it, or export as CSV, where labels are text."
            )


def _exporter(view: fo.DatasetView, format: str, text_field: str | None, copy_images: bool) -> dict[str, Any]:
    """FiftyOne's arguments for a format."""
    if format == "fiftyone":
        return dict(dataset_type=fo.types.FiftyOneDataset, export_media=copy_images)
    if format == "folders":
        return dict(
            dataset_type=fo.types.ImageClassificationDirectoryTree,
            label_field=text_field,
            export_media=True if copy_images else "symlink",
        )
    path = f"{text_field}.label" if is_classification_field(view, str(text_field)) else text_field
    fields = {"filepath": "filepath", path: "caption"}
    return dict(dataset_type=fo.types.CSVDataset, fields=fields, export_media=copy_images, abs_paths=not copy_images)
