"""Runs whose values are prepared, so that writing them needs no model and no scoring."""

import fiftyone as fo
import torch

from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.dataset.run.store import write_run


def few_samples(count: int = 6) -> fo.Dataset:
    """A dataset of a few samples whose media are not there."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{row}.png", caption=f"text {row}") for row in range(count)])
    return dataset


def columns(samples, base: float = 0.0, evidence: bool = False) -> dict:
    """Values of a run's fields: numbers with gaps, and labels for every third sample."""
    ids = samples.values("id")
    values = {
        "value": {id: base + row for row, id in enumerate(ids)},
        "misalignment": {id: row / 7 if row % 5 else None for row, id in enumerate(ids)},
        "suggestion": {id: fo.Classification(label=f"label {base}", confidence=0.5) for id in ids[::3]},
    }
    return values | {"evidence_head": {id: base - row for row, id in enumerate(ids)}} if evidence else values


def write(samples, run_key: str, values: dict, overwrite: bool = False, tensors: dict | None = None) -> None:
    """Write a run of prepared values."""
    kept = {"health": {"pairs": len(values["value"])}}
    write_run(samples, run_key, EcifConfig(asked="this"), values, kept, tensors or {"t": torch.zeros(2)}, overwrite)
