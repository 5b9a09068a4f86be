"""Fields written together are what FiftyOne's own set_values writes one by one."""

import fiftyone as fo
import pytest

from fiftyone_ecif.dataset.run import store as writing


@pytest.mark.parametrize("together", [7, 10_000])
def test_fields_written_together_equal_those_of_set_values(pair_dataset, monkeypatch, together):
    monkeypatch.setattr(writing, "TOGETHER", together)
    ids = pair_dataset.values("id")
    labels = {id: fo.Classification(label="better", confidence=0.5) for id in ids[::3]}
    columns = {"number": {id: row / 7 if row % 5 else None for row, id in enumerate(ids)}, "label": labels, "none": {}}
    types = {
        "number": dict(ftype=fo.FloatField),
        "label": dict(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification),
        "none": dict(ftype=fo.FloatField),
    }
    held, before = pair_dataset.first(), pair_dataset.values("last_modified_at")
    for name, kind in types.items():
        pair_dataset.add_sample_field(f"ours_{name}", **kind)
        pair_dataset.add_sample_field(f"theirs_{name}", **kind)
    writing._set_together(pair_dataset, {f"ours_{name}": values for name, values in columns.items()})
    for name, values in columns.items():
        if values:
            pair_dataset.set_values(f"theirs_{name}", values, key_field="id")
        ours, theirs = pair_dataset.values([f"ours_{name}", f"theirs_{name}"])
        assert ours == theirs
    assert held["ours_number"] is None and pair_dataset.count("ours_label") == len(labels)
    assert held["ours_label"].label == "better"  # samples in memory know
    assert all(new > old for new, old in zip(pair_dataset.values("last_modified_at"), before, strict=True))
