"""The plugin as FiftyOne finds it."""

import re
import subprocess
import sys
from types import SimpleNamespace

import fiftyone.operators as foo
import fiftyone.plugins as fop
import pytest
from fiftyone.operators import OperatorRegistry

from fiftyone_ecif.plugin import NAME, OPERATORS, PANELS
from fiftyone_ecif.plugin.operator import GRID, MODAL
from fiftyone_ecif.plugin.operators.repair import ApplySuggestions, MarkAsFine, UndoFixes
from fiftyone_ecif.plugin.operators.trace import TraceQuery
from tests.conftest import REPOSITORY


def test_every_operator_is_listed_in_the_definition_and_registered():
    names, panels = ([each().config.name for each in kind] for kind in (OPERATORS, PANELS))
    definition = fop.get_plugin(NAME)
    assert definition.operators == names + panels  # FiftyOne counts panels among them
    uris = {f"{NAME}/{name}" for name in names + panels}
    assert {operator.uri for operator in foo.list_operators(builtin=False)} == uris
    assert OperatorRegistry().list_errors() == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_an_icon_and_says_what_it_does(operator):
    operator = operator()
    assert (REPOSITORY / operator.config.icon.lstrip("/")).is_file()
    assert operator.config.label.startswith("ECIF: ") and operator.config.description
    placement = operator.resolve_placement(SimpleNamespace(selected=[], current_sample=None))
    assert placement is None or placement.view.label.endswith("(ECIF)")


def test_what_repairs_a_sample_stands_beside_it_and_above_the_grid_while_samples_are_selected():
    selecting = SimpleNamespace(selected=["id"], current_sample=None)
    looking = SimpleNamespace(selected=["id"], current_sample="id")
    for operator in (ApplySuggestions(), MarkAsFine(), UndoFixes(), TraceQuery()):
        assert operator.resolve_placement(selecting).place == GRID
        assert operator.resolve_placement(looking).place == MODAL


LOOKING = {
    *("show_misaligned", "show_vague", "show_harmful", "show_valuable", "estimate_removal", "forecast_removal"),
}
DESTRUCTIVE = {
    "compute_influence", "compute_shift", "build_preferences", "export_preferences", "apply_suggestions", "undo_fixes",
    "export_cleaned", "export_checkpoint", "manage_runs", "ecif_panel",
}  # fmt: skip


@pytest.mark.parametrize("kind", [*OPERATORS, *PANELS])
def test_every_operator_and_panel_states_what_it_can_do_to_the_data(kind):
    name, levels = kind().config.name, ("low", "medium", "high")
    assert kind.risk in levels
    assert (kind.risk == "low") == (name in LOOKING)
    assert (kind.risk == "high") == (name in DESTRUCTIVE)
    if hasattr(foo.Operator, "risk_level"):  # since FiftyOne 1.16
        assert kind().risk_level.value == kind.risk


def test_the_lowest_fiftyone_is_the_same_in_both_places():
    (needed,) = re.findall(r'"fiftyone(>=[^"]+)"', (REPOSITORY / "pyproject.toml").read_text())
    (admitted,) = re.findall(r'version: "(.+)"', (REPOSITORY / "fiftyone.yml").read_text())
    assert needed == admitted


def test_loading_the_plugin_leaves_torch_and_open_clip_out():
    program = "import sys, fiftyone_ecif.plugin; print(sorted({'torch', 'open_clip'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_where_packages_are_missing_every_operator_says_which_and_how_to_install_them():
    """In a process that cannot import them, as after a download without an install."""
    program = """
import importlib.abc, sys
MISSING = ("torch", "open_clip", "safetensors", "filelock")
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
import importlib.util, types, fiftyone.operators
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in MISSING else found(name)
sys.meta_path.insert(0, Missing())
from fiftyone_ecif.plugin import OPERATORS, register
class Plugin(list):
    register = list.append
registered = Plugin()
register(registered)
for operator in registered[: len(OPERATORS)]:
    (field,) = operator().resolve_input(types.SimpleNamespace(params={})).type.properties.values()
    assert field.invalid and "torch, open_clip_torch, safetensors, filelock" in field.error_message, field
    assert "--install" in field.error_message and "torch" in operator().config.label
print(len(registered))
"""
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == str(len(OPERATORS) + len(PANELS))


def test_a_downloaded_copy_works_without_the_package_installed(tmp_path):
    program = (
        "import runpy, sys; "
        f"sys.path[:] = [path for path in sys.path if path != {str(REPOSITORY)!r}]; "
        f"entry = runpy.run_path({str(REPOSITORY / 'plugin.py')!r}); print(entry['register'].__module__)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "fiftyone_ecif.plugin"


def test_the_plugins_requirements_are_the_packages():
    named = [line for line in (REPOSITORY / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    listed = (REPOSITORY / "pyproject.toml").read_text().split("\ndependencies = [")[1].split("]")[0]
    packages = [line.partition("#")[0].strip(' ",') for line in listed.strip().splitlines()]
    assert [package for package in packages if package and "fiftyone" not in package] == named


def test_where_an_operator_is_not_listed_it_is_not_registered(monkeypatch):
    """What SECURITY.md says of how to leave some out."""
    definition = fop.get_plugin(NAME)
    assert definition.can_register_operator("show_harmful")
    monkeypatch.setitem(definition._metadata, "operators", ["show_misaligned"])
    assert not definition.can_register_operator("show_harmful")
