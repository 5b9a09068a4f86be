"""Every import of the package leads downward through the rooms, and no file or function outgrows its room.

All imports are read from the sources, those inside functions and under ``TYPE_CHECKING`` included.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "fiftyone_ecif"
NAME = PACKAGE.name

FLOORS = (
    ("cache", "notes"),
    ("core",),
    ("models",),
    ("features",),
    ("engine",),
    ("attribution",),
    ("detect",),
    ("shift", "preference", "interop"),
    ("dataset",),
    ("",),  # fiftyone_ecif itself, whose stub says what it hands on
    ("plugin",),
    ("command_line",),
)
"""Rooms from the ground up; rooms of one floor do not import each other."""

LEVELS = {
    "dataset": (
        (
            "samples",
            "tags",
            "fields",
            "checks",
            "pairs",
            "progress",
            "rows",
            "texts",
            "arguments",
            "parameters",
            "device",
            "chosen_scope",
            "caption_lists",
        ),
        ("run",),
        ("ask", "repair"),
        ("summary", "ranked_pairs", "results"),
        ("compute", "shift", "preference"),
    ),
    "plugin": (
        ("operator", "forms", "background", "jobs", "requirements", "descriptions", "run_operator", "sample_sets"),
        ("operators", "panel"),
    ),
}
"""Parts of a room from the ground up; parts of one level may import each other. The room's own file is above them."""

COMPATIBILITY = {"curation.runs": {"dataset.run.config"}, "curation": set()}
"""Modules that stand outside the rooms, since stored records name them, and all that they may import."""

FILE_LINES, FUNCTION_LINES = 400, 60
MEASURED = ("fiftyone_ecif", "benchmarks", "examples", "tests", "scripts")


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below the package, which itself is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> set[str]:
    """What a module imports of the package."""
    path = MODULES[module].with_suffix(".pyi") if module == "" else MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    return imports_in(path.read_text(), package) - {module}


def imports_in(source: str, package: str) -> set[str]:
    """The modules of the package that a source in one of its folders imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {_below(alias.name) for alias in node.names if _is_own(alias.name)}
        elif isinstance(node, ast.ImportFrom) and (node.level or _is_own(node.module)):
            base = _relative(package, node) if node.level else _below(node.module)
            inner = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in MODULES else base for name in inner}
    return found


def _relative(package: str, node: ast.ImportFrom) -> str:
    parts = package.split(".") if package else []
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _is_own(dotted: str) -> bool:
    return dotted == NAME or dotted.startswith(f"{NAME}.")


def _below(dotted: str) -> str:
    return dotted.removeprefix(NAME).lstrip(".")


IMPORTS = {module: imports_of(module) for module in MODULES}


def others_of(module: str) -> set[str]:
    """The packages of others that a module imports, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def height(module: str) -> tuple[int, int]:
    """The floor of a module's room, and the level of its part inside the room."""
    room, _, rest = module.partition(".")
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    levels, part = LEVELS.get(room, ()), rest.partition(".")[0]
    level = next((number for number, parts in enumerate(levels) if part in parts), len(levels))
    return floor, level


def leads_down(module: str, imported: str) -> bool:
    """Whether an import is one that the order of rooms and parts allows."""
    if module in COMPATIBILITY:
        return imported in COMPATIBILITY[module]
    if imported in COMPATIBILITY:
        return False
    (floor, level), (its_floor, its_level) = height(module), height(imported)
    same_room = module.partition(".")[0] == imported.partition(".")[0]
    return its_floor < floor or (same_room and its_level <= level)


def test_every_way_to_import_is_seen():
    source = """
from __future__ import annotations
import torch, fiftyone_ecif.cache
from fiftyone_ecif.core import Head, head
from . import embedding
from ..models.loading import load_model
if TYPE_CHECKING:
    from fiftyone_ecif.dataset.results import InfluenceResults
def late():
    import fiftyone_ecif.plugin.operator as operator
    from fiftyone_ecif import load_results
"""
    expected = {"", "cache", "core", "core.head", "features.embedding", "models.loading", "dataset.results"}
    assert imports_in(source, "features") == {*expected, "plugin.operator"}


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_every_module_has_its_room():
    for module in MODULES:
        if module not in COMPATIBILITY:
            assert height(module)
            room, _, rest = module.partition(".")
            part = rest.partition(".")[0]
            assert not part or room not in LEVELS or any(part in parts for parts in LEVELS[room]), module


def test_imports_lead_downward():
    upward = {
        (module, imported) for module in MODULES for imported in IMPORTS[module] if not leads_down(module, imported)
    }
    assert upward == set()


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first of them once more at the end; empty if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_imports_run_in_a_circle():
    assert circle(IMPORTS) == []
    assert circle({**IMPORTS, "core": IMPORTS["core"] | {"plugin"}, "plugin": IMPORTS["plugin"] | {"core"}})


@pytest.mark.parametrize(
    ("room", "strangers"),
    [
        ("core", {"fiftyone", "open_clip", "transformers", "timm", "peft"}),
        ("models", {"fiftyone"}),
        ("features", {"fiftyone"}),
        ("attribution", {"fiftyone"}),
        ("detect", {"fiftyone"}),
        ("shift", {"fiftyone"}),
        ("preference", {"fiftyone"}),
    ],
)
def test_the_lower_rooms_know_no_strangers(room, strangers):
    inside = [module for module in MODULES if module.partition(".")[0] == room]
    assert inside
    assert {module: others_of(module) & strangers for module in inside if others_of(module) & strangers} == {}


def too_long() -> Iterator[str]:
    """Files and functions with more lines than a reader can keep in mind."""
    for path in sorted(path for folder in MEASURED for path in (REPOSITORY / folder).rglob("*.py")):
        name, source = path.relative_to(REPOSITORY).as_posix(), path.read_text()
        if source.count("\n") > FILE_LINES:
            yield name
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        for node in (each for each in ast.walk(ast.parse(source)) if isinstance(each, functions)):
            if node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
                yield f"{name}:{node.name}"


def test_files_and_functions_are_short():
    assert sorted(too_long()) == []
