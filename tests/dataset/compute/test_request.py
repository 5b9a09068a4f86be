"""Every parameter is declared once, and everything that needs it derives from there."""

import inspect

import numpy as np
import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution.settings import REMOVAL_FORMS
from fiftyone_ecif.dataset.compute.request import PARAMETERS, RunRequest
from fiftyone_ecif.dataset.parameters import described
from fiftyone_ecif.engine import ENGINES

POSITIONAL = (
    "samples text_field target run_key model pretrained scope removal rounds batch_size damping seed device engine "
    "num_workers skip_failures overwrite progress"
)


def test_the_signature_is_that_of_the_request():
    parameters = inspect.signature(ecif.compute_influence).parameters
    kinds = {kind: [name for name, each in parameters.items() if each.kind == kind] for kind in inspect._ParameterKind}
    assert kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD] == POSITIONAL.split()
    assert set(kinds[inspect.Parameter.KEYWORD_ONLY]) == set(PARAMETERS) - set(POSITIONAL.split())
    assert parameters["rounds"].default == 4 and parameters["run_key"].default == "ecif"
    words = " ".join(ecif.compute_influence.__doc__.split())
    for name, each in PARAMETERS.items():
        assert f"{name}: {' '.join(described(each).description.split())}" in words
    assert max(map(len, ecif.compute_influence.__doc__.splitlines())) <= 120
    with pytest.raises(TypeError, match="'captions'"):
        ecif.compute_influence(None, captions="caption")
    with pytest.raises(TypeError, match="positional"):
        ecif.compute_influence(*range(20))


def test_its_choices_are_those_of_the_rooms_below():
    assert tuple(described(PARAMETERS["removal"]).kind.choices) == REMOVAL_FORMS
    assert tuple(described(PARAMETERS["engine"]).kind.choices) == ENGINES


def test_a_run_takes_numpy_torch_and_paths_and_stores_plain_python(embedded_dataset, stored, tmp_path):
    given = dict(seed=np.int64(3), anchor=np.float32(0.125), device=torch.device("cpu"), rounds=np.int32(1))
    results = ecif.compute_influence(embedded_dataset, **(stored | given))
    config = results.config
    assert (config.seed, config.anchor, config.device, config.rounds) == (3, 0.125, "cpu", 1)
    plain = dict(seed=3, anchor=0.125, device="cpu", rounds=1)
    again = ecif.compute_influence(embedded_dataset, run_key="plain", **(stored | plain))
    assert embedded_dataset.values("ecif_value") == embedded_dataset.values("plain_value")
    assert len(results.misaligned(limit=np.int64(4))) == 4 and len(again.harmful(limit=np.int64(1))) == 1


REFUSED = [
    (dict(batch_size=0), "batch_size must be at least 2, not 0"),
    (dict(rounds="2"), "rounds must be a whole number, not '2'"),
    (dict(rounds=10**9), "rounds must be at most"),
    (dict(seed=-1), "seed must be at least 0"),
    (dict(run_key="k" * 3000), "run_key is 3,000 characters long"),
    (dict(templates=["a \ud800 {}"]), "templates holds a character that cannot be stored"),
    (dict(anchor="firm"), "anchor must be a number"),
    (dict(progress=3), "progress must be True, False, None or a function"),
    (dict(model=3), "model must be open_clip's name"),
    (dict(evidence="yes"), "evidence must be True or False"),
    (dict(num_workers=-1), "num_workers must be at least 0"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_read(given, message):
    with pytest.raises(ValueError) as error:
        ecif.compute_influence("no collection: it is looked at later", **(dict(text_field="caption") | given))
    assert message in str(error.value)


def test_one_template_may_be_passed_by_itself():
    assert RunRequest(text_field="label", templates="a photo of a {}").templates == ["a photo of a {}"]


def test_a_refresh_asks_for_what_was_asked(embedded_dataset, stored):
    asked = dict(removal="first_order", damping=0.01, seed=7, num_workers=0, evidence=True, anchor=0.5)
    results = ecif.compute_influence(embedded_dataset, **(stored | asked))
    before = RunRequest.again(results.config)
    refreshed = ecif.refresh_run(embedded_dataset, progress=False)
    assert RunRequest.again(refreshed.config) == before
    for name, value in asked.items():
        assert getattr(refreshed.config, name) == value
    assert refreshed.config.device is None and refreshed.config.computed_on in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda results, view: results.forecast_removal(points=10**6), "points must be at most 100"),
        (lambda results, view: results.forecast_removal(points=0), "points must be at least 1"),
        (lambda results, view: results.estimate_removal(view, newton_steps=0), "newton_steps must be at least 1"),
        (lambda results, view: results.estimate_removal(view, newton_steps=99), "newton_steps must be at most 10"),
        (lambda results, view: results.misaligned(limit=0), "limit must be at least 1"),
        (lambda results, view: results.misaligned(threshold="much"), "threshold must be a number"),
        (lambda results, view: results.misaligned(precision="most"), "precision must be a number"),
        (lambda results, view: results.suggested_threshold(0), "precision must be a share above 0 and up to 1, not 0"),
        (lambda results, view: results.trace(view.first(), k=2.5), "k must be a whole number"),
        (lambda results, view: results.trace(view.first(), key=3, progress=False), "Trace key 3 cannot be used"),
        (lambda results, view: results.load_trace(3), "Trace key 3 cannot be used"),
        (lambda results, view: ecif.load_results("first", "first"), "dataset must be a FiftyOne Dataset or view"),
        (lambda results, view: ecif.tag_misaligned(view, "first", 2), "threshold must be a probability between 0"),
        (lambda results, view: ecif.apply_suggestions(view, "first", -1), "min_confidence must be a probability"),
    ],
)
def test_what_is_asked_of_a_run_is_checked_likewise(scored_dataset, ask, message):
    with pytest.raises(ValueError) as error:
        ask(ecif.load_results(scored_dataset, "first"), scored_dataset.limit(3))
    assert message in str(error.value)
