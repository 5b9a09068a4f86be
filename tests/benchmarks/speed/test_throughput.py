"""What the throughput benchmark counts, and that its kill is a real one."""

import argparse
import json
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report.measured import Measured
from benchmarks.speed import embedding as embedding_speed
from benchmarks.speed import throughput
from benchmarks.speed.embedding import made_up_images, random_model
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.towers import tower_figures, training_epoch
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, influence, partitions
from fiftyone_ecif.features import RawPairs
from fiftyone_ecif.models import parameter_scope

ASKED = argparse.Namespace(pairs=512, dim=96, feature_dim=96, batch=64, device="cpu", tolerance=1e-3, repeats=1, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_made_up_store(folder, ASKED.pairs + ASKED.pairs // 8, ASKED.feature_dim)
    return folder


def test_a_score_pass_multiplies_no_more_than_what_it_is_compared_with(store):
    head = fitting_head(ASKED.dim, ASKED.feature_dim)
    pairs = open_made_up_store(store, 128, ASKED.feature_dim)
    objective = Objective(pairs, partitions(128, 64, 1, 0), LOSSES["clip"])
    with FlopCounterMode(display=False) as counted:
        influence(objective, head, torch.randn(1, head.size))
    products = 2 * throughput.score_flop(64, head)
    # What is beyond them are the sums m_i, c_j, which torch counts as thin products.
    assert products <= counted.get_total_flops() <= 1.01 * products
    with FlopCounterMode(display=False) as counted:
        throughput.score_products([64, 64], head, "cpu")()
    assert counted.get_total_flops() == products


def test_the_figures_of_scores_solve_and_growth(store):
    head = fitting_head(ASKED.dim, ASKED.feature_dim)
    pairs = open_made_up_store(store, 576, ASKED.feature_dim)
    figures = throughput.score_figures(open_made_up_store(store, 512, ASKED.feature_dim), head, ASKED)
    figures |= throughput.solve_figures(pairs, 64, head, ASKED, figures["epoch_seconds"])
    figures |= throughput.growth_figures(pairs, head, ASKED)
    wanted = {"pairs_per_second_scores", "epoch_ratio", "gemm_fraction", "solve_epochs", "fit_epochs", "time_exponent"}
    assert wanted <= set(figures)
    assert all(figures[name] > 0 for name in wanted - {"time_exponent"})


def test_peak_memory_is_of_the_child_alone(store):
    waste = torch.ones(1 << 26)  # 256 MiB here are not there
    memory = peak_memory(store, 256, ASKED.dim, ASKED.feature_dim, 64)
    assert 0 < memory.interpreter_anonymous <= memory.anonymous <= memory.peak
    assert memory.anonymous - memory.interpreter_anonymous < waste.nbytes


def test_a_killed_embedding_loses_what_was_not_on_disk_and_resumes_to_the_same(tmp_path, monkeypatch):
    """The child dies by SIGKILL, and what is counted as wasted is what it had embedded beyond its last shard."""
    killed = []
    plain = embedding_speed._killed
    monkeypatch.setattr(
        embedding_speed, "_killed", lambda *args: killed.append((args[2], plain(*args))) or killed[-1][1]
    )
    monkeypatch.setattr(embedding_speed, "KILLS", 2)
    waste = embedding_speed.resume_waste(tmp_path, count=1_500, seed=2)
    assert [moment < 1_024 for moment, _ in killed] == [True, False]
    assert all(moment <= done <= 1_500 for moment, done in killed)
    assert 0 <= waste <= 1
    assert waste == pytest.approx(max(killed[0][1] % 1_024, killed[1][1] - 1_024) / 1_024)


def test_ratios_are_of_neighbours_in_time():
    calls = []
    timed = Measured(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, between=lambda: calls.append("-")
    )
    assert calls == list("a-b-") * 3
    assert set(timed.ratio("quotient", "a", "b")) == {"quotient", "quotient_cpu"}


def test_the_command_writes_its_figures_and_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "measure", lambda asked, folder: {"epoch_ratio": 1.0})
    monkeypatch.setattr(sys, "argv", ["throughput", "--pairs", "64", "--json", str(tmp_path / "figures.json")])
    throughput.main()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["pairs"] == 64 and figures["epoch_ratio"] == 1.0


def test_two_workers_are_timed_beside_this_process(store):
    pytest.importorskip("ray")
    from benchmarks.speed.cluster import cluster_figures

    threads = torch.get_num_threads()
    figures = cluster_figures(
        open_made_up_store(store, 256, ASKED.feature_dim), fitting_head(ASKED.dim, ASKED.feature_dim), 64, 0, 1
    )
    assert set(figures) == {"ray_ratio", "ray_ratio_cpu"} and torch.get_num_threads() == threads


@pytest.mark.parametrize("scope", ["lora", "resblocks.1.mlp"])
def test_a_scope_inside_the_towers_is_timed_beside_training_it(scope, tmp_path):
    settings = Settings(rounds=1, batch_size=6, anchor=10.0)
    figures = tower_figures(tmp_path, "ecif-tiny-vit", scope, 12, settings, "cpu", repeats=1)
    wanted = {"parameters", "pairs_per_second_scores", "epoch_ratio", "solve_epochs", "fit_epochs", "scores_epochs"}
    assert wanted <= set(figures) and all(figures[name] > 0 for name in wanted)


def test_an_epoch_of_training_differentiates_by_the_scope_alone(tmp_path, monkeypatch):
    """Its gradient is the objective's."""
    model = random_model("ecif-tiny-vit")
    rows = made_up_images(tmp_path, 6, images=6)
    pairs = TensorPairs(*RawPairs(model, rows).gather(torch.arange(6)))
    scope = parameter_scope(model, "resblocks.1.mlp")
    trained = model.model
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(name in scope.parameters)
    monkeypatch.setattr(trained, "zero_grad", lambda: None)
    training_epoch(trained, pairs, [torch.arange(6)], "cpu")
    expected = Objective(pairs, [[torch.arange(6)]], LOSSES["clip"]).value_and_gradient(scope)[1]
    found = torch.cat([dict(trained.named_parameters())[name].grad.reshape(-1) for name in scope.parameters])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert all(value.grad is None for name, value in trained.named_parameters() if name not in scope.parameters)
