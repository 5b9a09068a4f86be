"""Pairs and a model that cells are made of in a second."""

import numpy as np
import pytest
import torch

from benchmarks.data.pairs import PairTable
from benchmarks.detection import cell_data, repair
from benchmarks.models.model import LoadedModel


@pytest.fixture
def tiny_data(tmp_path, monkeypatch, pair_rows):
    """The generated pairs in place of a benchmark's data, and an untrained model in place of a regime's."""
    import open_clip

    names = sorted({shape for *_, shape in pair_rows})
    labels = np.array([names.index(shape) for *_, shape in pair_rows])
    table = PairTable(
        [filepath for filepath, *_ in pair_rows],
        [f"a {names[label]}" for label in labels],
        labels,
        names,
        np.array(["train"] * 40 + ["base"] * 8 + ["heldout"] * 12),
        ("a {}",),
        "generated pairs",
    )
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ecif-tiny").state_dict(), tmp_path / "model.pt")
    trained_on = []

    def model(data, table, regime, seed, progress):
        trained_on.append(table.select(table.split == "train"))
        return LoadedModel("ecif-tiny", tmp_path / "model.pt")

    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    for module in (cell_data, repair):
        monkeypatch.setattr(module, "regime_model", model)
    monkeypatch.setattr(cell_data, "benchmark_pairs", lambda *_: table)
    return trained_on
