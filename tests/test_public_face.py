"""What ``import fiftyone_ecif`` offers: all of it lazily, with its types, and the same at run time as in the stub."""

import ast
import importlib
import subprocess
import sys

import fiftyone_ecif
from tests.conftest import REPOSITORY

STUB = REPOSITORY / "fiftyone_ecif" / "__init__.pyi"
PROMISED = {
    *("compute_influence", "refresh_run", "load_results", "list_runs", "rename_run", "delete_run", "find_failures"),
    *(
        "tag_misaligned",
        "mark_as_fine",
        "mark_as_empty",
        "reject",
        "trusted",
        "to_review",
        "apply_suggestions",
        "choose_suggestion",
        "audit_sample",
        "NoiseRate",
        "undo_fixes",
        "fixed",
    ),
    *("cleaned", "export_cleaned", "InfluenceResults", "Query", "Trace", "TraceEffect", "ErrorSlice"),
    *("RemovalEffect", "RemovalCurve", "FixReport", "wrap_model", "load_model", "ContrastiveModel"),
    *("one_caption_per_sample", "Tags", "set_tags", "tags_of"),
    *("compute_shift", "load_shift", "list_shifts", "ShiftResults", "ShiftScenario", "ShiftDirection"),
    *("build_preferences", "load_preferences", "list_preferences", "PreferenceResults", "PreferencePair"),
}


def in_stub() -> dict[str, str]:
    """The module that each name of the stub comes from."""
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: f"{'.' * node.level}{node.module}" for node in imports for alias in node.names}


def test_every_promised_name_is_offered():
    assert set(in_stub()) == set(fiftyone_ecif.__all__) == set(dir(fiftyone_ecif)) == PROMISED


def test_names_are_those_that_the_stub_says():
    for name, module in in_stub().items():
        assert getattr(fiftyone_ecif, name) is getattr(importlib.import_module(module, "fiftyone_ecif"), name)


def test_types_are_shipped():
    """PEP 561: type checkers of others read the package's types where this file is."""
    assert STUB.with_name("py.typed").is_file()


def test_importing_the_package_alone_loads_nothing_heavy():
    program = "import sys, fiftyone_ecif; print(sorted({'torch', 'fiftyone', 'open_clip', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
