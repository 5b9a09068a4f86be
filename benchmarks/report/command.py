"""The commands of the benchmarks: options from a dataclass, whose fields carry the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

Asked = TypeVar("Asked")


def ask(kind: type[Asked], module: str, default: Asked | None = None, arguments: Sequence[str] | None = None) -> Asked:
    """Read a command's options.

    Args:
        kind: a dataclass; its fields are the options, its docstring their help
        module: whose command it is, such as "benchmarks.fidelity"
        default: values of options that are left out, in place of the dataclass's own
        arguments: the options; None takes those of the command line

    Returns:
        what was asked for
    """
    found = tyro.cli(
        kind,
        prog=f"python -m {module}",
        description=(kind.__doc__ or "").strip().splitlines()[0],
        default=default,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),  # --seed, not --settings.seed, for a field of a nested dataclass
    )
    assert found is not None  # tyro's type allows for it where the default is None
    return found
