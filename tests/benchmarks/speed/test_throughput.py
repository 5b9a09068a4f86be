"""What the throughput benchmark counts, and that its kill is a real one."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import measured
from benchmarks.report.measured import Measured
from benchmarks.speed import embedding as embedding_speed
from benchmarks.speed import throughput, towers
from benchmarks.speed.embedding import made_up_images, random_model
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.towers import training_epoch
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, influence, partitions
from fiftyone_ecif.features import RawPairs
from fiftyone_ecif.models import parameter_scope

ASKED = throughput.Throughput(pairs=512, dim=96, feature_dim=96, batch=64, tolerance=1e-3, repeats=1)


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
        influence(objective, head, torch.ones(1, head.size))
    products = 2 * throughput.score_flop(64, head)
    # What is beyond them are the sums m_i, c_j, which torch counts as thin products.
    assert products <= counted.get_total_flops() <= 1.01 * products
    with FlopCounterMode(display=False) as counted:
        throughput.score_products([64, 64], head, "cpu")()
    assert counted.get_total_flops() == products


@pytest.fixture
def counted_work(monkeypatch):
    """Work in place of time: the clock of timings counts the floating-point operations of matrix products."""
    with FlopCounterMode(display=False) as counter:
        clock = SimpleNamespace(perf_counter=counter.get_total_flops, process_time=counter.get_total_flops)
        monkeypatch.setattr(measured, "time", clock)
        yield counter.get_total_flops


def test_scores_are_set_against_an_epoch_and_against_their_products(store, counted_work):
    head = fitting_head(ASKED.dim, ASKED.feature_dim)
    figures = throughput.score_figures(open_made_up_store(store, 512, ASKED.feature_dim), head, ASKED)
    weights, similarity = 2 * ASKED.dim * ASKED.feature_dim, ASKED.batch * ASKED.dim
    batches = ASKED.pairs // ASKED.batch
    # Forward and backward: each weight is multiplied twice, and each of the loss's two similarity matrices three times.
    epoch = batches * 2 * ASKED.batch * (2 * weights + 6 * similarity)
    products = batches * 2 * ASKED.batch * (2 * weights + 3 * similarity)
    assert figures["epoch_seconds"] == epoch
    assert figures["epoch_ratio"] == pytest.approx(products / epoch, rel=0.01)
    assert figures["gemm_fraction"] == pytest.approx(1, rel=0.01)
    assert figures["half_ratio"] == pytest.approx(1, rel=0.01)
    assert figures["pairs_per_second_scores"] == pytest.approx(ASKED.pairs / products, rel=0.01)
    assert figures["half_rank_correlation"] > 0.99


def test_the_work_of_scores_grows_with_the_pairs(store, counted_work):
    head = fitting_head(ASKED.dim, ASKED.feature_dim)
    figures = throughput.growth_figures(open_made_up_store(store, 512, ASKED.feature_dim), head, ASKED)
    assert figures["time_exponent"] == pytest.approx(1, abs=1e-3)


STEPS = {"curvature": 2.0, "solve": 3.0, "fit": 10.0, "scores": 4.0}


def spied(monkeypatch, module):
    """Runs of the engine that a module starts, each with :data:`STEPS` in place of its seconds."""
    runs = []

    def compute(attributed, *arguments):
        runs.append(attributed)
        return replace(module_compute(attributed, *arguments), timings=STEPS)

    module_compute = module.compute
    monkeypatch.setattr(module, "compute", compute)
    return runs


def test_the_steps_of_a_run_are_counted_in_epochs(store, monkeypatch):
    runs = spied(monkeypatch, throughput)
    head = fitting_head(ASKED.dim, ASKED.feature_dim)
    pairs = open_made_up_store(store, 576, ASKED.feature_dim)
    figures = throughput.solve_figures(pairs, 64, head, ASKED, epoch_seconds=0.5)
    assert {name: figures[f"{name}_epochs"] for name in ("curvature", "solve", "fit", "score")} == {
        "curvature": 4, "solve": 10, "fit": 20, "score": 8,
    }  # fmt: skip
    (run,) = runs
    assert (len(run.pairs), len(run.target)) == (512, 64)
    assert torch.equal(run.pairs.gather(torch.arange(512))[0], pairs.gather(torch.arange(512))[0])
    assert figures["solver_relative_residual"] <= ASKED.tolerance
    assert figures["solver_iterations"] >= 1 and figures["fit_steps"] >= 1


def test_peak_memory_is_of_the_child_alone(store):
    waste = torch.ones(1 << 26)  # 256 MiB here are not there
    memory = peak_memory(store, 256, ASKED.dim, ASKED.feature_dim, 64)
    assert 0 < memory.interpreter_anonymous <= memory.anonymous <= memory.peak
    assert memory.anonymous - memory.interpreter_anonymous < waste.nbytes


@pytest.mark.slow
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
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["settings"]["pairs"] == 64 and written["figures"] == {"epoch_ratio": 1.0}
    assert written["tables"]["marks"]["rows"] == [
        ["`epoch_ratio`: the score pass over an epoch of training", "1", "", "≤ 1.5"]
    ]


@pytest.mark.slow
def test_two_workers_are_timed_beside_this_process(store):
    pytest.importorskip("ray")
    from benchmarks.speed.cluster import cluster_figures

    threads = torch.get_num_threads()
    figures = cluster_figures(
        open_made_up_store(store, 256, ASKED.feature_dim), fitting_head(ASKED.dim, ASKED.feature_dim), 64, 0, 1
    )
    assert set(figures) == {"ray_ratio", "ray_ratio_cpu"} and torch.get_num_threads() == threads


@pytest.mark.parametrize(("scope", "parameters"), [("lora", 10_241), ("resblocks.1.mlp", 16_705)])
def test_a_scope_inside_the_towers_is_set_against_training_it(scope, parameters, tmp_path, counted_work, monkeypatch):
    work, runs = [], []

    def spy(name):
        plain = getattr(towers, name)

        def spied_on(*arguments):
            before = counted_work()
            plain(*arguments)
            work.append((name, counted_work() - before))

        monkeypatch.setattr(towers, name, spied_on)

    def compute(attributed, *arguments):
        runs.append(attributed)
        report = SimpleNamespace(solver_iterations=7, solver_relative_residual=1e-3, fit_relative_gradient=0.1)
        return SimpleNamespace(timings=STEPS, reports=[report])

    spy("influence")
    spy("training_epoch")
    monkeypatch.setattr(towers, "compute", compute)
    settings = Settings(rounds=1, batch_size=6, anchor=10.0)
    figures = towers.tower_figures(tmp_path, "ecif-tiny-vit", scope, 12, settings, "cpu", repeats=1)
    (run,) = runs
    assert figures["parameters"] == run.scope.size == parameters  # the logit scale is one of them
    assert (len(run.pairs), len(run.target)) == (12, 3)
    assert [name for name, _ in work] == ["influence", "training_epoch"] * 2  # once to warm up
    scores, epoch = work[2][1], work[3][1]
    assert figures["epoch_seconds"] == epoch > 0
    assert figures["epoch_ratio"] == pytest.approx(scores / epoch)
    assert figures["pairs_per_second_scores"] == pytest.approx(12 / scores)
    assert {name: figures[f"{name}_epochs"] * epoch for name in ("solve", "curvature", "fit", "scores")} == {
        name: pytest.approx(value) for name, value in {**STEPS, "solve": 5.0}.items()
    }
    assert figures["solver_iterations"] == 7 and figures["fit_relative_gradient"] == 0.1


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
