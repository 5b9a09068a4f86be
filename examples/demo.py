"""The main job, end to end, on real data: find the wrong captions with a model trained here, show them.

Run it with ``make demo``, or ``python -m examples.demo --help``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")  # no word about the database's version

import fiftyone as fo
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import fiftyone_ecif as ecif
from benchmarks.data import digits, fashion_mnist, noise, openclipart
from benchmarks.data.debian import SourceUnavailable
from benchmarks.data.pairs import PairTable
from benchmarks.methods.baselines import batch_loss, clip_score
from benchmarks.models.lite0_minilm import lite0_minilm
from benchmarks.models.training import Recipe, trained_checkpoint
from benchmarks.report.command import ask
from benchmarks.report.results import write_json
from benchmarks.report.sheet import contact_sheet
from benchmarks.report.table import Cell, Table
from fiftyone_ecif.features import cache_folder
from fiftyone_ecif.models import load_model

DATASET_NAME = "ecif-demo"
MADE_BY_DEMO = "made_by_fiftyone_ecif_demo"  # in dataset.info: only such a dataset is ever replaced
RUN_KEY = "ecif"
DataName = Literal["fashion-mnist", "digits", "openclipart"]


@dataclass(frozen=True)
class DemoData:
    """One data set of the demo.

    Args:
        load: as :func:`benchmarks.data.digits.load`
        base: number of its training pairs that stay clean, and that the model is trained on in place of the noisy ones
        noise_rate: share of the other training pairs that get a wrong caption
    """

    load: Callable[..., PairTable]
    base: int = 0
    noise_rate: float = 0.2


DATA: dict[DataName, DemoData] = {
    "fashion-mnist": DemoData(partial(fashion_mnist.load, train=10_000, heldout=2_000)),
    "digits": DemoData(digits.load),
    "openclipart": DemoData(partial(openclipart.load, train=3_250, heldout=400), base=1_600, noise_rate=0.1),
}
SEED = 0
SHOWN = 10  # suspects in the report
PICTURED = 20  # suspects in the sheet of pictures
PER_ROW = 5  # pictures side by side
INSPECTED = 100  # suspects whose precision is reported
SCORES = {
    "misalignment": f"{RUN_KEY}_misalignment",
    "positive": "influence, positive role alone",
    "negative": "influence, negative role alone",
    "clip_score": "CLIP score",
    "batch_loss": "batch loss",
}
"""What the report calls each score."""

Seconds = dict[str, float]


@dataclass(frozen=True)
class Demo:
    """Train a model, find wrong captions with it, show them.

    Args:
        data: data set
        json: the report's figures are written to this file
        app: whether the App is opened after the report
    """

    data: DataName = "fashion-mnist"
    json: Path | None = None
    app: bool = True


def main() -> None:
    """Run the steps, print the report, open the App."""
    asked = ask(Demo, "examples.demo")
    # The root logger stays silent: FiftyOne's progress bars have handlers of their own and would be shown twice.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("benchmarks").addHandler(logging.StreamHandler())
    logging.getLogger("benchmarks").setLevel(logging.INFO)

    seconds: Seconds = {}
    with timed(seconds, "data"):
        table, planted = load_pairs(asked.data)
    with timed(seconds, "model"):
        model, checkpoint = train_model(table)
    with timed(seconds, "dataset"):
        dataset = make_dataset(table, planted)
    train_view = dataset.match_tags("train")
    with timed(seconds, "influence"):
        results = ecif.compute_influence(
            train_view,
            text_field="caption",
            target=dataset.match_tags("heldout"),
            run_key=RUN_KEY,
            model=model,
            pretrained=checkpoint,
            scope="head",
            seed=SEED,
            overwrite=True,
            progress=True,
        )
    suspects = results.misaligned()
    logit_scale = load_model(model, checkpoint).head().logit_scale.exp().item()
    figures = measure(dataset, results, logit_scale)
    figures |= {
        "seconds_total": sum(seconds.values()),
        "seconds_influence": seconds["influence"],
        "pairs": len(train_view),
        "dataset": table.source,
        "cg_relative_residual": float(results.health["cg_relative_residual"]),
    }
    print_report(figures, seconds | {f"  {step}": value for step, value in results.timings.items()}, suspects)
    print(f"\nThe {PICTURED} most suspicious pairs as a picture: {write_sheet(suspects[:PICTURED])}")
    if asked.json:
        write_json(asked.json, figures)
    if asked.app:
        open_app(dataset, suspects)


@contextmanager
def timed(seconds: Seconds, step: str) -> Iterator[None]:
    """Say that a step begins, and note how long it took."""
    print(f"\n== {step}", flush=True)
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


def load_pairs(data: DataName) -> tuple[PairTable, np.ndarray]:
    """The pairs with noisy training captions, and (N,) bool, True where the caption was planted."""
    chosen = DATA[data]
    try:
        table = chosen.load(seed=SEED)
    except SourceUnavailable as reason:
        print(reason)
        chosen = DATA["digits"]
        table = chosen.load(seed=SEED)
    split: np.ndarray = table.split.astype("<U8")
    split[: chosen.base] = "base"
    table = table.with_split(split)
    captions, planted = noise.plant(table, "uniform", chosen.noise_rate, SEED)
    assert planted is not None
    count = {part: int((split == part).sum()) for part in ("base", "train", "heldout")}
    print(f"{table.source}: {count['train']} training pairs, {planted.sum()} of them with a wrong caption, "
          f"{count['heldout']} held-out pairs, {count['base']} others for the model")  # fmt: skip
    return table.with_captions(captions), planted


def train_model(table: PairTable) -> tuple[str, str | None]:
    """Name and checkpoint of a model: of pretrained towers for free captions, else of a small one, trained whole."""
    if not table.class_names:
        return lite0_minilm(table.select(table.split == "base")), None
    train_pairs = table.select(table.split == "train")
    epochs = 6 if len(train_pairs) >= 5_000 else 20  # enough to learn, too few to memorise the noise
    return "ecif-tiny", str(trained_checkpoint("ecif-tiny", train_pairs, Recipe(epochs=epochs), seed=SEED))


def make_dataset(table: PairTable, planted: np.ndarray) -> fo.Dataset:
    """The pairs as a persistent FiftyOne dataset, in place of an earlier demo's."""
    if fo.dataset_exists(DATASET_NAME):
        if not fo.load_dataset(DATASET_NAME).info.get(MADE_BY_DEMO):
            raise SystemExit(
                f"There is a dataset '{DATASET_NAME}' that this demo did not make. Rename or delete it, then try again."
            )
        fo.delete_dataset(DATASET_NAME)
    dataset = fo.Dataset(DATASET_NAME)
    dataset.info = {MADE_BY_DEMO: True, "source": table.source}
    dataset.persistent = True
    dataset.add_samples(
        (
            fo.Sample(
                filepath=filepath,
                tags=[str(split)],
                caption=caption,
                ground_truth=fo.Classification(label=table.class_names[label]) if table.class_names else None,
                planted=bool(bad),
            )
            for filepath, caption, label, split, bad in zip(
                table.filepaths, table.captions, table.labels, table.split, planted
            )
        ),
        num_samples=len(table),
        progress=True,
    )
    return dataset


def measure(dataset: fo.Dataset, results: Any, logit_scale: float) -> dict[str, Any]:
    """How well each score finds the planted captions, over the pairs that were scored; the scale is τ itself."""
    ids, image_embeddings, text_embeddings = results.embeddings()
    view = dataset.select(list(ids), ordered=True)
    planted, misalignment, positive, negative = (
        np.array(values)
        for values in view.values(
            ["planted", f"{RUN_KEY}_misalignment", f"{RUN_KEY}_value_positive", f"{RUN_KEY}_value_negative"]
        )
    )
    scores = {
        "misalignment": misalignment.astype(float),
        "positive": -positive.astype(float),  # a pair that harms has a value below 0
        "negative": -negative.astype(float),
        "clip_score": clip_score(image_embeddings, text_embeddings),
        "batch_loss": batch_loss(image_embeddings, text_embeddings, logit_scale, seed=SEED),
    }
    figures: dict[str, Any] = {}
    for name, score in scores.items():
        figures[f"auroc_{name}"] = float(roc_auc_score(planted, score))
        figures[f"ap_{name}"] = float(average_precision_score(planted, score))
    figures["precision_at_100"] = float(planted[np.argsort(-scores["misalignment"])[:100]].mean())
    return figures


def print_report(figures: dict[str, Any], seconds: Seconds, suspects: fo.DatasetView) -> None:
    """The figures, the time of each step and the most suspicious pairs, as tables."""
    print(f"\n== report: {figures['pairs']} pairs of {figures['dataset']}\n")
    scores: list[list[Cell]] = [
        [label, figures[f"auroc_{name}"], figures[f"ap_{name}"]] for name, label in SCORES.items()
    ]
    print(Table.of({"score": None, "AUROC": 3, "average precision": 3}, scores).console())
    print(f"\nprecision among the {INSPECTED} most suspicious: {figures['precision_at_100']:.2f}")
    print(f"relative residual of the solver: {figures['cg_relative_residual']:.1e}\n")
    steps: list[list[Cell]] = [
        [step, value, f"{figures['pairs'] / max(value, 1e-9):,.0f}"]
        for step, value in [*seconds.items(), ("total", figures["seconds_total"])]
    ]
    print(Table.of({"step": None, "seconds": 1, "pairs per second": None}, steps).console() + "\n")
    print(suspect_table(suspects[:SHOWN]).console())


def suspect_table(shown: fo.DatasetView) -> Table:
    """A row for each suspect: whether it was planted, what its image shows, its caption and the suggestion."""
    classes = shown.values("ground_truth.label") if shown.has_field("ground_truth") else [""] * len(shown)
    paths = [f"{RUN_KEY}_misalignment", "planted", "caption", f"{RUN_KEY}_suggestion.label"]
    rows = []
    for label, score, planted, *texts in zip(classes, *shown.values(paths)):
        caption, suggestion = (shorten(text or "", 54, placeholder=" …") for text in texts)
        rows.append([score, "yes" if planted else "no", label, caption, suggestion])
    return Table.of({"score": 3, "wrong?": None, "shows": None, "caption": None, "suggestion": None}, rows)


def write_sheet(shown: fo.DatasetView) -> Path:
    """Write suspects' pictures, each with its score, whether it was planted, and its caption; returns the file."""
    paths = ["filepath", f"{RUN_KEY}_misalignment", "planted", "caption"]
    cells = [
        (f"{score:.2f}{', planted' if planted else ''}", filepath, caption)
        for filepath, score, planted, caption in zip(*shown.values(paths))
    ]
    path = cache_folder("demo") / "suspects.png"
    contact_sheet(cells, PER_ROW).save(path)
    return path


def open_app(dataset: fo.Dataset, suspects: fo.DatasetView) -> None:
    """Show the most suspicious pairs first, with score and caption on each thumbnail; waits until the App is closed."""
    dataset.app_config.active_fields = fo.ActiveFields(paths=[f"{RUN_KEY}_misalignment", "caption"])
    dataset.save()
    session = fo.launch_app(suspects)
    with suppress(KeyboardInterrupt):
        session.wait()


if __name__ == "__main__":
    main()
