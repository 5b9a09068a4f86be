"""Seconds of the panel in the App, in headless Chromium: until it is open, and until a selection changes the grid.

Run it with ``python -m benchmarks.speed.app --help``. Beside the panel stands what FiftyOne itself takes: for a Python
panel that draws forty bars and nothing else, and for a view that is set from Python.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table
from tests.conftest import own_fiftyone
from tests.support.app import chromium, find_chromium, open_grid, served_app
from tests.support.panel import PanelPage

MODULE = "benchmarks.speed.app"
EVENTS = {
    "open": "the panel opens",
    "open_plain": "a Python panel that draws forty bars and nothing else",
    "select": "a selection on the histogram changes the grid",
    "set_view": "the same view set from Python, with the bare panel open",
}
"""What a table calls each event."""
RUN_KEY = "made_up"
WRONG = 0.1
"""Share of the made-up pairs with a high probability of being misaligned."""
CALM_MILLISECONDS = 3000
"""How long a page is left alone before it is used, as a person would who looks first."""

PLAIN_PANEL = """import fiftyone.operators as foo
import fiftyone.operators.types as types

class PlainPanel(foo.Panel):
    config = foo.PanelConfig(name="plain_panel", label="Plain")

    def on_load(self, ctx):
        ctx.panel.set_data("bars", [{"type": "bar", "x": list(range(40)), "y": list(range(40))}])

    def render(self, ctx):
        root = types.Object()
        root.plot("bars", height=260)
        return types.Property(root)

def register(plugin):
    plugin.register(PlainPanel)
"""
"""A Python panel that does nothing but draw a histogram."""
MARK = """() => {
    window.began = performance.now()
    window.addEventListener('pointerup', () => { window.began = performance.now() }, true)
    window.count = document.querySelector('[data-cy="entry-counts"]').textContent
    window.thumbnail = document.querySelector('[data-cy="looker"]')
}"""
"""What is done next begins now, or when the pointer is released."""
GRID_CHANGED = """document.querySelector('[data-cy="entry-counts"]').textContent != window.count
    && !window.thumbnail.isConnected && document.querySelector('[data-cy="looker"]') != null"""
BARS = ".js-plotly-plot g.point"


def made_up_dataset(samples: int, picture: Path) -> Any:
    """A dataset of one picture many times, with a finished run of made-up scores; not persistent.

    Args:
        samples: how many
        picture: is written there

    Returns:
        the fiftyone.Dataset
    """
    import fiftyone as fo
    import torch
    from PIL import Image

    from fiftyone_ecif.attribution import InfluenceOutcome, PairScores
    from fiftyone_ecif.dataset.run.config import EcifConfig
    from fiftyone_ecif.dataset.run.store import score_columns, write_run
    from fiftyone_ecif.detect import Misalignment

    Image.new("RGB", (32, 32), "gray").save(picture)
    dataset = fo.Dataset()
    size = fo.ImageMetadata(width=32, height=32)
    dataset.add_samples(
        (fo.Sample(filepath=str(picture), metadata=size, caption=f"caption {row}") for row in range(samples)),
        num_samples=samples,
    )
    random = np.random.default_rng(0)
    probability = np.where(random.random(samples) < WRONG, random.beta(4, 2, samples), random.beta(1, 12, samples))
    scores = PairScores(*torch.randn(5, samples, generator=torch.Generator().manual_seed(0)))
    outcome = InfluenceOutcome(scores, [], torch.zeros(1, 1), [])
    ids = dataset.values("id")
    suspected = [id for id, each in zip(ids, probability) if each >= 0.5]
    suggestions = {id: fo.Classification(label="a better caption", confidence=0.5) for id in suspected}
    columns = score_columns(outcome, Misalignment(probability, WRONG, (WRONG, WRONG), {}), ids, suggestions)
    config = EcifConfig(text_field="caption", target=None, rounds=4)
    record: dict[str, dict] = {"health": {}, "timings": {}, "skipped": {}}
    write_run(dataset, RUN_KEY, config, columns, record | {"warnings": []}, {}, overwrite=False)
    return dataset


def processor_seconds() -> float:
    """Processor seconds of all processes that this one has started: browser, App's server and database."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def timed(page: Any, act: Callable[[], object], condition: str) -> tuple[float, float]:
    """Act, and wait until a condition holds in the page; returns seconds by its clock, and of the processor."""
    page.evaluate(MARK)
    processor = processor_seconds()
    act()
    milliseconds = page.wait_for_function(f"() => {condition} && performance.now() - window.began").json_value()
    return milliseconds / 1000, processor_seconds() - processor


def use_panel(page: Any, name: str, change: Callable[[], object]) -> list[tuple[float, float]]:
    """Open a panel in a calm page, then change the grid; returns what :func:`timed` returns, of both."""
    page.wait_for_timeout(CALM_MILLISECONDS)
    page.get_by_test_id("new-panel-btn").first.click()
    option = page.get_by_test_id(f"new-panel-option-{name}")
    option.wait_for()
    drawn = f"document.querySelector('[data-cy=\"panel-content-{name}\"] {BARS}') != null"
    opened = timed(page, option.click, drawn)
    page.wait_for_timeout(CALM_MILLISECONDS)
    return [opened, timed(page, change, GRID_CHANGED)]


def drag_over_bars(page: Any) -> None:
    """Select on the panel's histogram what ``measure`` also sets as a view."""
    PanelPage(page, is_open=True).drag(0.6, 0.99)


def measure(browser: Any, session: Any, dataset: Any, repeats: int) -> dict[str, list[float]]:
    """Time both panels in fresh pages, in turn.

    Args:
        browser: Chromium
        session: of the App
        dataset: of :func:`made_up_dataset`
        repeats: of each

    Returns:
        seconds of each repeat: ``open``, ``select`` and FiftyOne's own ``open_plain`` and ``set_view``, by the clock
        and, with ``_cpu``, of the processor
    """
    score = f"{RUN_KEY}_misalignment"
    view = dataset.match({score: {"$gte": 0.6}}).sort_by(score, reverse=True)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for panel, names in (("ecif_panel", ("open", "select")), ("plain_panel", ("open_plain", "set_view"))):
            page = open_grid(browser, session, dataset, width=1280, height=800)
            changes = {
                "ecif_panel": partial(drag_over_bars, page),
                "plain_panel": partial(setattr, session, "view", view),
            }
            for name, (clock, processor) in zip(names, use_panel(page, panel, changes[panel])):
                found[name].append(clock)
                found[f"{name}_cpu"].append(processor)
            page.context.close()
    return found


@dataclass(frozen=True)
class AppSpeed:
    """Measure the seconds of the panel in the App, in headless Chromium.

    Args:
        samples: sizes of the made-up datasets
        repeats: repetitions of every timing; the median is reported
        json: the result is written to this file
    """

    samples: tuple[int, ...] = (10_000, 100_000)
    repeats: int = 5
    json: Path | None = None


def main() -> None:
    """Measure, print the table, write the figures."""
    asked = ask(AppSpeed, MODULE)
    executable = find_chromium()
    if executable is None:
        raise SystemExit("No Chromium was found; on Debian: apt-get install chromium fonts-dejavu-core")
    root = own_fiftyone()
    plain = root / "plugins" / "plain"
    plain.mkdir()
    (plain / "fiftyone.yml").write_text('name: "@ecif/plain"\npanels:\n  - plain_panel\n')
    (plain / "__init__.py").write_text(PLAIN_PANEL)

    figures: dict[str, float] = {}
    with served_app(root / "server.log") as session, chromium(executable) as browser:
        for samples in asked.samples:
            dataset = made_up_dataset(samples, root / "picture.png")
            for name, seconds in measure(browser, session, dataset, asked.repeats).items():
                median, low, high = float(np.median(seconds)), min(seconds), max(seconds)
                figures |= {f"{name}_{samples}": median, f"{name}_{samples}_low": low, f"{name}_{samples}_high": high}
            session.dataset = None
            dataset.delete()
    figures["load"] = os.getloadavg()[1]
    table = panel_table(figures, asked.samples)
    print(f"{table.console()}\nload over five minutes: {figures['load']:.1f} on {os.cpu_count()} cores")
    write_result(asked.json, MODULE, vars(asked), figures, {"panel": table})


def panel_table(figures: dict[str, float], samples: Sequence[int]) -> Table:
    """Median seconds by the clock with the least and the most, a column for each size of the dataset."""

    def text(name: str) -> str:
        return f"{figures[name]:.1f} ({figures[f'{name}_low']:.1f} to {figures[f'{name}_high']:.1f})"

    return Table.of(
        dict.fromkeys(["", *(f"{count:,} samples" for count in samples)]),
        [[label, *(text(f"{event}_{count}") for count in samples)] for event, label in EVENTS.items()],
    )


if __name__ == "__main__":
    main()
