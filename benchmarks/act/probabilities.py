"""Whether probabilities, the noise rate and thresholds are what they say."""

from __future__ import annotations

from benchmarks.detection.cell import Cell
from benchmarks.detection.figures import calibration_error
from fiftyone_ecif.detect import Misalignment, threshold_for

PRECISION = 0.9
"""What the suggested threshold is asked for."""


def probability_figures(cell: Cell, found: Misalignment) -> dict[str, float]:
    """How far probabilities are from what was planted. Naturally wrong pairs count as right, since nobody knows them.

    Args:
        cell: with planted captions
        found: their misalignment

    Returns:
        ``rate_off``: estimated minus planted share of wrong pairs; ``rate_low``, ``rate_high``: its 90 % interval;
        ``rate_covered``: 1 if that holds the planted share, else 0; ``ece``: expected calibration error in ten bins;
        ``precision_at_half``, ``expected_at_half``: the share that is wrong, and the mean probability, among pairs at ½
        or more; ``precision_at_90``: the share that is wrong at or above the suggested threshold. A share of nothing
        is left out

    Raises:
        ValueError: if nobody knows which pairs are wrong
    """
    if cell.planted is None:
        raise ValueError("Probabilities are measured where wrong pairs are known: on planted noise.")
    planted, probability = cell.planted, found.probability
    low, high = found.noise_interval
    figures = {
        "rate_off": found.noise_rate - float(planted.mean()),
        "rate_low": low,
        "rate_high": high,
        "rate_covered": float(low <= planted.mean() <= high),
        "ece": calibration_error(planted, probability),
    }
    half, threshold = probability >= 0.5, threshold_for(probability, PRECISION)
    if half.any():
        figures |= {"precision_at_half": planted[half].mean(), "expected_at_half": probability[half].mean()}
    if threshold is not None:
        figures["precision_at_90"] = planted[probability >= threshold].mean()
    return {name: float(value) for name, value in figures.items()}
