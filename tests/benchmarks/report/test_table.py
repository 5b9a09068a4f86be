"""Tables and result files: what is written is what was measured, and what is read."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from benchmarks.report.command import ask
from benchmarks.report.results import commit, machine, read_table, write_result
from benchmarks.report.table import Table, cell_text, figure_cell


@pytest.mark.parametrize(
    ("cell", "digits", "text"),
    [
        ("label", 3, "label"),
        (None, 3, ""),
        (0.5, 3, "0.500"),
        ([0.98765, 0.0123], 2, "0.99 ± 0.01"),
        ([0.5, None], 1, "0.5"),
        ([43, 4.845], None, "43 ± 4.845"),
        (256, 0, "256"),
    ],
)
def test_a_cell_shows_its_figure_and_its_error(cell, digits, text):
    assert cell_text(cell, digits) == text


def test_a_figure_goes_with_its_standard_error():
    figures = {"lds": 0.9, "lds_se": 0.1, "drift": 0.0}
    assert figure_cell(figures, "lds") == [0.9, 0.1]
    assert figure_cell(figures, "drift") == 0.0
    assert figure_cell(figures, "slope") is None


def test_the_largest_figures_of_a_row_are_bold_in_markdown_alone():
    table = Table.of({"": None, "a": 1, "b": 1, "c": 1}, [["x", [0.9, 0.1], 0.9, 0.5], ["y", None, None, None]], True)
    row, empty = (line.split("|")[1:-1] for line in table.markdown().splitlines()[2:])
    assert [cell.strip() for cell in row] == ["x", "**0.9 ± 0.1**", "**0.9**", "0.5"]
    assert [cell.strip() for cell in empty] == ["y", "", "", ""]
    assert "*" not in table.console()


@dataclass(frozen=True)
class Inner:
    """Settings.

    Args:
        seed: of the draws
    """

    seed: int = 0


@dataclass(frozen=True)
class Asked:
    """Measure something.

    Args:
        settings: of the measurement
        batch_size: pairs per batch
        peers: who is measured
        json: the result is written to this file
    """

    settings: Inner = field(default_factory=Inner)
    batch_size: int = 256
    peers: tuple[str, ...] = ("a", "b")
    json: Path | None = None


def test_options_are_the_fields_and_their_help_is_the_docstrings(capsys):
    asked = ask(Asked, "benchmarks.x", arguments=["--seed", "3", "--batch-size", "16", "--peers", "--json", "f.json"])
    assert asked == Asked(Inner(3), 16, (), Path("f.json"))
    assert ask(Asked, "benchmarks.x", Asked(batch_size=8), arguments=[]).batch_size == 8
    with pytest.raises(SystemExit):
        ask(Asked, "benchmarks.x", arguments=["--help"])
    shown = capsys.readouterr().out
    assert "python -m benchmarks.x" in shown and "Measure something." in shown and "pairs per batch" in shown


def test_a_result_says_what_was_asked_and_measured_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "--seed", "3", "--label", "two words"])
    table = Table.of({"": None, "LDS": 3}, [['ours, "best"', [0.9, 0.01]], ["row 0 of a table", None]])
    path = tmp_path / "new" / "result.json"
    write_result(path, "benchmarks.x", {"seed": 3, "file": Path("a.csv")}, {"lds": 0.9, "lds_se": 0.01}, {"all": table})
    written = json.loads(path.read_text())
    assert written["command"] == "python -m benchmarks.x --seed 3 --label 'two words'"
    assert written["settings"] == {"seed": 3, "file": "a.csv"}
    assert written["figures"] == {"lds": 0.9, "lds_se": 0.01}
    assert written["machine"] == machine() and f"{torch.get_num_threads()} PyTorch threads" in machine()
    assert read_table("new/result", "all", tmp_path).to_json() == table.to_json()
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]
    write_result(None, "benchmarks.x", {}, {})


def test_the_commit_is_that_of_the_checkout():
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    assert found.stdout.startswith(commit().removesuffix("-dirty"))
