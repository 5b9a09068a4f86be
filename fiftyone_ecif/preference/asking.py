"""Questions about images, asked of a model or an endpoint: several at a time, again where it fails, none twice."""

from __future__ import annotations

import hashlib
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, Protocol

from PIL import Image

from fiftyone_ecif.features.reading import UnreadablePair, read_image
from fiftyone_ecif.preference.kept import KeptAnswers
from fiftyone_ecif.preference.noise import weakened_image

PAUSE = 0.5
"""Seconds before the first repetition of a call that failed; twice as long before each further one."""


class CannotAnswer(ValueError):
    """What no repetition mends."""


@dataclass(frozen=True)
class Question:
    """What is asked about an image.

    Attributes:
        path: of the image
        content: of its file, by :func:`~fiftyone_ecif.preference.kept.content_of`
        prompt: what is asked
        step: of the noise on the image; 0 for the image as it is
        seed: of the noise, and of the answer
    """

    path: str
    content: str
    prompt: str
    step: int = 0
    seed: int = 0


class Generator(Protocol):
    """What answers questions.

    Attributes:
        title: for people
        fingerprint: changes with whatever its answers depend on
        patience: seconds after which a call is given up
    """

    title: str
    patience: float

    @property
    def fingerprint(self) -> str: ...

    def answer(
        self, images: Sequence[Image.Image], prompts: Sequence[str], steps: Sequence[int], seeds: Sequence[int]
    ) -> list[str]:
        """An answer to each prompt about the weakened image, which is the only one that it is shown."""
        ...


class GivenGenerator:
    """Somebody's own function, as one that asks an endpoint; a :class:`Generator`.

    Answers are kept by its attribute ``fingerprint`` where it has one, else by its name and code: a function whose
    answers depend on something else, as the model behind an address, needs the attribute.

    Args:
        function: from PIL images and prompts to as many texts
        patience: seconds after which a call is given up
    """

    def __init__(self, function: Callable[[list[Image.Image], list[str]], Sequence[str]], patience: float) -> None:
        self._function, self.patience = function, patience
        self.title = str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def fingerprint(self) -> str:
        """The function's own, or that of its name and code."""
        return str(getattr(self._function, "fingerprint", None) or _code_of(self._function))

    def answer(
        self, images: Sequence[Image.Image], prompts: Sequence[str], steps: Sequence[int], seeds: Sequence[int]
    ) -> list[str]:
        seen = [weakened_image(*each) for each in zip(images, steps, seeds, strict=True)]
        return list(self._function(seen, list(prompts)))


def ask(
    generator: Generator,
    questions: Sequence[Question],
    kept: KeptAnswers,
    together: int = 8,
    concurrency: int = 1,
    retries: int = 2,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[Question, str], dict[Question, str]]:
    """Ask what was not asked before. A batch that fails is asked again one by one, each with its repetitions.

    Args:
        generator: is asked
        questions: each is asked once
        kept: answers of earlier calls; new ones are kept as they come
        together: questions of a call
        concurrency: calls at a time
        retries: repetitions of a call that fails
        report: called with how many are done; may raise to cancel

    Returns:
        the answers, and why there is none, in a few words
    """
    questions, mark = list(dict.fromkeys(questions)), generator.fingerprint
    known = {each: kept.recall(_asked(mark, each)) for each in questions}
    answers = {each: text for each, text in known.items() if isinstance(text, str)}
    failed: dict[Question, str] = {}
    open_questions = [each for each in questions if each not in answers]
    batches = [open_questions[start : start + together] for start in range(0, len(open_questions), together)]
    report(len(answers), len(questions))
    for once in (len(batches[0]) > 1 if batches else False, False):
        again = []
        calls = [partial(_call, generator, batch, 0 if once else retries) for batch in batches]
        for number, found in _finished(calls, concurrency, generator.patience * (1 if once else retries + 1)):
            for each, text in zip(batches[number], _texts_of(found, batches[number]), strict=True):
                if isinstance(text, str):
                    answers[each] = text
                    kept.keep(_asked(mark, each), text)
                elif once and not isinstance(text, (CannotAnswer, TimeoutError)):
                    again.append([each])
                else:
                    failed[each] = _reason(text)
            report(len(answers) + len(failed), len(questions))
        batches = again
    return answers, failed


def _asked(mark: str, question: Question) -> list[object]:
    return [mark, question.content, question.prompt, question.step, question.seed]


def _texts_of(found: list[Any] | Exception, batch: list[Question]) -> list[Any]:
    """A text or an exception for each question."""
    return [found] * len(batch) if isinstance(found, Exception) else found


def _reason(fault: Exception) -> str:
    """Why there is no answer, in a few words."""
    if isinstance(fault, UnreadablePair):
        return fault.reason
    if isinstance(fault, (CannotAnswer, TimeoutError)):
        return str(fault)
    return f"the model failed ({type(fault).__name__}: {str(fault)[:200]})"


def _call(generator: Generator, batch: list[Question], retries: int) -> list[str | Exception]:
    """What a generator says to a batch; an exception in the place of an image that cannot be read."""
    images = [_image(each.path) for each in batch]
    readable = [row for row, image in enumerate(images) if not isinstance(image, Exception)]
    found: list[Any] = list(images)
    if not readable:
        return found
    asked = [batch[row] for row in readable]
    for attempt in range(retries + 1):
        try:
            columns = ([getattr(each, name) for each in asked] for name in ("prompt", "step", "seed"))
            texts = generator.answer([images[row] for row in readable], *columns)
            break
        except CannotAnswer:
            raise
        except Exception:  # it is somebody's own, and may raise anything
            if attempt == retries:
                raise
            time.sleep(PAUSE * 2**attempt)
    if len(texts) != len(asked) or not all(isinstance(text, str) for text in texts):
        raise RuntimeError(f"it gave {len(texts)} answers for {len(asked)} prompts, or something else than texts")
    for row, text in zip(readable, texts, strict=True):
        found[row] = text
    return found


def _image(path: str) -> Any:
    try:
        return read_image(path)
    except UnreadablePair as fault:
        return fault


def _finished(
    calls: Sequence[Callable[[], list[Any]]], concurrency: int, patience: float
) -> Iterator[tuple[int, list[Any] | Exception]]:
    """The results of calls by their numbers, as they come. One that hangs is given up; its thread ends with us."""
    done: queue.Queue[tuple[int, list[Any] | Exception]] = queue.Queue()

    def work(number: int) -> None:
        try:
            done.put((number, calls[number]()))
        except Exception as error:
            done.put((number, error))

    waiting = deque(range(len(calls)))
    deadlines: dict[int, float] = {}
    while waiting or deadlines:
        while waiting and len(deadlines) < concurrency:
            number = waiting.popleft()
            deadlines[number] = time.monotonic() + patience
            Thread(target=work, args=(number,), daemon=True).start()
        left = min(deadlines.values()) - time.monotonic()
        found: list[Any] | Exception
        try:
            number, found = done.get(timeout=None if math.isinf(left) else max(left, 0.0))
        except queue.Empty:
            number = min(deadlines, key=lambda each: deadlines[each])
            found = TimeoutError(f"the model did not answer within {patience:g} seconds")
        if deadlines.pop(number, None) is not None:  # else it was given up before
            yield number, found


def _code_of(function: Any) -> str:
    """64 hexadecimal digits of a function's name and code."""
    called = function if hasattr(function, "__code__") else vars(type(function)).get("__call__", function)
    code = getattr(called, "__code__", None)
    closure = [repr(cell.cell_contents) for cell in getattr(called, "__closure__", None) or () if _plain(cell)]
    parts = (type(function).__module__, getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
    body = () if code is None else (code.co_code.hex(), [each for each in code.co_consts if _is_plain(each)], closure)
    return hashlib.sha256(repr((parts, body)).encode()).hexdigest()


def _plain(cell: Any) -> bool:
    try:
        return _is_plain(cell.cell_contents)
    except ValueError:  # an empty cell
        return False


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float, bool, type(None)))
