"""What a person is shown of natural noise says nothing of who suspects it, and what they say is summed up."""

import csv

import pytest

from benchmarks.data import digits
from benchmarks.detection import natural_noise

SUSPECTS = {"misalignment": [5, 2, 9], "clip_score": [2, 7], "random": [0, 5]}


@pytest.fixture
def sheets(tmp_path):
    table = digits.load(train=12, heldout=0, progress=False)
    natural_noise.write_sheets(table, SUSPECTS, tmp_path)
    with open(tmp_path / "suspects.csv", newline="") as file:
        return table, tmp_path, list(csv.DictReader(file))


def test_the_list_holds_every_suspect_of_every_method_by_rank(sheets):
    table, _, rows = sheets
    listed = {(row["method"], int(row["rank"]), row["name"], row["caption"]) for row in rows}
    assert listed == {
        (method, rank, f"{table.filepaths[row].rpartition('/')[2]}", table.captions[row])
        for method, chosen in SUSPECTS.items()
        for rank, row in enumerate(chosen, start=1)
    }
    assert {row["verdict"] for row in rows} == {""}


def test_a_pair_that_several_methods_suspect_is_shown_once(sheets):
    _, folder, rows = sheets
    assert len({(row["number"], row["name"]) for row in rows}) == len({row["name"] for row in rows}) == 5
    assert {int(row["number"]) for row in rows} == set(range(5))
    assert [path.name for path in folder.glob("*.png")] == ["sheet-00.png"]


def test_the_summary_gives_each_verdicts_share_by_method(tmp_path):
    path = tmp_path / "list.csv"
    verdicts = ["wrong", "wrong", "right", "unclear"]
    path.write_text("method,verdict\n" + "".join(f"clip_score,{verdict}\n" for verdict in verdicts))
    table = natural_noise.verdict_table(path)
    assert list(table.columns) == ["method", "pairs", *natural_noise.VERDICTS]
    ((method, pairs, *shares),) = table.rows
    assert (method, pairs) == ("clip_score", 4)
    error = (0.25 * 0.75 / 4) ** 0.5
    assert shares == [[0.5, 0.25], [0.0, 0.0], [0.25, pytest.approx(error)], [0.25, pytest.approx(error)]]
    path.write_text("method,verdict\nclip_score,maybe\n")
    with pytest.raises(SystemExit, match="not 'maybe'"):
        natural_noise.verdict_table(path)
