"""Preference pairs: wrong answers about images beside right ones, for training against them (docs/preference.md)."""

from fiftyone_ecif.preference.asking import CannotAnswer, Generator, GivenGenerator, Question, ask
from fiftyone_ecif.preference.bias import MOST_BIAS, Bias, balanced, bias_of
from fiftyone_ecif.preference.clip_fit import ClipFit
from fiftyone_ecif.preference.errors import InjectedError, exchanges, injected
from fiftyone_ecif.preference.export import rows_of, write
from fiftyone_ecif.preference.filters import LONGEST_ANSWER, marker_in, reason_against
from fiftyone_ecif.preference.grounding import BLIND, Judge, grounding
from fiftyone_ecif.preference.kept import KeptAnswers, content_of
from fiftyone_ecif.preference.noise import STEPS, signal_shares, weakened, weakened_image
from fiftyone_ecif.preference.pair import PreferencePair, distinct
from fiftyone_ecif.preference.vision_language import VisionLanguageModel, load_vision_language

__all__ = [
    "BLIND",
    "LONGEST_ANSWER",
    "MOST_BIAS",
    "STEPS",
    "Bias",
    "CannotAnswer",
    "ClipFit",
    "Generator",
    "GivenGenerator",
    "InjectedError",
    "Judge",
    "KeptAnswers",
    "PreferencePair",
    "Question",
    "VisionLanguageModel",
    "ask",
    "balanced",
    "bias_of",
    "content_of",
    "distinct",
    "exchanges",
    "grounding",
    "injected",
    "load_vision_language",
    "marker_in",
    "reason_against",
    "rows_of",
    "signal_shares",
    "weakened",
    "weakened_image",
    "write",
]
