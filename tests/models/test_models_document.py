"""docs/models.md: its blocks of code run as they stand, and its table names the families that are tested."""

import re
import warnings

import open_clip
import pytest

from fiftyone_ecif.models import ContrastiveModel, load_model
from tests.conftest import REPOSITORY
from tests.support.hub import no_network, put_into_cache  # noqa: F401
from tests.support.models import FAMILIES

DOCUMENT = (REPOSITORY / "docs" / "models.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
WAYS = ["path", "preprocessing", "folder", "hub", "memory"]


@pytest.fixture
def prepared(make_model, no_network, tmp_path, monkeypatch):  # noqa: F811
    """A folder with what the document speaks of; its architectures are tiny ones, and the hub has its repository."""
    for name in ("ViT-B-32", "ViT-L-14"):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, open_clip.get_model_config("tiny-vit"))
    model = make_model("vit")
    model.save_checkpoint(tmp_path / "repository")
    put_into_cache(tmp_path / "hub", "you/your-model", tmp_path / "repository")
    model.save_checkpoint(tmp_path / "runs" / "epoch_30.pt")
    (tmp_path / "runs" / "open_clip_config.json").unlink()
    monkeypatch.chdir(tmp_path)
    return model


@pytest.mark.parametrize(("way", "block"), zip(WAYS, BLOCKS, strict=True), ids=WAYS)
def test_the_blocks_of_code_run(prepared, way, block):
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exec(block, names)
    model = names["model"]
    assert isinstance(model, ContrastiveModel)
    if way != "memory":
        assert model.model.state_dict()["visual.proj"].equal(prepared.model.state_dict()["visual.proj"])
    found = model.model.visual.preprocess_cfg
    assert (found["mean"][0], found["resize_mode"]) == (
        (0.5, "squash") if way == "preprocessing" else (open_clip.OPENAI_DATASET_MEAN[0], "shortest")
    )
    if way == "folder":
        assert load_model("local-dir:my-model").fingerprint == model.fingerprint


def test_the_table_names_the_families_that_are_tested():
    table = DOCUMENT[DOCUMENT.index("| family |") :]
    named = [
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([\w-]+)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted(FAMILIES)
