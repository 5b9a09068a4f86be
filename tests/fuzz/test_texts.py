"""Odd captions and labels go through a run, its repair and the panel as data, or are skipped with a reason."""

from functools import partial

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.panel.tabs import TABS
from tests.fuzz.inputs import attempt, inputs
from tests.fuzz.scene import QUICK, Scene
from tests.fuzz.strategies import ODD_TEXTS, storable_texts
from tests.support.headless_panel import PANEL

pytestmark = pytest.mark.filterwarnings("ignore")

odd_texts = st.one_of(st.none(), storable_texts, storable_texts.map(lambda text: text * 200))
columns = st.lists(odd_texts, min_size=12, max_size=12)
SUGGESTED = 3
"""Every so many pairs get another one's text as a suggestion."""


@inputs(few=2, many=100)
@given(texts=columns)
@example(texts=[text for text in ODD_TEXTS if text != "\ud800"][:12])
def test_odd_captions_are_data(scene, texts):
    run_through(scene, "caption", texts, texts)


@inputs(few=2, many=100)
@given(texts=columns)
@example(texts=[text for text in ODD_TEXTS if text != "\ud800"][12:24])
def test_odd_labels_are_data(scene, texts):
    labels = [None if text is None else fo.Classification(label=text) for text in texts]
    run_through(scene, "ground_truth", labels, texts)


def run_through(scene: Scene, field: str, values: list, texts: list[str | None]) -> None:
    """Score the pairs, look at them, replace texts and put them back."""
    dataset = scene.restored().dataset
    dataset.set_values(field, values)
    path = field if field == "caption" else f"{field}.label"
    stored = dataset.values(path)
    kind = f"{'captions' if field == 'caption' else 'labels'}"
    run = QUICK | dict(text_field=field, run_key="odd")
    if not attempt(kind, partial(ecif.compute_influence, dataset, **run), dataset, inputs=len(texts)):
        return
    assert dataset.values(path) == stored
    ids = dataset.values("id")
    others = zip(ids[::SUGGESTED], texts[1::SUGGESTED], strict=True)
    suggested = {id: fo.Classification(label=text, confidence=0.9) for id, text in others if text is not None}
    dataset.set_values("odd_suggestion", suggested, key_field="id")
    for tab in TABS:
        params = {"panel_id": "panel", "__method__": "on_load", "panel_state": {"run_key": "odd", "tab": tab.name}}
        assert attempt(
            "uses of odd texts", partial(foo.execute_operator, PANEL, {"dataset": dataset}, params=params), dataset
        )
    for name in ("apply_suggestions", "undo_fixes"):
        params = {"run_key": "odd"}
        uri = f"@ecif/ecif/{name}"
        attempt("uses of odd texts", partial(foo.execute_operator, uri, {"dataset": dataset}, params=params), dataset)
    assert dataset.values(path) == stored
    for format in ("csv", "folders", "fiftyone"):
        export = partial(ecif.export_cleaned, dataset, scene.new_folder(), format, field)
        attempt("uses of odd texts", export, dataset)
