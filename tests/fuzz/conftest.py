"""FiftyOne is imported when it is used: the tests' own database is not there yet when this file is read."""

import pytest


@pytest.fixture(scope="session")
def scene_once(pair_rows, tmp_path_factory):
    from tests.fuzz.scene import Scene

    return Scene([path for path, *_ in pair_rows[::5]], tmp_path_factory.mktemp("written"))


@pytest.fixture
def scene(scene_once, tmp_path, monkeypatch):
    """A :class:`Scene`; what is written to relative paths and into the user's folder goes into the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return scene_once


def pytest_terminal_summary(terminalreporter):
    """Say how many inputs were tried, and what came of them."""
    from tests.fuzz.inputs import tried

    for kind in sorted({kind for kind, _ in tried}):
        counts = {outcome: tried[kind, outcome] for outcome in ("accepted", "refused", "undocumented")}
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"{kind}: {sum(counts.values()):,} inputs, {said}")
