"""The commands take the options that documents and issues name, and hand them to what measures."""

import importlib
import shlex

import pytest

from benchmarks.detection import natural_noise
from benchmarks.detection.cell_data import CellSettings
from benchmarks.detection.command import Detection, cell_of
from benchmarks.detection.grid import DetectionGrid
from benchmarks.detection.repair import Repair
from benchmarks.fidelity.command import read_options
from benchmarks.fidelity.sensitivity import SCOPES, TABLES, Sensitivity, TableName
from benchmarks.report.command import ask
from benchmarks.retraining.command import Retraining
from benchmarks.speed.app import AppSpeed
from benchmarks.speed.cost_model import CostModel
from benchmarks.speed.memory import MemoryOfScores
from benchmarks.speed.peers import Peers
from benchmarks.speed.throughput import Throughput
from benchmarks.tracing.command import Tracing
from examples.demo import Demo

COMMANDS = [
    (Detection, "--pairs FILE.csv --model ViT-B-32 --checkpoint openai", {"pairs": "FILE.csv"}),
    (Detection, "--data digits --methods ecif lemon", {"methods": ("ecif", "lemon")}),
    (DetectionGrid, "--quick --again lemon --workers 1", {"quick": True, "again": ("lemon",), "workers": 1}),
    (DetectionGrid, "--rates 0.1 0.4 --seeds 0 1", {"rates": (0.1, 0.4), "seeds": (0, 1)}),
    (Repair, "--regime finetuned --rate 0.4 --noise confusable --seeds 6", {"rate": 0.4, "seeds": 6}),
    (Repair, "--data openclipart --methods ecif clip_score batch_loss", {"data": "openclipart"}),
    (Retraining, "--data emoji --trained clip --subsets 50 --seeds 3 --queries 20 --json F", {"trained": "clip"}),
    (Sensitivity, "rank anchor --json-lines F", {"tables": ("rank", "anchor")}),
    (Tracing, "--queries 0 --timing-pairs 100000 --timing-rounds 1", {"timing_pairs": 100_000}),
    (Throughput, "--scope lora --pairs 256 --batch 64 --engine ray", {"scope": "lora", "engine": "ray"}),
    (Peers, "--pairs 8192 --dim 128 --feature-dim 128 --peers --refits 2", {"peers": (), "refits": 2}),
    (Peers, "--peers trak dattri_cg --limit 120", {"peers": ("trak", "dattri_cg"), "limit": 120}),
    (MemoryOfScores, "--pairs 1000 --feature-dim 64", {"pairs": 1_000}),
    (AppSpeed, "--samples 10000 100000 --repeats 3", {"samples": (10_000, 100_000), "repeats": 3}),
    (CostModel, "--dims 512 768 512 --read-bytes 2e9", {"dims": (512, 768, 512)}),
    (Demo, "--data digits --no-app --json F", {"app": False}),
]


@pytest.mark.parametrize(("kind", "line", "fields"), COMMANDS, ids=lambda value: getattr(value, "__name__", None))
def test_options_keep_their_spelling(kind, line, fields):
    asked = ask(kind, "benchmarks", arguments=shlex.split(line))
    for name, value in fields.items():
        found = getattr(asked, name)
        assert (str(found) if name == "pairs" and isinstance(value, str) else found) == value


def test_a_cell_is_described_by_options_of_its_own():
    line = "--data digits --noise confusable --rate 0.4 --regime memorised --seed 2 --trusted 30 --json F"
    asked = ask(Detection, "benchmarks.detection", arguments=line.split())
    assert asked.settings == CellSettings("digits", "confusable", 0.4, "memorised", 2, 30)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--pairs a.csv --cell b", "two sources"),
        ("--model ViT-B-32", "--model and --checkpoint come together"),
        ("--data imagenet", "--data is one of fashion-mnist, digits, openclipart"),
    ],
)
def test_options_that_contradict_one_another_are_refused(line, complaint):
    with pytest.raises(SystemExit, match=complaint):
        cell_of(ask(Detection, "benchmarks.detection", arguments=line.split()))


def test_a_scope_changes_the_defaults_wherever_it_stands():
    line = "--pairs 64 --batch-size 32 --subsets 8 --singles 2 --edits 2 --anchor 1.0 --scope full"
    asked = read_options(line.split())
    assert (asked.scope, asked.regime.model, asked.regime.batch_size) == ("full", "ecif-tiny-vit", 32)


def test_every_table_of_the_sensitivity_benchmark_has_a_name_that_the_command_takes():
    assert set(SCOPES) == set(TableName.__args__) and len(SCOPES) == sum(map(len, TABLES.values()))


@pytest.mark.parametrize(
    "module", ["benchmarks.fidelity", "benchmarks.detection", "benchmarks.tracing", "benchmarks.report"]
)
def test_a_room_that_is_a_command_has_a_thin_main(module):
    main = importlib.util.find_spec(f"{module}.__main__")
    with open(main.origin) as file:
        assert len(file.readlines()) < 12


def test_natural_noise_writes_sheets_or_sums_up(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(natural_noise, "benchmark_pairs", lambda *_: "table")
    monkeypatch.setattr(natural_noise, "ranked_suspects", lambda table: "suspects")
    monkeypatch.setattr(natural_noise, "write_sheets", lambda *arguments: called.append(arguments))
    monkeypatch.setattr("sys.argv", ["natural_noise", "sheets", str(tmp_path)])
    natural_noise.main()
    assert called == [("table", "suspects", tmp_path)]
    path = tmp_path / "list.csv"
    path.write_text("number,method,first,second\n1,clip_score,wrong,wrong\n")
    monkeypatch.setattr("sys.argv", ["natural_noise", "summary", str(path), "--json", str(tmp_path / "F.json")])
    natural_noise.main()
    assert '["clip_score", 1, [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]' in (tmp_path / "F.json").read_text()
