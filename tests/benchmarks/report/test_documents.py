"""Every table of figures in the documents is what the result files say."""

import json
import re

import pytest

from benchmarks.report.documents import DOCUMENTS, END, MARKED, ROOT, update, with_tables
from benchmarks.report.results import RESULTS, result_text
from benchmarks.report.table import Table

TABLE = Table.of({"": None, "LDS": 3, "slope": 2}, [["ours", [0.9, 0.01], 1.0], ["theirs", None, 0.5]])


@pytest.fixture
def results(tmp_path):
    (tmp_path / "fidelity").mkdir()
    (tmp_path / "fidelity" / "head.json").write_text(result_text({"tables": {"methods": TABLE.to_json()}}))
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_up_to_date_with_the_results(document):
    text = document.read_text()
    assert with_tables(text) == text, "run python -m benchmarks.report"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_table_of_figures_stands_outside_of_markers(document):
    by_hand = MARKED.sub("", document.read_text())
    assert not [line for line in by_hand.splitlines() if re.search(r"^\|.*\|[ *]*[-+]?\d*\.\d|^\|.*±", line)]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_where_it_came_from(path):
    content = json.loads(path.read_text())
    assert content["command"] and content["settings"] and content["machine"]
    assert content["commit"] or re.search(r"docs/\w+\.md|README\.md as of commit \w+", content["transcribed"])
    for table in map(Table.from_json, content["tables"].values()):
        assert table.rows and {len(row) for row in table.rows} == {len(table.columns)} == {len(table.digits)}


def test_every_result_is_shown_by_a_document_and_named_by_the_list_of_benchmarks():
    shown = {found["asked"].split()[0] for path in DOCUMENTS for found in MARKED.finditer(path.read_text())}
    stored = {str(path.relative_to(RESULTS).with_suffix("")) for path in RESULTS.rglob("*.json")}
    assert shown == stored
    listed = (ROOT / "benchmarks" / "README.md").read_text()
    assert not [name for name in stored if f"`{name}`" not in listed]


def test_a_table_goes_between_its_markers_and_nothing_else_changes(results, tmp_path):
    document = tmp_path / "document.md"
    marker = "<!-- table: fidelity/head methods | rows: theirs, ours | columns: slope -->"
    document.write_text(f"Before.\n{marker}\n| former |\n{END}\n\nAfter.\n")
    assert update(document, results)
    lines = document.read_text().splitlines()
    assert lines[:2] == ["Before.", marker] and lines[-3:] == [END, "", "After."]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-3]]
    assert [rows[0], *rows[2:]] == [["", "slope"], ["theirs", "0.50"], ["ours", "1.00"]]
    assert not update(document, results)


@pytest.mark.parametrize(
    ("marked", "complaint"),
    [
        ("<!-- table: fidelity/head methods -->\n", "needs a line"),
        (f"<!-- table: fidelity/lora methods -->\n{END}", "no result"),
        (f"<!-- table: fidelity/head edits -->\n{END}", "no table 'edits'; it has methods"),
        (f"<!-- table: fidelity/head methods | rows: nobody -->\n{END}", "no nobody; it has ours, theirs"),
        (f"<!-- table: fidelity/head methods | lines: ours -->\n{END}", "rows or columns, not lines"),
    ],
)
def test_a_marker_that_asks_for_nothing_there_is_a_clear_error(results, marked, complaint):
    with pytest.raises(ValueError, match=complaint):
        with_tables(marked, results)
