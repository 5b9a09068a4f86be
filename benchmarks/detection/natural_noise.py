"""Wrong captions that nobody planted: the most suspected pairs of Openclipart, for people to look at.

``python -m benchmarks.detection.natural_noise sheets FOLDER`` writes contact sheets, in random order and without a word
about who suspects what, and the list behind them. A person fills in the list's column ``verdict``:

- wrong: the caption names something that is not to be seen;
- empty: it says no more than which collection the drawing is from, or of what broad kind;
- right: it names what is to be seen, in whatever language;
- unclear: the person cannot tell.

``python -m benchmarks.detection.natural_noise summary FILE [--picture PNG]`` sums them up by method and shows the first
suspects. What came out: docs/detection.md.
"""

from __future__ import annotations

import argparse
import csv
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.data.pairs import PairTable
from benchmarks.methods.baselines import clip_score
from benchmarks.models.base_models import benchmark_pairs, regime_checkpoint
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core.pairs import embeddings_under
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.features import PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import ViewAveraged, load_model

VERDICTS = ("wrong", "empty", "right", "unclear")
COLUMNS = ("number", "name", "caption", "method", "rank", "verdict")
DATA = "openclipart"
SUSPECTS = 100  # of each method
DRAWN = 60  # pairs drawn at random, to know how many captions are wrong anyway
SEED = 0
PER_ROW, PER_SHEET = 6, 30
CELL = (200, 215)  # pixels


def main() -> None:
    """Write the sheets, or sum up what a person saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sheets").add_argument("path", type=Path, metavar="FOLDER")
    summary = commands.add_parser("summary")
    summary.add_argument("path", type=Path, metavar="FILE")
    summary.add_argument("--picture", type=Path, metavar="PNG", help="write the first suspects of each method there")
    arguments = parser.parse_args()
    if arguments.command == "sheets":
        table = benchmark_pairs(DATA, SEED)
        write_sheets(table, ranked_suspects(table), arguments.path)
    else:
        print_summary(arguments.path)
        if arguments.picture:
            first_suspects(arguments.path).save(arguments.picture, optimize=True)


def ranked_suspects(table: PairTable) -> dict[str, list[int]]:
    """The pairs that each method suspects most, the most suspicious first.

    Args:
        table: of :func:`~benchmarks.models.base_models.benchmark_pairs`; its training pairs are scored, by a model
            that was trained on its base pairs

    Returns:
        rows of ``table`` by method: "misalignment" (as ``compute_influence`` goes about it, cross-fitted) and
        "clip_score"; and "random" for pairs drawn at random, which say how many captions are wrong anyway
    """
    model = load_model(*regime_checkpoint(DATA, table, "pretrained", SEED))
    train = np.flatnonzero(table.split == "train")
    rows = [PairRow(str(row), table.filepaths[row], table.captions[row]) for row in train]
    pairs, views = (
        embed_pairs(towers, rows, cache_folder("features"), skip_failures=False)
        for towers in (model, ViewAveraged(model))
    )
    head = model.head()
    image, text = (part.numpy() for part in embeddings_under(pairs, head))
    scores = {
        "misalignment": find_misaligned(pairs, views, head, model.loss, Settings(seed=SEED))[0].probability,
        "clip_score": clip_score(image, text),
    }
    suspects = {method: train[np.argsort(-np.asarray(score))[:SUSPECTS]].tolist() for method, score in scores.items()}
    return suspects | {"random": np.random.default_rng(SEED).choice(train, DRAWN, replace=False).tolist()}


def write_sheets(table: PairTable, suspects: dict[str, list[int]], folder: Path) -> None:
    """Write contact sheets of all suspects in random order, and the list with an empty verdict for each.

    Args:
        table: the pairs
        suspects: rows by method, the most suspicious first
        folder: for ``sheet-00.png``, … and ``suspects.csv``
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(SEED).permutation(sorted({row for chosen in suspects.values() for row in chosen}))
    for start in range(0, len(rows), PER_SHEET):
        shown = rows[start : start + PER_SHEET]
        cells = [(f"{start + place}", table.filepaths[row], table.captions[row]) for place, row in enumerate(shown)]
        contact_sheet(cells, PER_ROW).save(folder / f"sheet-{start // PER_SHEET:02d}.png")
    number_of = {row: number for number, row in enumerate(rows.tolist())}
    with open(folder / "suspects.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for method, chosen in suspects.items():
            for rank, row in enumerate(chosen, start=1):
                writer.writerow(
                    [number_of[row], Path(table.filepaths[row]).name, table.captions[row], method, rank, ""]
                )


def contact_sheet(cells: Sequence[tuple[str, str, str]], per_row: int) -> Image.Image:
    """Pictures with a heading above and a caption below each.

    Args:
        cells: (heading, image file, caption) of each
        per_row: pictures side by side

    Returns:
        the sheet, RGB
    """
    width, height = CELL
    sheet = Image.new("RGB", (per_row * width, -(-len(cells) // per_row) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, (heading, filepath, caption) in enumerate(cells):
        left, top = place % per_row * width, place // per_row * height
        with Image.open(filepath) as image:
            sheet.paste(image, (left + (width - image.width) // 2, top + 20))
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline="lightgray")
        draw.text((left + 6, top + 4), heading, fill="black", font=font)
        lines = textwrap.wrap(caption, 31)[:4]
        draw.text((left + 6, top + 152), "\n".join(lines), fill="black", font=font)
    return sheet


def print_summary(path: Path) -> None:
    """Print the share of each verdict by method, with its standard error.

    Args:
        path: the list with its verdicts filled in
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if unknown := {row["verdict"] for row in rows} - set(VERDICTS):
        raise SystemExit(f"{path}: a verdict is one of {', '.join(VERDICTS)}, not {', '.join(map(repr, unknown))}.")
    print(f"{'method':<16}{'pairs':>6}" + "".join(f"{verdict:>16}" for verdict in VERDICTS))
    for method in dict.fromkeys(row["method"] for row in rows):
        verdicts = Counter(row["verdict"] for row in rows if row["method"] == method)
        total = verdicts.total()
        shares = {verdict: verdicts[verdict] / total for verdict in VERDICTS}
        errors = {verdict: (share * (1 - share) / total) ** 0.5 for verdict, share in shares.items()}
        print(
            f"{method:<16}{total:>6}"
            + "".join(f"{f'{shares[verdict]:.2f} ± {errors[verdict]:.2f}':>16}" for verdict in VERDICTS)
        )


def first_suspects(path: Path) -> Image.Image:
    """The two rows of pictures that each method suspects most, headed by method, rank and verdict.

    Args:
        path: the list with its verdicts filled in
    """
    folder = cache_folder("openclipart") / "images"
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["rank"]) <= 2 * PER_ROW]
    cells = [
        (f"{row['method']} {row['rank']}: {row['verdict']}", str(folder / row["name"]), row["caption"]) for row in rows
    ]
    return contact_sheet(cells, PER_ROW)


if __name__ == "__main__":
    main()
