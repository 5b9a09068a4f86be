"""Scores, removals and misalignment on a device beside those of the CPU, in float32; and the score pass in bfloat16.

Prints one line of JSON, which ``scripts/gpu_check.py`` takes over under "parity".
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks.report.statistics import rank_correlation
from fiftyone_ecif.attribution import Attributed, InfluenceOutcome, Settings, compute
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.detect.pipeline import find_misaligned

PAIRS, SHARED, FEATURES, DIM = 4_096, 48, 256, 128
SETTINGS = Settings(rounds=2, batch_size=256)

LARGEST_DIFFERENCE = 1e-4
"""That a value, a self-influence or a misalignment may differ by, as a share of the largest value of the CPU."""


def main() -> None:
    """Compute everything twice, print the differences; exit 1 if one is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    head, pairs = problem()
    attributed = Attributed.of_head(head, pairs, TensorPairs(*pairs.gather(torch.arange(512))))
    here, there, rough = (
        compute(attributed, "clip", SETTINGS, at, score_dtype=dtype)
        for at, dtype in (("cpu", None), (device, None), (device, torch.bfloat16))
    )
    found = {f"difference_{name}": difference(here, there, name) for name in ("value", "self_influence")}
    mine, theirs = (find_misaligned(pairs, None, head, "clip", SETTINGS, at)[0].probability for at in ("cpu", device))
    found["difference_misalignment"] = float(abs(mine - theirs).max())
    largest = max(found.values())
    found["bfloat16_rank_correlation"] = float(rank_correlation(rough.scores.value.numpy(), here.scores.value.numpy()))
    print(json.dumps(found))
    if largest > LARGEST_DIFFERENCE:
        raise SystemExit(f"The largest difference is {largest:.1e}, which is above {LARGEST_DIFFERENCE:g}.")


def problem() -> tuple[Head, TensorPairs]:
    """A head, and pairs whose image and text share some directions; one in twenty has another pair's text."""
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(PAIRS, SHARED, generator=generator)
    wrong = torch.rand(PAIRS, generator=generator) < 0.05
    said = torch.where(wrong[:, None], meaning.roll(1, 0), meaning)
    mixing = torch.randn(2, SHARED, FEATURES, generator=generator) / SHARED**0.5
    image, text = (
        part @ mixed + 0.3 * torch.randn(PAIRS, FEATURES, generator=generator)
        for part, mixed in zip((meaning, said), mixing, strict=True)
    )
    weight = torch.randn(DIM, SHARED, generator=generator) @ torch.linalg.pinv(mixing).mT
    return Head(weight[0], weight[1], torch.tensor(3.0)), TensorPairs(image, text)


def difference(here: InfluenceOutcome, there: InfluenceOutcome, name: str) -> float:
    """The largest difference between two outcomes' scores, as a share of the largest of the first."""
    mine, theirs = getattr(here.scores, name), getattr(there.scores, name)
    return float((mine - theirs).abs().max() / mine.abs().max())


if __name__ == "__main__":
    main()
