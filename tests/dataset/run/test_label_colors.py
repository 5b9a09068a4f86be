"""Thumbnails' labels can be read in both themes of the App, and nobody's choice of a colour is changed for that."""

import fiftyone as fo
import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import RUN_FIELDS
from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.dataset.run.label_colors import BLUE, ORANGE, color_of
from fiftyone_ecif.dataset.run.store import write_run
from tests.support.prepared import columns, few_samples, write


def luminance(color: str) -> float:
    """The relative luminance of an "#rrggbb" colour, by WCAG 2.2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def colors(dataset):
    """The fields' colours as the database has them."""
    dataset.reload()
    return {each["path"]: each["fieldColor"] for each in dataset.app_config.color_scheme.fields}


@pytest.mark.parametrize("color", sorted({BLUE, *(color_of(field.name("x")) for field in RUN_FIELDS)}))
def test_black_and_white_letters_stand_out_from_every_colour(color):
    assert (luminance(color) + 0.05) / 0.05 >= 4.5 and 1.05 / (luminance(color) + 0.05) >= 4.5


def test_a_runs_fields_and_its_captions_get_colours_that_follow_the_run():
    dataset = few_samples()
    kept = {"health": {"pairs": 6}}
    write_run(dataset, "x", EcifConfig(text_field="caption"), columns(dataset), kept, {"t": torch.zeros(2)}, False)
    assert colors(dataset).keys() == {"x_value", "x_misalignment", "x_suggestion", "caption"}
    assert colors(dataset)["x_misalignment"] == ORANGE
    ecif.rename_run(dataset, "x", "y")
    assert colors(dataset).keys() == {"y_value", "y_misalignment", "y_suggestion", "caption"}
    ecif.delete_run(dataset, "y")
    assert colors(dataset) == {"caption": BLUE}


def test_what_the_user_chose_stays():
    dataset = few_samples()
    mine = [
        {"path": "x_value", "fieldColor": "#ffffff"},
        {"path": "caption", "valueColors": [{"value": "text 1", "color": "#000000"}]},
    ]
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value", color_pool=["#123456"], fields=mine)
    dataset.save()
    for overwrite in (False, True):
        write(dataset, "x", columns(dataset), overwrite)
        dataset.reload()
        scheme = dataset.app_config.color_scheme
        assert (scheme.color_by, scheme.color_pool, scheme.fields[:2]) == ("value", ["#123456"], mine)
        assert [each["path"] for each in scheme.fields[2:]] == ["x_value", "x_misalignment", "x_suggestion"][1:]
