"""A run's model: loaded again as it was, or given by who has it; from any folder, in any precision."""

import os

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.ask.query import Query
from fiftyone_ecif.models import load_model, wrap_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
QUICK = dict(text_field="caption", rounds=1, batch_size=12, num_workers=0, progress=False)


@pytest.fixture
def few(pair_dataset):
    return pair_dataset[:12]


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return load_model("ecif-tiny")


def asked_everything(dataset, model=None):
    """What needs the model again: a refresh, a trace of a new text, a checkpoint."""
    given = {} if model is None else {"model": model}
    results = ecif.refresh_run(dataset, "ecif", progress=False, **given)
    query = Query(text="a caption that nobody wrote", right=dataset.first().id)
    trace = results.trace(query, progress=False, **given)
    return results, trace


def test_a_model_in_memory_is_given_again_and_another_one_is_refused(few, tiny, tmp_path):
    model = wrap_model(tiny.model, tiny.preprocess, tiny.tokenizer, name="mine")
    results = ecif.compute_influence(few, model=model, **QUICK)
    before = few.values("ecif_value")
    for ask in (
        lambda: ecif.refresh_run(few, progress=False),
        lambda: results.edited_checkpoint(few[:2], str(tmp_path / "no.pt"), progress=False),
    ):
        with pytest.raises(ValueError, match=r"mine.*made in memory.*model="):
            ask()
    assert not list(tmp_path.iterdir())
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="not the model of run 'ecif'"):
        ecif.refresh_run(few, model=load_model("ecif-tiny"), progress=False)
    with pytest.raises(ValueError, match="load_model or wrap_model"):
        ecif.refresh_run(few, model=tiny.model, progress=False)
    results, trace = asked_everything(few._dataset, model)
    assert few.values("ecif_value") == pytest.approx(before) and trace.key == "trace-1"
    assert results.edited_checkpoint(few[:2], str(tmp_path / "edited.pt"), progress=False)


def test_a_checkpoint_survives_a_change_of_directory(few, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_checkpoint("weights.safetensors")
    ecif.compute_influence(few, model="ecif-tiny", pretrained="weights.safetensors", **QUICK)
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    results, trace = asked_everything(few._dataset)
    assert results.config.pretrained == str(tmp_path / "weights.safetensors") and trace.key == "trace-1"


def test_a_folder_s_model_is_refreshed_traced_and_edited(few, tiny, tmp_path):
    tiny.save_checkpoint(tmp_path / "folder" / "open_clip_model.safetensors")
    ecif.compute_influence(few, model=f"local-dir:{tmp_path / 'folder'}", **QUICK)
    results, _ = asked_everything(few._dataset)
    assert results.config.pretrained is None
    path = results.edited_checkpoint(few[:2], str(tmp_path / "edited" / "open_clip_model.safetensors"), progress=False)
    edited = load_model(f"local-dir:{os.path.dirname(path)}")
    assert edited.preprocess(few_image(few)).equal(tiny.preprocess(few_image(few)))


def test_precision_and_preprocessing_are_those_of_the_run(few, tiny, tmp_path):
    tiny.save_checkpoint(tmp_path / "weights.safetensors")
    (tmp_path / "open_clip_config.json").unlink(missing_ok=True)
    given = dict(preprocess={"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]})
    half = load_model("ecif-tiny", tmp_path / "weights.safetensors", precision="bf16", **given)
    ecif.compute_influence(few, model=half, **QUICK)
    before = few.values("ecif_value")
    results, _ = asked_everything(few._dataset)
    assert results.model().fingerprint == half.fingerprint
    assert few.values("ecif_value") == pytest.approx(before)
    by_name = ecif.compute_influence(
        few, model="ecif-tiny", pretrained=str(tmp_path / "weights.safetensors"), run_key="named", **given, **QUICK
    )
    assert by_name.model().model.visual.preprocess_cfg["mean"] == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="has its own already"):
        ecif.compute_influence(few, model=half, run_key="both", **given, **QUICK)


def few_image(samples):
    from PIL import Image

    return Image.open(samples.first().filepath)
