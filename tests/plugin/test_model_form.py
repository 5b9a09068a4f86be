"""Models that a folder holds, checkpoints and preprocessing, as the form asks for them and the operator takes them."""

import json

import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.models import load_model
from tests.support.operators import COMPUTE, refusals

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
QUICK = dict(text_field="caption", rounds=1, batch_size=12, advanced=True)
ZERO_ONE = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}


@pytest.fixture
def folder(tmp_path):
    load_model("ecif-tiny").save_checkpoint(tmp_path / "tiny" / "open_clip_model.safetensors")
    return tmp_path / "tiny"


def test_a_folder_s_model_is_computed_with_though_the_form_still_sends_the_default_tag(
    pair_dataset, folder, resolve_form
):
    view = pair_dataset[:12]
    given = dict(model=f"local-dir:{folder}", pretrained="laion2b_s34b_b79k", **QUICK)
    form = resolve_form(COMPUTE, view, **given)
    assert refusals(form) == {} and form["pretrained"].type and form["pretrained"].default is None
    foo.execute_operator(COMPUTE, {"view": view}, params=given).raise_exceptions()
    config = ecif.load_results(pair_dataset, "ecif").config
    assert config.model == f"local-dir:{folder}" and config.pretrained is None


def test_a_checkpoint_s_preprocessing_is_asked_for_as_json(pair_dataset, folder, resolve_form):
    view = pair_dataset[:12]
    checkpoint = str(folder / "open_clip_model.safetensors")
    given = dict(model="ecif-tiny", pretrained=checkpoint, preprocess=json.dumps(ZERO_ONE), **QUICK)
    assert refusals(resolve_form(COMPUTE, view, **given)) == {}
    foo.execute_operator(COMPUTE, {"view": view}, params=given).raise_exceptions()
    used = ecif.load_results(pair_dataset, "ecif").model().model.visual.preprocess_cfg
    assert (used["mean"], used["std"], used["interpolation"]) == ((0, 0, 0), (1, 1, 1), "bilinear")


@pytest.mark.parametrize(
    ("preprocess", "reason"),
    [("{mean", "no JSON"), ("[1]", "dictionary"), ('{"mean": [1]}', "three numbers"), ('{"size": 3}', "mapping")],
)
def test_odd_preprocessing_is_refused_below_its_field(pair_dataset, folder, resolve_form, preprocess, reason):
    given = dict(model=f"local-dir:{folder}", preprocess=preprocess, **QUICK)
    assert reason in refusals(resolve_form(COMPUTE, pair_dataset, **given))["preprocess"]


def test_a_folder_that_is_not_there_is_refused_below_the_model(pair_dataset, resolve_form, tmp_path):
    found = refusals(resolve_form(COMPUTE, pair_dataset, model=f"local-dir:{tmp_path / 'gone'}", **QUICK))
    assert "no folder" in found["model"]
