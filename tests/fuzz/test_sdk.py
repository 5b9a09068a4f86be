"""Odd arguments of every public function and method are used or refused in plain words, and then change nothing."""

import inspect
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fiftyone_ecif as ecif
from tests.fuzz.inputs import attempt, inputs
from tests.fuzz.scene import KEY, PREFERENCES, QUICK, SHIFT, SUGGESTED, VECTORS, Scene
from tests.fuzz.strategies import texts, values

pytestmark = pytest.mark.filterwarnings("ignore")

KIND = "arguments"

OWNERS = {
    "results": ecif.InfluenceResults,
    "trace": ecif.Trace,
    "shift": ecif.ShiftResults,
    "preferences": ecif.PreferenceResults,
}
"""The objects of a scene whose methods are tried, and what they are."""

RETURNED = {
    "InfluenceResults",
    "Trace",
    "TraceEffect",
    "ErrorSlice",
    "RemovalEffect",
    "RemovalCurve",
    "FixReport",
    "NoiseRate",
    "ContrastiveModel",
    "ShiftResults",
    "ShiftScenario",
    "ShiftDirection",
    "PreferenceResults",
    "PreferencePair",
}
"""Public names that callers are given and do not make."""

PAIRS = ("pairs", "judged_pairs", "target_pairs")

NOT_ODD = {"wrap_model", *(f"results.{name}" for name in ("changed", "check_inputs", *PAIRS))}
"""They take a user's own modules, which can do anything, or what the package hands itself."""


def public() -> list[str]:
    """Every public function by its name, and every public method with arguments as "owner.name"."""
    found = [name for name in ecif.__all__ if name not in RETURNED]
    for owner, kind in OWNERS.items():
        methods = [name for name, value in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
        found += [f"{owner}.{name}" for name in methods]
    return sorted({name for name in found if name not in NOT_ODD and parameters(name)})


def parameters(name: str) -> list[str]:
    """The names of a function's parameters."""
    owner, _, method = name.rpartition(".")
    function = getattr(OWNERS[owner], method) if owner else getattr(ecif, name)
    return [each for each in inspect.signature(function).parameters if each != "self"]


def usable(scene: Scene, name: str) -> dict[str, Any]:
    """Arguments that a function accepts."""
    dataset, few = scene.dataset, scene.dataset.limit(3)
    if name == "compute_influence":
        return dict(samples=dataset, run_key="second", **QUICK)
    if name == "compute_shift":
        quick = dict(resamples=2, progress=False, embeddings=VECTORS)
        return dict(reference_view=few, other_view=dataset.skip(3), run_key="second", **quick)
    if name == "build_preferences":
        return dict(samples=dataset, run_key="second", **SUGGESTED)
    known: dict[str, Any] = dict(
        samples=dataset, dataset=dataset, view=few, run_key=KEY, new_run_key="renamed", progress=False,
        folder=scene.new_folder(), path="edited.pt", text_field="caption", threshold=0.5,
        query=scene.failing_here, key="kept", n=2, name="ecif-tiny", captions="captions",
        text="caption 1",
    )  # fmt: skip
    if name == "load_shift":
        known["run_key"] = SHIFT
    if name == "load_preferences":
        known["run_key"] = PREFERENCES
    if name.startswith("preferences."):
        key = scene.preferences.pairs()[0].key
        known |= dict(
            key=key, decision="drop", origin="fixed", chosen="a caption", rejected="another", min_grounding=None
        )
    if name == "preferences.export":
        known |= dict(form="dpo", container="jsonl", embed_images=False)
    if name.startswith("shift."):
        known |= dict(name="other", of="image", limit=2, direction=scene.shift.scenario().image_directions[0])
    if name == "results.trace":
        known["key"] = None
    if name == "one_caption_per_sample":
        known |= {"name": None, "text_field": "said"}
    if name == "results.use_model":
        known["model"] = None
    if name == "Query":
        return dict(text="caption 1", right="caption 1")
    if name == "results.misaligned" or name == "load_model":
        known.pop("threshold")
    if name == "results.suggested_threshold":
        known["precision"] = 0.5
    return {each: known[each] for each in parameters(name) if each in known}


def call_of(scene: Scene, name: str):
    """The function, of the scene's objects where it is a method."""
    owner, _, method = name.rpartition(".")
    return getattr(getattr(scene, owner), method) if owner else getattr(ecif, name)


@pytest.mark.parametrize("name", public())
def test_odd_arguments_are_used_or_refused(scene, name):
    names = parameters(name)

    @inputs(few=2, many=max(25, 8 * len(names)), of=name)
    @given(data=st.data())
    def try_them(data):
        scene.restored()
        given_in = usable(scene, name)
        for odd in data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=2)):
            given_in[odd] = data.draw(texts if data.draw(st.booleans()) else values, label=odd)
        attempt(KIND, partial(call_of(scene, name), **given_in), scene.dataset)

    try_them()


def test_usable_arguments_are_accepted(scene):
    """Else the odd ones beside them would not be what is refused."""
    refused = []
    for name in public():
        scene.restored()
        call = partial(call_of(scene, name), **usable(scene, name))
        if not attempt("usable arguments", call, scene.dataset):
            refused.append(name)
    need_a_model = ["results.edited_checkpoint", "results.name_wrong_words", "results.use_model"]
    need_responses = ["shift.save_estimator"]
    assert refused == need_a_model + need_responses  # which runs on stored embeddings do not have
