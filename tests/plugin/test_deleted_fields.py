"""Forms say that a score field was deleted, and break off with no error of their own."""

import pytest

from fiftyone_ecif.dataset.fields import FIELDS
from tests.support.operators import refusals

FORMS = (
    *("show_misaligned", "show_harmful", "show_valuable", "tag_misaligned", "apply_suggestions", "export_cleaned"),
    "show_vague",
    *("estimate_removal", "forecast_removal", "verify_removal", "find_failures", "trace_query", "manage_runs"),
)
NEEDS = {
    "misalignment": {"show_misaligned", "tag_misaligned", "apply_suggestions", "export_cleaned"},
    "value": {"show_harmful", "show_valuable", "estimate_removal", "forecast_removal", "verify_removal"},
    "suggestion": {"apply_suggestions"},
    "vagueness": {"show_vague"},
}


@pytest.mark.parametrize("suffix", FIELDS)
def test_a_deleted_score_field_is_said_by_the_forms_that_need_it(scored_dataset, resolve_form, suffix):
    scored_dataset.delete_sample_field(f"first_{suffix}")
    said = set()
    for name in FORMS:
        refused = refusals(resolve_form(f"@ecif/ecif/{name}", scored_dataset, run_key="first"))
        if any(f"'first_{suffix}'" in words and "was deleted" in words for words in refused.values()):
            said.add(name)
    assert said == NEEDS.get(suffix, set())
