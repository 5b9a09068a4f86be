"""The tables of the documents, generated between markers from the result files.

A marker names a result file, a table in it and, where only a part of the table is shown, its rows and columns::

    <!-- table: fidelity/head methods | rows: ECIF exact, TracIn | columns: LDS, slope -->
    …
    <!-- end of table -->
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from benchmarks.report.results import RESULTS, read_table

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
END = "<!-- end of table -->"
MARKED = re.compile(
    r"(<!-- table: (?P<asked>[^>]*?) -->\n)(?P<table>(?:(?!<!-- table:).)*?)" + re.escape(END), re.DOTALL
)


def with_tables(text: str, results: Path = RESULTS) -> str:
    """A document's text with the tables between its markers generated anew.

    Args:
        text: in Markdown
        results: folder of the result files

    Raises:
        ValueError: if a marker has no end, or asks for something that no result holds
    """
    if text.count("<!-- table:") != len(MARKED.findall(text)):
        raise ValueError(f"Every '<!-- table: … -->' needs a line '{END}' after its table.")
    return MARKED.sub(lambda found: f"{found[1]}{marked_table(found['asked'], results)}\n{END}", text)


def marked_table(asked: str, results: Path = RESULTS) -> str:
    """The table that a marker asks for, in Markdown."""
    source, *parts = (part.strip() for part in asked.split("|"))
    name, table = source.split(maxsplit=1)
    chosen: dict[str, list[str]] = {}
    for part in parts:
        kind, _, names = part.partition(":")
        chosen[kind] = [name.strip() for name in names.split(",")]
    if unknown := chosen.keys() - {"rows", "columns"}:
        raise ValueError(f"A marker chooses rows or columns, not {', '.join(unknown)}.")
    return read_table(name, table, results).select(**chosen).markdown()


def update(document: Path, results: Path = RESULTS) -> bool:
    """Generate a document's tables anew, all or none; returns whether the file has changed."""
    before = document.read_text()
    after = with_tables(before, results)
    if after == before:
        return False
    part = document.with_name(document.name + ".part")
    part.write_text(after)
    os.replace(part, document)
    return True
