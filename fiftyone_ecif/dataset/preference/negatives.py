"""Wrong answers of each origin, and why some samples have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.device import device_here
from fiftyone_ecif.dataset.preference.read import Material
from fiftyone_ecif.dataset.preference.request import PreferenceRequest
from fiftyone_ecif.dataset.run.run_model import load_again
from fiftyone_ecif.features.reading import UnreadablePair, read_image
from fiftyone_ecif.models import ContrastiveModel, load_model
from fiftyone_ecif.preference import (
    ClipFit,
    Generator,
    GivenGenerator,
    Judge,
    KeptAnswers,
    PreferencePair,
    Question,
    VisionLanguageModel,
    ask,
    distinct,
    grounding,
    injected,
    load_vision_language,
    reason_against,
)

REWRITING_TEMPERATURE = 0.8
"""Of a rewriter by its name, as published."""

REWRITE = (
    "Rewrite the answer below so that it stays plausible but is wrong about the image: change an object, a count, a "
    "colour or a relation, and keep everything else. Say the rewritten answer alone.\nQuestion: {}\nAnswer: {}"
)
"""What a rewriter is asked."""


@dataclass(frozen=True)
class Models:
    """What a run uses.

    Attributes:
        answering: answers about weakened images
        rewriting: rewrites right answers
        clip: says what an image shows
    """

    answering: Generator | None
    rewriting: Generator | None
    clip: ClipFit | None

    @property
    def judge(self) -> Judge | None:
        """What grounding is by: the likelihood of the model that answered, or else the fit of the CLIP model."""
        return self.answering if isinstance(self.answering, VisionLanguageModel) else self.clip

    @property
    def markers(self) -> list[str]:
        """Tokens that no text may hold."""
        used = [each for each in (self.answering, self.rewriting) if isinstance(each, VisionLanguageModel)]
        return [marker for each in used for marker in each.markers]

    @property
    def titles(self) -> dict[str, str | None]:
        """Their names, for people."""
        used: dict[str, Any] = dict(model=self.answering, rewriter=self.rewriting, clip=self.clip)
        return {name: None if each is None else each.title for name, each in used.items()}


@dataclass
class Found:
    """The pairs so far.

    Attributes:
        pairs: that can serve
        left_out: how many wrong answers there are none of, or none that serves, by origin and reason
    """

    pairs: list[PreferencePair] = field(default_factory=list)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, material: Material, rejected: str, origin: str, t: int | None = None) -> None:
        """Add a pair, or count why it cannot serve."""
        if reason := reason_against(material.chosen, rejected):
            self.left_out[origin, reason] += 1
            return
        texts = material.prompt, material.chosen.strip(), rejected.strip()
        self.pairs.append(PreferencePair(material.id, material.path, *texts, origin, t))


def models(request: PreferenceRequest, dataset: Any) -> Models:
    """Load what is asked for; nothing that no origin needs.

    Raises:
        ValueError: if there is no such model
    """
    device, wanted = device_here("local", request.device), request.negatives
    answering = _generator(request.model, request, device, request.temperature) if "image_weakened" in wanted else None
    rewriting = None
    if "error_injected" in wanted and request.rewriter is not None:
        rewriting = _generator(request.rewriter, request, device, REWRITING_TEMPERATURE)
    needed = "error_injected" in wanted and rewriting is None
    model: ContrastiveModel | None = None
    if isinstance(request.clip, str):
        model = load_model(request.clip, request.clip_pretrained, device)
    elif request.clip is not None:
        model = request.clip
    elif request.suspects_run is not None and needed:
        config = dataset.get_run_info(request.suspects_run).config
        model = load_again(config, request.suspects_run, device)
    return Models(answering, rewriting, None if model is None else ClipFit(model))


def _generator(given: Any, request: PreferenceRequest, device: str, temperature: float) -> Generator:
    if isinstance(given, str):
        return load_vision_language(given, device, temperature, request.max_new_tokens)
    return given if hasattr(given, "answer") else GivenGenerator(given, request.timeout)


def kept_answers() -> KeptAnswers:
    """What was asked before, on this machine."""
    return KeptAnswers(cache_folder("answers"))


def find_pairs(materials: Sequence[Material], used: Models, request: PreferenceRequest, report: Progress) -> Found:
    """The pairs of every origin that is asked for, without repetitions and with their grounding."""
    found = Found()
    if "fixed" in request.negatives:
        for each in materials:
            for text in each.replaced:
                found.add(each, text, "fixed")
    if used.answering is not None:
        asked = [
            (each, Question(each.path, each.content, each.prompt, step, request.seed + number))
            for each in materials
            for number, step in enumerate(request.noise_steps)
        ]
        _ask(found, used.answering, asked, "image_weakened", request, _step(report, "Ask the model"))
    if used.rewriting is not None:
        asked = [
            (each, Question(each.path, each.content, REWRITE.format(each.prompt, each.chosen), 0, request.seed))
            for each in materials
        ]
        _ask(found, used.rewriting, asked, "error_injected", request, _step(report, "Rewrite answers"))
    elif "error_injected" in request.negatives and used.clip is not None:
        _inject(found, used.clip, materials, request.seed, _step(report, "Put errors into texts"))
    kept = distinct(found.pairs)
    found.left_out.update(_repetitions(found.pairs, kept))
    found.pairs = _grounded(kept, {each.id: each for each in materials}, used.judge, request.seed, report)
    return found


def _ask(
    found: Found,
    generator: Generator,
    asked: Sequence[tuple[Material, Question]],
    origin: str,
    request: PreferenceRequest,
    report: Callable[[int, int], None],
) -> None:
    """Add what a model answers."""
    concurrency = 1 if isinstance(generator, VisionLanguageModel) else request.concurrency
    questions = [question for _, question in asked]
    settings = request.batch_size, concurrency, request.retries, report
    answers, failed = ask(generator, questions, kept_answers(), *settings)
    for material, question in asked:
        if question in failed:
            found.left_out[origin, failed[question]] += 1
        else:
            found.add(material, answers[question], origin, question.step or None)


def _inject(
    found: Found, clip: ClipFit, materials: Sequence[Material], seed: int, report: Callable[[int, int], None]
) -> None:
    """Add right answers with one thing wrong."""
    for number, each in enumerate(materials, start=1):
        try:
            error = injected(each.chosen, read_image(each.path), clip.of, seed + number)
        except UnreadablePair as fault:
            found.left_out["error_injected", fault.reason] += 1
        else:
            if error is None:
                found.left_out["error_injected", "no word stands for something that the image surely lacks"] += 1
            else:
                found.add(each, error.text, "error_injected")
        report(number, len(materials))


def _repetitions(before: Sequence[PreferencePair], after: Sequence[PreferencePair]) -> Counter[tuple[str, str]]:
    gone = Counter(each.origin for each in before) - Counter(each.origin for each in after)
    return Counter({(origin, "another pair says the same"): count for origin, count in gone.items()})


def _grounded(
    pairs: list[PreferencePair], of: Mapping[str, Material], judge: Judge | None, seed: int, report: Progress
) -> list[PreferencePair]:
    if judge is None:
        return pairs
    questions = [Question(each.path, of[each.sample_id].content, each.prompt, 0, seed) for each in pairs]
    texts = [each.rejected for each in pairs]
    nats = grounding(judge, questions, texts, kept_answers(), _step(report, "Judge grounding"))
    return [replace(each, grounding=value) for each, value in zip(pairs, nats, strict=True)]


def _step(report: Progress, step: str) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)
