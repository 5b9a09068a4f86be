"""Odd values of every operator's form and of every event of the panel: used, or refused in plain words."""

import inspect
from copy import deepcopy
from functools import partial

import fiftyone.operators as foo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.plugin import NAME, OPERATORS
from fiftyone_ecif.plugin.operator import EcifOperator
from fiftyone_ecif.plugin.operators.compute import ComputeInfluence
from fiftyone_ecif.plugin.panel.panel import EcifPanel
from fiftyone_ecif.plugin.panel.tabs import TABS
from tests.fuzz.inputs import attempt, inputs
from tests.fuzz.scene import FIELDS, KEY
from tests.fuzz.strategies import sent
from tests.support.headless_panel import PANEL

pytestmark = pytest.mark.filterwarnings("ignore")

FORM = dict(text_field="caption", run_key=KEY, features="embeddings", **FIELDS)
"""Usable values, which operators that do not ask for them ignore."""

ALSO = ("run_key", "view_target", "features", "advanced")
"""What forms ask for besides the parameters of the operators in scripts."""

EVENTS = sorted(
    {"on_load", "on_change_dataset", "on_change_ctx", "choose_run", "choose_tab", "refresh", "compute", "cancel"}
    | {"clear_selection", "open_sample"}
    | {name for tab in TABS for name in tab(EcifPanel()).events()}
)
SENT = ("value", "data", "id", "idx", "trace_idx", "x", "y", "path", "range")
"""What an event of the App may bring."""

ENTRIES = ("run_key", "tab", "jobs", "problem", "turns", *(entry.name for tab in TABS for entry in tab.entries))
"""The entries of the panel's state."""


def names_of(operator: type[EcifOperator]) -> list[str]:
    """What an operator may be given."""
    parameters = inspect.signature(operator.__call__).parameters
    return sorted({*parameters, *ALSO} - {"self", "sample_collection", "delegate"})


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_odd_values_of_a_form_are_used_or_refused(scene, operator):
    form = FORM | ({"run_key": "second"} if operator is ComputeInfluence else {})

    @inputs(few=3, many=60, of=operator.name)
    @given(odd=st.dictionaries(st.sampled_from(names_of(operator)), sent, min_size=1, max_size=3))
    def try_them(odd):
        scene.restored()
        params, uri = form | odd, f"{NAME}/{operator.name}"
        execute = partial(foo.execute_operator, uri, {"dataset": scene.dataset}, params=params)
        attempt("operators' forms", execute, scene.dataset)

    try_them()


@pytest.mark.parametrize("event", EVENTS)
def test_odd_events_of_the_panel_are_answered_or_refused(scene, event):
    @inputs(few=2, many=30, of=event)
    @given(
        params=st.dictionaries(st.sampled_from(SENT), sent, max_size=2),
        state=st.dictionaries(st.sampled_from(ENTRIES), sent, max_size=2),
        tab=st.sampled_from([tab.name for tab in TABS]),
    )
    def try_them(params, state, tab):
        scene.restored()
        database().execution_store.delete_many({})
        known = {"run_key": KEY, "tab": tab} | deepcopy(state)
        given_in = params | {"panel_id": "panel", "__method__": event, "panel_state": known}
        send = partial(foo.execute_operator, PANEL, {"dataset": scene.dataset}, params=given_in)
        attempt("panel events", send, scene.dataset)

    try_them()
