"""Does removing pairs really do what their influence says? Predicted against measured, by refitting without them.

Run it with ``make bench-fidelity``, or ``python -m benchmarks.fidelity --help``. What it measured: docs/fidelity.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks.fidelity.measure import measure
from benchmarks.fidelity.removal_problem import PROBLEMS, REGIMES, Regime, ScopeName
from benchmarks.fidelity.tables import tables
from benchmarks.report.command import ask
from benchmarks.report.results import write_result

MODULE = "benchmarks.fidelity"


@dataclass(frozen=True)
class ChosenScope:
    """The scope alone: it decides the defaults of the other options.

    Args:
        scope: parameters that are attributed
    """

    scope: ScopeName = "head"


@dataclass(frozen=True)
class Fidelity(ChosenScope):
    """Compare predicted removals of pairs with refits without them.

    Args:
        scope: parameters that are attributed; the defaults below are those of the chosen scope
        regime: what is varied
        json: the result is written to this file
    """

    regime: Regime = REGIMES["head"]
    json: Path | None = None


def main() -> None:
    """Run one regime, print its tables, write its figures."""
    asked = read_options(sys.argv[1:])
    regime = asked.regime
    figures = measure(PROBLEMS[asked.scope](regime), regime)
    made = tables(figures, regime.edits)
    for name, table in made.items():
        print(f"\n{name}\n{table.console()}")
    write_result(asked.json, MODULE, {"scope": asked.scope, **asdict(regime)}, figures, made)


def read_options(arguments: Sequence[str]) -> Fidelity:
    """The command's options; those that are left out have the defaults of the chosen scope."""
    without_help = [argument for argument in arguments if argument not in ("-h", "--help")]
    chosen, _ = tyro.cli(ChosenScope, args=without_help, return_unknown_args=True)
    return ask(Fidelity, MODULE, Fidelity(chosen.scope, REGIMES[chosen.scope]), arguments)
