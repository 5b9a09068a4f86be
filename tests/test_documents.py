"""What the documents point at is there: files and headings behind links, paths, commands and targets of make."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("benchmarks/*.md")])
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
COMMAND = re.compile(r"python -m ((?:benchmarks|examples|fiftyone_ecif)(?:\.\w+)*)")
CODE = re.compile(
    r"(?<!`)(`+)(?!`)(?P<code>(?:(?!\n\n).)+?)(?<!`)\1(?!`)|^ {4}(?P<line>[^\n]+)$", re.DOTALL | re.MULTILINE
)
PATH = re.compile(r"(?:[\w.-]+/)+[\w-]+\.(?:py|pyi|md|csv|json|png|toml|yml)|(?:[\w.-]+/)+")
TARGET = re.compile(r"make ([a-z-]+)(?:\s|$)")
PARENTS = ("", "docs", "benchmarks", "fiftyone_ecif", "tests")
"""Folders that a document's paths may begin in."""
MADE = ("shots/",)
"""Folders that are made by what the documents speak of."""


def plain(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", plain(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Relative links of a document that lead to no file, or to no heading of it."""
    broken = []
    for found in LINK.finditer(plain(document.read_text())):
        name, _, anchor = found["target"].partition("#")
        if "://" in name:
            continue
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(found["target"])
    return broken


def code_in(text: str) -> list[str]:
    """Code inside of a document's lines, and its indented lines of code."""
    return [found["code"] or found["line"].strip() for found in CODE.finditer(plain(text))]


def missing_paths(text: str) -> list[str]:
    """Paths of the repository, in code, that are not there."""
    paths = [code for code in code_in(text) if PATH.fullmatch(code) and code not in MADE]
    return [path for path in paths if not any((REPOSITORY / parent / path).exists() for parent in PARENTS)]


def missing_modules(text: str) -> list[str]:
    """Modules of the repository that cannot be run with ``python -m``."""
    places = {module: REPOSITORY.joinpath(*module.split(".")) for module in COMMAND.findall(text)}
    return [
        module
        for module, place in places.items()
        if not (place.with_suffix(".py").is_file() or (place / "__main__.py").is_file())
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_what_a_document_points_at_is_there(document):
    text = document.read_text()
    assert broken_links(document) == []
    assert missing_modules(text) == []
    assert missing_paths(text) == []


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_targets_of_make_exist():
    code = [code for document in DOCUMENTS for code in code_in(document.read_text())]
    targets = {found[1] for each in code if (found := TARGET.match(each))}
    assert {"demo", "test", "lint", "tables", "bench-fidelity"} <= targets
    asked = subprocess.run(["make", "--dry-run", *sorted(targets)], cwd=REPOSITORY, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr


def test_a_broken_document_is_noticed(tmp_path):
    document = tmp_path / "document.md"
    document.write_text(
        "# One heading: two\n[a](document.md#one-heading-two) [b](#none) [c](none.md) [d](https://e.org/f)\n"
    )
    assert broken_links(document) == ["#none", "none.md"]
    assert missing_modules("`python -m benchmarks.fidelity` and `python -m benchmarks.none`") == ["benchmarks.none"]
    assert missing_paths("`core/losses.py`, `benchmarks/data/`, `core/none.py`, `none/`") == ["core/none.py", "none/"]
