"""A Ray cluster of two nodes finds what one process finds, and lives through the death of a worker."""

import os
import signal
from pathlib import Path

import pytest

from fiftyone_ecif.engine import compute, engine_workers
from tests.engine.test_workers import SETTINGS, assert_same_scores, attributed

ray = pytest.importorskip("ray", reason="engine='ray' needs Ray: pip install 'fiftyone-ecif[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, with two workers' room on one and one's on the other."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    made.add_node(num_cpus=1)
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
    with engine_workers("ray") as made:
        yield made


def test_scores_equal_the_local_engines_whatever_the_number_of_workers(workers, monkeypatch):
    made = attributed()
    expected = compute(made, "clip", SETTINGS)
    assert workers.count == 3
    for count in (1, 2, 3):
        monkeypatch.setattr(workers, "count", count)
        assert_same_scores(compute(made, "clip", SETTINGS, workers=workers), expected)


def test_work_is_spread_over_nodes_kept_in_order_and_done_again_where_a_worker_died(workers, tmp_path):
    assert len(set(workers.map(where, range(6)))) == 2
    parts = [0, 1, -2, 3, 4, 5, 6, 7]
    assert list(workers.map(end_once, parts, str(tmp_path / "died"))) == parts
    assert (tmp_path / "died").exists()


def test_what_goes_wrong_is_said_plainly(workers, monkeypatch):
    with pytest.raises(ValueError, match="has 3 CPUs, which is not enough for 4"), engine_workers("ray", 4):
        pass
    with pytest.raises(ValueError, match="has 0 GPUs"), engine_workers("ray", device="cuda"):
        pass
    with pytest.raises(ValueError, match="not 'spark'"), engine_workers("spark"):
        pass
    with pytest.raises(ValueError, match="part 7 is wrong"):
        list(workers.map(refuse, [7]))

    def dead(*references, **options):
        raise ray.exceptions.ActorDiedError()

    monkeypatch.setattr(ray, "get", dead)
    with pytest.raises(RuntimeError, match=r"died 4 times .* Finished feature shards are kept"):
        list(workers.map(where, [0]))
