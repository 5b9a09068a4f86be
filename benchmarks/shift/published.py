"""What the authors of EMI published, where it is at hand: their results, and LLaVA's answers under every shift.

``python -m benchmarks.shift.published FOLDER``. The data has no licence and is never shipped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr
from tyro.conf import Positional

from benchmarks.models.sentence_encoder import PACKAGE
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table
from benchmarks.shift.model import text_embeddings
from fiftyone_ecif.shift import Comparison, TensorVectors

MODULE = "benchmarks.shift.published"
PREFIX = "llava_bench_coco"
LANGUAGE_MODELS = ("llava-v1.5-13b", "llava-v1.6-vicuna-13b")
LADDERS = {
    "frost": ("answers", ("frost_1", "frost_3", "frost_5")),
    "defocus": ("answers", ("defocus_blur_1", "defocus_blur_3", "defocus_blur_5")),
    "keyboard": ("prompts", ("KeyboardAug_1", "KeyboardAug_3")),
    "keyboard, answers": ("answers", ("KeyboardAug_1", "KeyboardAug_3")),
    "synonyms": ("prompts", ("sr_4", "sr_7")),
    "synonyms, answers": ("answers", ("sr_4", "sr_7")),
}
"""Shifts in rising severity, and whether answers or prompts are looked at."""

FIELDS = {"answers": "text", "prompts": "prompt"}
WORDS = 60
"""Words of an answer that are read."""


@dataclass(frozen=True)
class Published:
    """Recompute the authors' correlations, and see whether LLaVA's answers move away as shifts grow.

    Args:
        folder: with the authors' ``results`` and ``responses``
        json: the result is written to this file
    """

    folder: Positional[Path]
    json: Path | None = None


def main() -> None:
    """Compute and print."""
    asked = ask(Published, MODULE)
    found, steps = recomputed(asked.folder), ladders(asked.folder)
    columns = {"shift": None, "model": None, "scenarios": None, "Pearson": 3, "as reported": 3, "Spearman": 3}
    names = ("shift", "model", "scenarios", "pearson", "pearson_reported", "spearman")
    tables = {
        "correlations": Table.of(columns, [[row[name] for name in names] for row in found]),
        "severities": Table.of(
            {"model": None, "shift": None, "mildest": 3, "next": 3, "strongest": 3},
            [[each.language_model, each.shift, *_three(each.values)] for each in steps],
        ),
    }
    grown = [step for each in steps for step in rising(each.values)]
    worst = max(abs(float(row["pearson"]) - float(row["pearson_reported"])) for row in found)
    figures = {
        "monotone_fraction_real": float(np.mean(grown)),
        "steps_real": len(grown),
        "largest_pearson_error": worst,
    }
    for table in tables.values():
        print(table.console(), end="\n\n")
    print(figures)
    write_result(asked.json, MODULE, {"words": WORDS, "encoder": PACKAGE}, figures, tables)


def _three(values: Sequence[float]) -> list[float | None]:
    """Two or three values as mildest, next and strongest."""
    return [values[0], values[1] if len(values) == 3 else None, values[-1]]


def recomputed(folder: Path) -> list[dict[str, float | str]]:
    """The authors' correlations of EMID and its bound, from their numbers, beside those that they report."""
    rows: list[dict[str, float | str]] = []
    for path in sorted((folder / "results").glob("*.json")):
        found = json.loads(path.read_text())
        source = next(value for name, value in found["EMI"].items() if name in (PREFIX, f"{PREFIX}_English"))
        names = list(found["EMID"])
        emid = np.array([source - found["EMI"][name] for name in names])
        bound = np.array([found["EMID_UB"][name] for name in names])
        rows.append(
            {
                "shift": str(found["shift_type"]).lower(),
                "model": found["model_name"],
                "scenarios": len(names),
                "pearson": float(pearsonr(emid, bound)[0]),
                "pearson_reported": found["PearsonR"],
                "spearman": float(spearmanr(emid, bound)[0]),
                "largest_emid_error": float(np.abs(emid - [found["EMID"][name] for name in names]).max()),
            }
        )
    return rows


@dataclass(frozen=True)
class Ladder:
    """The divergence from the clean answers or prompts, along a shift of rising severity."""

    language_model: str
    shift: str
    values: list[float]


def ladders(folder: Path) -> list[Ladder]:
    """The divergence of real answers or prompts from the clean ones, along each ladder of severities."""
    found = []
    for language_model in LANGUAGE_MODELS:
        for name, (what, steps) in LADDERS.items():
            if what == "prompts" and language_model != LANGUAGE_MODELS[0]:
                continue  # both were asked the same
            clean = text_embeddings(texts_of(folder, "", language_model, what))
            values = []
            for step in steps:
                shifted = text_embeddings(texts_of(folder, f"_{step}", language_model, what))
                values.append(Comparison.of(TensorVectors(clean), TensorVectors(shifted)).value)
            found.append(Ladder(language_model, name, values))
    return found


def rising(values: Sequence[float]) -> list[bool]:
    """Whether each value is above the one before."""
    return [later > earlier for earlier, later in itertools.pairwise(values)]


def texts_of(folder: Path, scenario: str, language_model: str, what: str) -> list[str]:
    """The answers or prompts of a scenario, in the order of the questions."""
    names = [f"{PREFIX}{scenario}", f"{PREFIX}{scenario}_English"] if not scenario else [f"{PREFIX}{scenario}"]
    paths = [folder / "responses" / f"{name}_{language_model}.jsonl" for name in names]
    path = next(path for path in paths if path.is_file())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [
        " ".join(str(line[FIELDS[what]]).split()[:WORDS])
        for line in sorted(lines, key=lambda line: int(line["question_id"]))
    ]
    return [text or "." for text in texts]


if __name__ == "__main__":
    main()
