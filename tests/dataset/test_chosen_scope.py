"""Runs whose values come from inside the towers."""

from functools import partial

import numpy as np
import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution import Attributed
from fiftyone_ecif.dataset import chosen_scope as scopes
from fiftyone_ecif.models import load_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TINY = dict(model="ecif-tiny", rounds=1, batch_size=15, progress=False, num_workers=0)


@pytest.mark.parametrize("scope", ["lora", r"^visual\.attnpool\.c_proj|^text_projection$"])
def test_a_deep_scope_gives_values_and_the_heads_misalignment(pair_dataset, monkeypatch, scope):
    monkeypatch.setattr(scopes, "ADAPTER_STEPS", 2)
    monkeypatch.setattr(scopes, "Attributed", partial(Attributed, fit_steps=6, probes=2))
    torch.manual_seed(0)
    view, target = pair_dataset[:16], pair_dataset[16:24]
    common = dict(TINY, target=target, anchor=3.0, batch_size=8, model=load_model("ecif-tiny"))
    ecif.compute_influence(view, "caption", run_key="head", **common)
    results = ecif.compute_influence(view, "caption", run_key="deep", scope=scope, **common)
    columns = {name: np.array(view.values(name), dtype=float) for name in ("deep_value", "deep_self_influence")}
    assert all(np.isfinite(column).all() for column in columns.values())
    assert view.values("deep_misalignment") == view.values("head_misalignment")
    assert results.config.scope == scope
    assert any("Self-influence is estimated" in warning for warning in results.warnings)
    if scope != "lora":
        assert np.corrcoef(columns["deep_value"], view.values("head_value"))[0, 1] > 0.99


def test_a_scope_that_is_not_there_is_refused_before_anything_is_embedded(
    pair_dataset, embedded_dataset, stored, monkeypatch
):
    monkeypatch.setattr("fiftyone_ecif.dataset.pairs.embed_pairs", lambda *args, **rest: pytest.fail("embedded"))
    with pytest.raises(ValueError, match=r"finds no parameter of ecif-tiny\. Near: "):
        ecif.compute_influence(pair_dataset, "caption", scope="attentoin", **TINY)
    with pytest.raises(ValueError, match="only 'head'"):
        ecif.compute_influence(embedded_dataset, scope="full", **stored)
    assert not ecif.list_runs(pair_dataset)
