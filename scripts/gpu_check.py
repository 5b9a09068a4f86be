"""What only a GPU can show, in ten minutes: its tests, its rounding, its speed. Prints one JSON object.

    python scripts/gpu_check.py                 # on the first CUDA device
    python scripts/gpu_check.py --device cpu    # the same script at toy sizes where there is none, to see that it runs

Each check has its own process and its own time; one that fails or takes too long is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

MINUTES = 10
"""For all checks together."""

FIGURES = {
    "throughput": (
        "pairs_per_second_scores", "epoch_ratio", "gemm_fraction", "half_ratio", "half_rank_correlation",
        "solve_epochs", "embedded_pairs_per_second", "embed_ratio",
    ),
    "traces": ("seconds_first_query", "seconds_per_query", "seconds_64_queries", "timing_rank"),
}  # fmt: skip
"""What is taken from the result of a benchmark; the benchmark says what each is."""


def main() -> None:
    """Run the checks one after the other and print what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …; cpu runs toy sizes")
    asked = parser.parse_args()
    ends = time.monotonic() + 60 * MINUTES
    found: dict[str, Any] = {"device": name_of(asked.device)}
    with tempfile.TemporaryDirectory() as name:
        for check, command in commands(asked.device, Path(name)).items():
            found[check] = outcome(command, ends - time.monotonic(), Path(name) / f"{check}.json", FIGURES.get(check))
            print(f"{check}: {found[check]}", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))
    sys.exit(any(not part["passed"] for part in found.values() if isinstance(part, dict)))


def commands(device: str, folder: Path) -> dict[str, list[str]]:
    """The command of each check, the quickest first; a benchmark writes its result into the folder."""
    small = device == "cpu"
    pairs, traced = (2_048, 4_096) if small else (131_072, 1_000_000)
    return {
        "tests": ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"],
        "parity": ["-m", "scripts.gpu_parity", "--device", device],
        "throughput": [
            "-m", "benchmarks.speed.throughput", "--device", device, "--pairs", str(pairs), "--repeats", "2",
            "--embed-pairs", "16" if small else "2048", "--json", str(folder / "throughput.json"),
        ],
        "traces": [
            "-m", "benchmarks.tracing", "--queries", "0", "--timing-pairs", str(traced), "--timing-device", device,
            "--json", str(folder / "traces.json"),
        ],
    }  # fmt: skip


def outcome(command: Sequence[str], seconds: float, result: Path, figures: Sequence[str] | None) -> dict[str, Any]:
    """Run one check: whether it passed, its seconds, and its figures or the end of what it said."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, seconds)
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "seconds": round(seconds), "said": "It was stopped: its time was over."}
    found: dict[str, Any] = {"passed": done.returncode == 0, "seconds": round(time.monotonic() - started, 1)}
    if done.returncode:
        return {**found, "said": (done.stdout + done.stderr)[-1500:]}
    if figures is None:
        last = done.stdout.strip().splitlines()[-1]
        return {**found, **json.loads(last)} if last.startswith("{") else {**found, "said": last}
    measured = json.loads(result.read_text())["figures"]
    return {**found, **{name: measured[name] for name in figures if name in measured}}


def name_of(device: str) -> str:
    """What the device calls itself."""
    import torch

    if device == "cpu":
        return "CPU, at toy sizes"
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here. With --device cpu the script runs at toy sizes.")
    return f"{torch.cuda.get_device_name(torch.device(device))}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
