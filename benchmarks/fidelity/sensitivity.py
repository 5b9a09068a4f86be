"""The fidelity benchmark over a grid of regimes, one setting varied at a time: the tables of docs/fidelity.md.

``python -m benchmarks.fidelity.sensitivity --help`` lists the tables; each line of ``--json-lines`` is one run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.fidelity.__main__ import Figures, measure
from benchmarks.fidelity.removal_problem import PROBLEMS, REGIMES, NotAtRest

BASES = {
    "head": replace(REGIMES["head"], pairs=1_000, subsets=20),
    "lora": replace(REGIMES["lora"], subsets=12, singles=4, edits=2),
}
"""The regime of each scope that its tables vary."""

TABLES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "head": {
        "seed": [{"seed": seed} for seed in range(3)],
        "data": [{"data": data} for data in ("fashion-mnist", "digits")],
        "anchor": [{"anchor": anchor} for anchor in (0.03, 0.05, 0.1, 0.3, 1.0)],
        "weak-anchor": [
            {"anchor": anchor, "seed": seed, "subsets": 80, "singles": 4, "edits": 2}
            for anchor in (0.03, 0.02, 0.01)
            for seed in (0, 1)
        ],
        "damping": [{"damping": damping} for damping in (0.0, 0.01, 0.1, 1.0)],
        "rounds": [{"rounds": rounds} for rounds in (1, 2, 4)],
        "batch-size": [{"batch_size": batch_size} for batch_size in (16, 64, 256)],
        "logit-scale": [
            {"batch_size": batch_size, "logit_scale": scale}
            for batch_size in (16, 256)
            for scale in (15.0, 30.0, 60.0, 100.0)
        ],
    },
    "lora": {
        "rank": [{"rank": rank} for rank in (1, 4, 16)],
        "lora-anchor": [{"anchor": anchor} for anchor in (0.03, 0.1, 1.0)],
        "lora-logit-scale": [{"logit_scale": scale} for scale in (30.0, 60.0)],
    },
}
"""What each table varies, by scope."""
SCOPES = {name: scope for scope, tables in TABLES.items() for name in tables}

COLUMNS = {
    "LDS exact": "lds_exact",
    "first order": "lds_first_order",
    "positive only": "lds_positive_only",
    "K-FAC": "lds_kfac",
    "TracIn": "lds_tracin",
    "random groups: exact": "lds_random_groups_exact",
    "first order ": "lds_random_groups_first_order",
    "positive only ": "lds_random_groups_positive_only",
    "K-FAC ": "lds_random_groups_kfac",
    "TracIn ": "lds_random_groups_tracin",
    "slope exact": "slope_exact",
    "leave-one-out": "loo_pearson",
    "cosine exact": "cosine_exact",
    "first order  ": "cosine_first_order",
    "positive only  ": "cosine_positive_only",
    "fitted τ": "fitted_logit_scale",
}


def main() -> None:
    """Run the chosen tables and print each as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[[], *SCOPES], help=f"of {', '.join(SCOPES)}; all when left out")
    parser.add_argument("--json-lines", type=Path, help="append every run's figures to this file")
    arguments = parser.parse_args()
    for name in arguments.tables or SCOPES:
        scope, rows = SCOPES[name], []
        for varied in tqdm(TABLES[scope][name], desc=name, unit="run"):
            regime = replace(BASES[scope], **varied)
            try:
                figures = measure(PROBLEMS[scope](regime, progress=False), regime, progress=False)
            except NotAtRest as error:
                print(f"{varied}: {error}")
                continue
            rows.append((varied, figures))
            if arguments.json_lines:
                with arguments.json_lines.open("a") as file:
                    file.write(json.dumps({"table": name, "scope": scope, **asdict(regime), **figures}) + "\n")
        print(f"\n{markdown(rows)}\n", flush=True)


def markdown(rows: list[tuple[dict[str, Any], Figures]]) -> str:
    """A table with a row per regime, what varies first, and ± the standard error where there is one."""
    varied = list(rows[0][0]) if rows else []
    lines = [varied + [head.strip() for head in COLUMNS], ["---"] * (len(varied) + len(COLUMNS))]
    for setting, figures in rows:
        cells = [str(value) for value in setting.values()]
        for key in COLUMNS.values():
            error = figures.get(f"{key}_se")
            cells.append(f"{figures[key]:.3g}" if error is None else f"{figures[key]:.3f} ± {error:.3f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
