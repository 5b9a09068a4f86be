"""A Ray cluster of two nodes finds what one process finds, and lives through the death of a worker."""

import io
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.engine import engine_workers
from fiftyone_ecif.features import PairRow, RawPairs, embed_pairs
from fiftyone_ecif.models import load_model, parameter_scope
from tests.support.workers import SETTINGS, assert_same_scores, attributed

ray = pytest.importorskip("ray", reason="engine='ray' needs Ray: pip install 'fiftyone-ecif[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, with room for two workers each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def end_once(part, marker, progress):
    """The part, from a worker that dies the first time it is asked for a negative one."""
    if part < 0 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def refuse(part, progress):
    raise ValueError(f"part {part} is wrong")


def where(part, progress):
    return ray.get_runtime_context().get_node_id()


@pytest.fixture(scope="module")
def workers(cluster):
    with engine_workers("ray", 3) as made:
        yield made


def test_scores_equal_the_local_engines_whatever_the_number_of_workers(workers, monkeypatch):
    made = attributed()
    expected = compute(made, "clip", SETTINGS)
    for count in (1, 2, 3):
        monkeypatch.setattr(workers, "count", count)
        assert_same_scores(compute(made, "clip", SETTINGS, workers=workers), expected)


def test_work_is_spread_over_nodes_kept_in_order_and_done_again_where_a_worker_died(workers, tmp_path):
    assert len(set(workers.map(where, range(6)))) == 2
    parts = [0, 1, -2, 3, 4, 5, 6, 7]
    assert list(workers.map(end_once, parts, str(tmp_path / "died"))) == parts
    assert (tmp_path / "died").exists()


@pytest.fixture
def model_and_rows(tmp_path):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("ecif-tiny")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(200):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        rows.append(PairRow(str(number), str(path), f"picture number {number}"))
    rows[5] = rows[5]._replace(filepath="none.png")
    rows[190] = rows[190]._replace(caption=" ")
    return model, rows


def test_features_and_skips_are_those_of_one_process(workers, model_and_rows, tmp_path):
    model, rows = model_and_rows
    ours = embed_pairs(model, rows, tmp_path / "ours", workers=workers)
    theirs = embed_pairs(model, rows, tmp_path / "theirs", num_workers=0)
    assert ours.ids == theirs.ids and ours.skipped == theirs.skipped and len(ours.skipped) == 2
    everything = torch.arange(len(ours))
    for one, other in zip(ours.gather(everything), theirs.gather(everything), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_scopes_inside_the_towers_travel(workers, model_and_rows):
    model, rows = model_and_rows
    raw = RawPairs(model, rows[6:13])
    made = Attributed(parameter_scope(model, "visual.proj|text_projection"), raw, None, 1, 2)
    settings = Settings(rounds=2, batch_size=2, anchor=1.0, max_iterations=5)
    assert_same_scores(
        compute(made, "clip", settings, workers=workers), compute(made, "clip", settings), tolerance=1e-3
    )


def test_a_run_on_a_cluster_writes_what_a_local_run_writes(workers, model_and_rows, pair_dataset):
    import fiftyone_ecif as ecif

    for engine in ("local", "ray"):
        ecif.compute_influence(
            pair_dataset,
            "caption",
            run_key=engine,
            model=model_and_rows[0],
            rounds=2,
            batch_size=20,
            anchor=1.0,
            engine=engine,
            num_workers=1 if engine == "ray" else 0,
            progress=False,
        )
    local, ray_ = (np.array(pair_dataset.values(f"{engine}_value")) for engine in ("local", "ray"))
    np.testing.assert_allclose(ray_, local, rtol=1e-3, atol=1e-3 * np.abs(local).max())


def test_a_run_on_a_cluster_is_refreshed_on_it(workers, pair_dataset):
    import fiftyone_ecif as ecif
    from tests.support.planted import plant_errors

    plant_errors(pair_dataset)
    asked = dict(engine="ray", num_workers=1, device="cpu", rounds=1, batch_size=20, anchor=1.0)
    embeddings = dict(image_embeddings="image_embedding", text_embeddings="text_embedding")
    first = ecif.compute_influence(pair_dataset, "caption", **asked, **embeddings, progress=False)
    values = pair_dataset.values("ecif_value")
    for results in (first, ecif.refresh_run(pair_dataset, progress=False)):
        assert {name: getattr(results.config, name) for name in asked} == asked
        assert results.config.computed_on == "cpu"
    np.testing.assert_allclose(pair_dataset.values("ecif_value"), values, rtol=1e-4, atol=1e-8)


def test_what_goes_wrong_is_said_plainly(workers, monkeypatch):
    with pytest.raises(ValueError, match=r"has 4 CPUs, which are not enough .* for 5"), engine_workers("ray", 5):
        pass
    with pytest.raises(ValueError, match="has 0 GPUs"), engine_workers("ray", device="cuda"):
        pass
    with pytest.raises(ValueError, match="not 'spark'"), engine_workers("spark"):
        pass
    with pytest.raises(ValueError, match="part 7 is wrong"):
        list(workers.map(refuse, [7]))

    with monkeypatch.context() as patch:
        patch.setattr(workers, "head", "127.0.0.1:1")  # nothing listens there
        patch.setattr(workers, "last_answer", 0.0)
        patch.setattr(ray, "shutdown", lambda: None)
        with pytest.raises(RuntimeError, match=r"head of the Ray cluster .* does not answer .* shards are kept"):
            list(workers.map(where, [0]))

    def dead(*references, **options):
        raise ray.exceptions.ActorDiedError()

    monkeypatch.setattr(ray, "get", dead)
    with pytest.raises(RuntimeError, match=r"died 4 times .* Finished feature shards are kept"):
        list(workers.map(where, [0]))


def test_a_worker_holds_the_objects_that_it_used_last(monkeypatch):
    from fiftyone_ecif.engine import ray_worker

    fetched = []

    def fetch(reference):
        fetched.append(reference)
        file = io.BytesIO()
        ray_worker.Pickler(file, reference).dump(reference)
        return file.getvalue(), {}

    monkeypatch.setattr(ray_worker.ray, "get", fetch)
    ray_worker._held.clear()
    names = [str(number) for number in range(ray_worker.HELD + 1)]
    reader = ray_worker.Unpickler(io.BytesIO(), {name: name for name in names}, "cpu")
    used = [*names[:-1], names[0], names[-1], names[0], names[1]]
    assert [reader.persistent_load(("kept", name)) for name in used] == used
    assert fetched == [*names, names[1]] and len(ray_worker._held) == ray_worker.HELD
    ray_worker._held.clear()
