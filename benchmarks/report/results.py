"""Result files: what a command measured, with what it was asked for, on which machine and at which commit."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.report.table import Table

RESULTS = Path(__file__).parent.parent / "results"
"""Where the results lie that the documents show."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, complete or not at all."""
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_result(
    path: Path | None,
    module: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    tables: Mapping[str, Table] | None = None,
) -> None:
    """Write a result file, complete or not at all.

    Args:
        path: of the file; None writes nothing
        module: whose command measured, such as "benchmarks.fidelity"
        settings: what it was asked for
        figures: what it measured, by name; a standard error has its figure's name and ``_se``
        tables: the figures as a document shows them, by name
    """
    if path is None:
        return
    content = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
        "machine": machine(),
        "commit": commit(),
        "figures": figures,
        "tables": {name: table.to_json() for name, table in (tables or {}).items()},
    }
    _write(path, result_text(content))


def result_text(content: Mapping[str, Any]) -> str:
    """A result as indented JSON in which each row of a table is one line."""
    lines: list[str] = []

    def one_line(row: Any) -> str:
        lines.append(json.dumps(row, ensure_ascii=False))
        return f"row {len(lines) - 1} of a table"

    tables = {
        name: {**table, "columns": one_line(table["columns"]), "digits": one_line(table["digits"]),
               "rows": [one_line(row) for row in table["rows"]]}
        for name, table in content["tables"].items()
    }  # fmt: skip
    text = json.dumps({**content, "tables": tables}, indent=2, ensure_ascii=False)
    return re.sub(r'"row (\d+) of a table"', lambda found: lines[int(found[1])], text) + "\n"


def read_table(name: str, table: str, folder: Path = RESULTS) -> Table:
    """A table of a result.

    Args:
        name: of the result, its path below the folder without an ending, such as "fidelity/head"
        table: its name within the result
        folder: where results lie

    Raises:
        ValueError: if there is no such result, or no such table in it
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"There is no result {path}.")
    tables = json.loads(path.read_text())["tables"]
    if table not in tables:
        raise ValueError(f"{path} has no table '{table}'; it has {', '.join(tables)}.")
    return Table.from_json(tables[table])


def machine() -> str:
    """The machine in words: system, processor cores, PyTorch's threads, and a GPU if there is one."""
    parts = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} CPU cores"]
    parts.append(f"{torch.get_num_threads()} PyTorch threads")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def commit() -> str | None:
    """The commit that is checked out, with "-dirty" if files differ from it; None outside a git checkout."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
