"""The console script."""

import pytest

from fiftyone_ecif import command_line
from tests.conftest import REPOSITORY


def test_install_plugin_links_the_checkout_so_that_fiftyone_finds_it(tmp_path, monkeypatch, capsys):
    import fiftyone as fo
    import fiftyone.plugins as fop

    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    assert command_line.main(["install-plugin"]) == 0
    assert command_line.main(["install-plugin"]) == 0  # a second time, in place of the first
    link = tmp_path / "plugins" / "fiftyone-ecif"
    assert str(link) in capsys.readouterr().out
    assert link.resolve() == REPOSITORY
    assert [plugin.name for plugin in fop.list_plugins(builtin=False)] == ["@ecif/ecif"]
    assert [path.name for path in link.parent.iterdir()] == [link.name]


def test_install_plugin_leaves_a_folder_that_is_no_link_alone(tmp_path, monkeypatch, capsys):
    import fiftyone as fo

    (tmp_path / "fiftyone-ecif").mkdir()
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    assert command_line.main(["install-plugin"]) == 1
    assert "move it away" in capsys.readouterr().err
    assert not (tmp_path / "fiftyone-ecif").is_symlink()


def test_a_wheel_carries_the_plugin_folder(tmp_path, monkeypatch):
    settings = (REPOSITORY / "pyproject.toml").read_text()
    for source in ("fiftyone.yml", "plugin.py", "assets"):
        assert f'"{source}" = "fiftyone_ecif/plugin/{source}"' in settings
        assert (REPOSITORY / source).exists()

    package = tmp_path / "fiftyone_ecif"
    (package / "plugin").mkdir(parents=True)
    monkeypatch.setattr(command_line, "PACKAGE", package)
    with pytest.raises(FileNotFoundError):
        command_line.plugin_folder()
    (package / "plugin" / "fiftyone.yml").touch()
    assert command_line.plugin_folder() == package / "plugin"
