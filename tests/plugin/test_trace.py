"""From a failing query to the pairs to blame, by the operators."""

import fiftyone.operators as foo
import pytest

from fiftyone_ecif.plugin import NAME
from tests.support.operators import refusals, requests_of, shown_ids


def test_failing_samples_are_found_and_traced_to_pairs(scored_dataset, resolve_form):
    requests = requests_of(foo.get_operator(f"{NAME}/find_failures")(scored_dataset, "first"))
    failing = shown_ids(scored_dataset, requests)
    assert failing
    scored_dataset.reload()
    assert requests["set_active_fields"]["fields"] == ["caption", "first_rank", "first_margin"]
    query = scored_dataset.select(failing[:1])
    requests = requests_of(foo.get_operator(f"{NAME}/trace_query")(query, "first", k=5))
    pairs = shown_ids(scored_dataset, requests)
    assert 0 < len(pairs) <= 5
    assert len(requests["show_output"]["results"]["pairs"]) == len(pairs)
    inputs = resolve_form(f"{NAME}/trace_query", scored_dataset, text="a blue square")
    assert list(refusals(inputs)) == ["text"]


@pytest.mark.parametrize("operator", ["find_failures", "trace_query"])
def test_without_a_run_there_is_nothing_to_ask(pair_dataset, resolve_form, operator):
    assert list(refusals(resolve_form(f"{NAME}/{operator}", pair_dataset))) == ["no_runs"]
