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
    assert {row[reading] for row in rows for reading in natural_noise.READINGS} == {""}


def test_a_pair_that_several_methods_suspect_is_shown_once(sheets):
    _, folder, rows = sheets
    assert len({(row["number"], row["name"]) for row in rows}) == len({row["name"] for row in rows}) == 5
    assert {int(row["number"]) for row in rows} == set(range(5))
    assert [path.name for path in folder.glob("*.png")] == ["sheet-00.png"]


def test_the_summary_gives_each_verdicts_share_by_method_and_how_far_the_readings_agree(tmp_path):
    path = tmp_path / "list.csv"
    verdicts = ["1,clip_score,wrong,wrong", "2,clip_score,wrong,right", "3,clip_score,right,right"]
    path.write_text("\n".join(["number,method,first,second", *verdicts, "1,random,wrong,wrong"]))
    rows = natural_noise.read_verdicts(path)
    table = natural_noise.verdict_table(rows)
    assert list(table.columns) == ["method", "pairs", *natural_noise.VERDICTS]
    (method, pairs, *shares), _ = table.rows
    assert (method, pairs) == ("clip_score", 3)
    half = [0.5, pytest.approx((0.5 / 3 / 3) ** 0.5)]  # of 1, ½ and 0
    assert shares == [half, [0.0, 0.0], half, [0.0, 0.0]]
    # Both call one pair of three wrong or right by chance as often as 1/3 · 2/3 + 2/3 · 1/3 says.
    assert natural_noise.agreement(rows) == pytest.approx(
        {"pairs": 3, "agreement": 2 / 3, "kappa": (2 / 3 - 4 / 9) / (1 - 4 / 9)}
    )
    path.write_text("number,method,first,second\n1,clip_score,right,maybe\n")
    with pytest.raises(SystemExit, match="not 'maybe'"):
        natural_noise.read_verdicts(path)


def test_scores_are_held_against_what_both_readings_say(tmp_path):
    path = tmp_path / "list.csv"
    verdicts = [
        "0,a,m,empty,empty", "1,b,m,wrong,wrong", "2,c,random,right,right", "3,d,random,empty,empty",
        "4,e,random,empty,right", "1,b,random,wrong,wrong",
    ]  # fmt: skip
    path.write_text("\n".join(["number,name,method,first,second", *verdicts]))
    rows = natural_noise.read_verdicts(path)
    scores = {"score": {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}}
    figures = natural_noise.precision(rows, scores)
    assert figures["all.empty.pairs"], figures["all.empty.such"] == (5, 2)
    assert figures["all.empty.score"] == pytest.approx((1 + 2 / 4) / 2)
    assert figures["all.wrong.score"] == pytest.approx(1 / 2)
    assert figures["random.wrong.score"] == pytest.approx(1)
    assert figures["random.empty.score"] == pytest.approx(1 / 3)
    assert 0 < figures["all.empty.score_se"] < 0.5
    table = natural_noise.precision_table(figures, ["score"])
    assert [row[:4] for row in table.rows] == [
        ["empty", "all", 5, 2], ["wrong", "all", 5, 1], ["empty", "random", 4, 1], ["wrong", "random", 4, 1]
    ]  # fmt: skip
