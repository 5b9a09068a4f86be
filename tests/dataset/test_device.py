"""A run that was made on a GPU can be asked, refreshed and edited where there is none."""

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.device import device_here, if_here

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_a_device_that_is_gone_gives_way_to_one_that_is_here(monkeypatch):
    assert if_here("local", "cpu") == "cpu" and if_here("local", None) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert if_here("local", "cuda:0") == "cuda:0"
    assert if_here("local", "cuda:1") is None
    with pytest.raises(ValueError, match="torch sees cuda:0"):
        device_here("local", "cuda:1")


def test_a_run_of_a_gpu_is_refreshed_removed_from_and_traced_on_a_cpu(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    expected = results.estimate_removal(embedded_dataset[:3], progress=False).predicted
    config = results.config
    config.device = "cuda:7"
    embedded_dataset.update_run_config("ecif", config)
    results = ecif.load_results(embedded_dataset, "ecif")
    assert results.estimate_removal(embedded_dataset[:3], progress=False).predicted == expected
    results.trace(embedded_dataset.first(), progress=False)
    assert ecif.refresh_run(embedded_dataset, "ecif", progress=False).config.device is None
