"""Odd values in the database, of other versions, other programs or nobody's, are used or refused in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import fiftyone.operators as foo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.collection import Collection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import FAILURE_FIELDS, SCORE_FIELDS, SLICE_FIELD
from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.plugin.panel.tabs import TABS
from tests.fuzz.inputs import attempt, inputs
from tests.fuzz.scene import KEY, QUICK, Scene
from tests.fuzz.strategies import stored
from tests.support.headless_panel import PANEL

pytestmark = pytest.mark.filterwarnings("ignore")

MISSING = object()
IN_SAMPLES = (
    "caption", "ground_truth", "ground_truth.label", "tags", "filepath", "image_vector", "text_vector",
    *(field.name(KEY) for field in (*SCORE_FIELDS, *FAILURE_FIELDS, SLICE_FIELD)), f"{KEY}_suggestion.label",
    f"{KEY}_suggestion.confidence",
)  # fmt: skip
IN_RECORDS = (
    "text_field", "templates", "image_embeddings", "text_embeddings", "scope", "removal", "rounds", "batch_size",
    "anchor", "damping", "seed", "device", "engine", "evidence", "target", "model", "pretrained", "loss", "tensors",
    "model_fingerprint", "view_fingerprint", "versions", "computed_on",
)  # fmt: skip
USES = {
    "list_runs": lambda scene: ecif.list_runs(scene.dataset),
    "misaligned": lambda scene: opened(scene).misaligned(threshold=0.1, limit=3).values("id"),
    "harmful": lambda scene: opened(scene).harmful(3).values("id"),
    "threshold": lambda scene: opened(scene).suggested_threshold(),
    "suggest": lambda scene: opened(scene).suggest(scene.dataset),
    "embeddings": lambda scene: opened(scene).embeddings(),
    "estimate_removal": lambda scene: opened(scene).estimate_removal(scene.dataset.limit(3), progress=False),
    "forecast_removal": lambda scene: opened(scene).forecast_removal(points=1, progress=False),
    "trace": lambda scene: opened(scene).trace(scene.failing_here, k=3, progress=False),
    "load_trace": lambda scene: opened(scene).load_trace("kept").table(),
    "find_failures": lambda scene: ecif.find_failures(scene.dataset, KEY, progress=False),
    "tag_misaligned": lambda scene: ecif.tag_misaligned(scene.dataset, KEY, 0.1),
    "to_review": lambda scene: ecif.to_review(scene.dataset, KEY).values("id"),
    "apply_suggestions": lambda scene: ecif.apply_suggestions(scene.dataset, KEY),
    "undo_fixes": lambda scene: ecif.undo_fixes(scene.dataset),
    "cleaned": lambda scene: ecif.cleaned(scene.dataset, KEY, 0.1).values("id"),
    "overwrite": lambda scene: ecif.compute_influence(scene.dataset, run_key=KEY, overwrite=True, **QUICK),
    "refresh": lambda scene: ecif.refresh_run(scene.dataset, KEY, progress=False),
    "rename": lambda scene: ecif.rename_run(scene.dataset, KEY, "renamed"),
    "delete": lambda scene: ecif.delete_run(scene.dataset, KEY),
} | {f"{tab.name} tab": partial(lambda scene, name: look_at(scene, name), name=tab.name) for tab in TABS}
"""What is done with what the database holds."""


def opened(scene: Scene) -> ecif.InfluenceResults:
    """The run, as the database has it now."""
    scene.dataset.reload()
    return ecif.load_results(scene.dataset, KEY)


def look_at(scene: Scene, tab: str) -> Any:
    """Open the panel at a tab."""
    scene.dataset.reload()
    params = {"panel_id": "panel", "__method__": "on_load", "panel_state": {"run_key": KEY, "tab": tab}}
    return foo.execute_operator(PANEL, {"dataset": scene.dataset}, params=params)


@contextmanager
def held(collection: Collection, document: Any, path: str, value: Any) -> Iterator[None]:
    """Have a document hold a value at a path while the block runs."""
    before = collection.find_one({"_id": document})
    change = {"$unset": {path: 1}} if value is MISSING else {"$set": {path: value}}
    collection.update_one({"_id": document}, change)
    try:
        yield
    finally:
        collection.replace_one({"_id": document}, before)


@pytest.mark.parametrize("use", USES)
def test_odd_values_of_samples_are_used_or_refused(scene, use):
    @inputs(few=1, many=45, of=use)
    @given(
        path=st.sampled_from(IN_SAMPLES),
        value=st.one_of(st.just(MISSING), stored),
        row=st.integers(0, 11),
    )
    def try_them(path, value, row):
        dataset = scene.restored().dataset
        samples = dataset._sample_collection
        document = samples.find().skip(row).limit(1)[0]
        parent, _, part = path.partition(".")
        if part and not isinstance(document.get(parent), dict):
            path = parent
        with held(samples, document["_id"], path, value):
            attempt("values of samples", partial(USES[use], scene), dataset)

    try_them()


@pytest.mark.parametrize("use", USES)
def test_odd_values_of_a_run_record_are_used_or_refused(scene, use):
    @inputs(few=1, many=45, of=use)
    @given(name=st.sampled_from(IN_RECORDS), value=st.one_of(st.just(MISSING), stored))
    def try_them(name, value):
        dataset = scene.restored().dataset
        record = dataset._doc.runs[KEY].id
        with held(database().runs, record, f"config.{name}", value):
            attempt("values of run records", partial(USES[use], scene), dataset)

    try_them()
