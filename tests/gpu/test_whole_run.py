"""A run from images to answers on a GPU: what the towers, the scores and the questions give is what a CPU gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fiftyone_ecif as ecif
from fiftyone_ecif.models import load_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]


def test_a_run_and_its_questions_are_those_of_a_cpu(pair_dataset, gpu, tmp_path, monkeypatch):
    torch.manual_seed(0)
    load_model("ecif-tiny").save_checkpoint(tmp_path / "weights.safetensors")
    samples, weights = pair_dataset[:16], str(tmp_path / "weights.safetensors")
    asked = dict(model="ecif-tiny", pretrained=weights, rounds=1, batch_size=8, num_workers=0, progress=False)
    found = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / device))  # nothing embedded on the other is used
        results = ecif.compute_influence(samples, "caption", run_key=device, device=device, **asked)
        assert results.config.computed_on == results.device == device
        predicted = results.estimate_removal(samples[:3], progress=False).predicted
        trace = results.trace(samples.first(), k=5, wrong=samples.last().caption, progress=False)
        path = results.edited_checkpoint(samples[:2], str(tmp_path / f"{device}.safetensors"), progress=False)
        found[device] = (samples.values(results.fields["value"]), predicted, trace, load_file(path))
    (value, predicted, trace, state), (values, prediction, traced, edited) = found["cpu"], found["cuda"]
    scale = max(map(abs, value))
    np.testing.assert_allclose(values, value, rtol=0, atol=0.02 * scale)  # a GPU embeds in float16
    assert prediction == pytest.approx(predicted, rel=0.02, abs=0.02)
    assert traced.target == pytest.approx(trace.target, rel=0.02, abs=0.02)
    for name, tensor in state.items():
        torch.testing.assert_close(edited[name], tensor, rtol=0.02, atol=0.02)
