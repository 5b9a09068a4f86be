"""What a value may be: each kind converts what a caller passes, or refuses it in plain words.

People pass numpy's numbers, torch's devices and paths; what is stored and compared afterwards is plain Python. Cheap to
import: no tensors, no models.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from bson import ObjectId
from fiftyone.core.collections import SampleCollection

LONGEST_TEXT = 4_096
"""Characters of a name, a path or a template; more is a mistake."""

LARGEST_SEED = 2**31 - 1
"""Every generator in use takes a seed up to here."""

MOST = 10_000_000
"""Pairs that can be asked for at a time."""

LONGEST_SHOWN = 100
"""Characters of a wrong value that a message repeats."""


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Kind(Protocol):
    """A kind of value."""

    def __call__(self, name: str, value: Any) -> Any:
        """The value as plain Python.

        Args:
            name: of the argument, for the message
            value: what was passed

        Raises:
            ValueError: if it cannot serve
        """
        ...


@dataclass(frozen=True)
class Anything:
    """Any value, as it is; somebody else checks it."""

    def __call__(self, name: str, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class WholeNumber:
    """An integer between two bounds, both included; numpy's and zero-dimensional tensors' too.

    Args:
        minimum: the least
        maximum: the greatest
    """

    minimum: int = 0
    maximum: int = MOST

    def __call__(self, name: str, value: Any) -> int:
        found = None
        if not _is_flag(value):
            with contextlib.suppress(TypeError):
                found = operator.index(value)
        if found is None:
            raise ValueError(f"{name} must be a whole number, not {shown(value)}.")
        if found < self.minimum:
            raise ValueError(f"{name} must be at least {self.minimum}, not {shown(found)}.")
        if found > self.maximum:
            raise ValueError(f"{name} must be at most {self.maximum:,}, not {shown(found)}.")
        return found


@dataclass(frozen=True)
class Number:
    """A finite number between two bounds.

    Args:
        minimum: the least
        maximum: the greatest; None for no bound
        above: whether the minimum itself is excluded
        unless: why the bounds are what they are, to end the message
        called: what the number is, for the message
    """

    minimum: float = 0.0
    maximum: float | None = None
    above: bool = False
    unless: str = ""
    called: str = "a finite number"

    def __call__(self, name: str, value: Any) -> float:
        if _is_flag(value) or not (isinstance(value, Real) or _is_scalar(value)):
            raise ValueError(f"{name} must be a number, not {shown(value)}.")
        try:
            found = float(value)
        except OverflowError:  # a whole number that no float can hold
            found = math.inf
        fits = math.isfinite(found) and (found > self.minimum if self.above else found >= self.minimum)
        if not fits or (self.maximum is not None and found > self.maximum):
            raise ValueError(f"{name} must be {self.called} {self._range()}, not {found:g}{self.unless}.")
        return found

    def _range(self) -> str:
        least = f"above {self.minimum:g}" if self.above else f"of at least {self.minimum:g}"
        if self.maximum is None:
            return least
        return f"{least} and up to {self.maximum:g}" if self.above else f"between {self.minimum:g} and {self.maximum:g}"


PROBABILITY = Number(0.0, 1.0, called="a probability")
SHARE = Number(0.0, 1.0, above=True, called="a share")
SHARE_OF_PAIRS = Number(0.0, 1.0, called="a share of the pairs")


@dataclass(frozen=True)
class Text:
    """A text that can be stored, or a path.

    Args:
        longest: characters at most
    """

    longest: int = LONGEST_TEXT

    def __call__(self, name: str, value: Any) -> str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, not {shown(value)}.")
        return _storable(name, str(value), self.longest)


@dataclass(frozen=True)
class Texts:
    """Several texts; a single one stands for a list of it alone."""

    def __call__(self, name: str, value: Any) -> list[str]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
            raise ValueError(f"{name} must be a list of texts, not {shown(value)}.")
        return [_storable(name, str(each), LONGEST_TEXT) for each in given]


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def __call__(self, name: str, value: Any) -> bool:
        if not _is_flag(value):
            raise ValueError(f"{name} must be True or False, not {shown(value)}.")
        return bool(value)


@dataclass(frozen=True)
class Samples:
    """A FiftyOne Dataset or view."""

    def __call__(self, name: str, value: Any) -> SampleCollection:
        if not isinstance(value, SampleCollection):
            raise ValueError(f"{name} must be a FiftyOne Dataset or view, not {type(value).__name__}.")
        return value


@dataclass(frozen=True)
class SettingsByName:
    """A dictionary of settings; what each may be is checked where it is used.

    Args:
        known: the names that there may be; empty for any
    """

    known: tuple[str, ...] = ()

    def __call__(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
            raise ValueError(f"{name} must be a dictionary of settings by their names, not {shown(value)}.")
        if strange := set(value) - set(self.known or value):
            raise ValueError(f"{name} has no setting {shown(min(strange))}; there are {', '.join(self.known)}.")
        return dict(value)


class Reporter:
    """Whether and where progress is shown."""

    def __call__(self, name: str, value: Any) -> Any:
        if value is None or isinstance(value, bool) or callable(value):
            return value
        raise ValueError(f"{name} must be True, False, None or a function of (step, done, total), not {value!r}.")


@dataclass(frozen=True)
class Choice:
    """One of a few values.

    Args:
        choices: what each value means, in words for a form
    """

    choices: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"{name} must be one of {', '.join(self.choices)}, not {shown(value)}.")
        return value


@dataclass(frozen=True)
class Device:
    """The name of a torch device; whether it is there is asked when the work begins."""

    def __call__(self, name: str, value: Any) -> str:
        if type(value).__name__ == "device" and type(value).__module__ == "torch":
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a device such as 'cpu' or 'cuda:1', not {shown(value)}.")
        return _storable(name, value, 64)


@dataclass(frozen=True)
class SampleId:
    """The id of a sample; whether there is such a sample is asked later."""

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not ObjectId.is_valid(value):
            raise ValueError(f"{name} must be the id of a sample, not {shown(value)}.")
        return value


@dataclass(frozen=True)
class AbsolutePath:
    """A path from the root or, by ``~``, the home folder on; whether something is there is asked later."""

    def __call__(self, name: str, value: Any) -> Path:
        try:
            place = Path(Text()(name, value)).expanduser()
            place.exists()
        except (OSError, RuntimeError) as error:  # too long a name, a folder that may not be read, an unknown user
            raise ValueError(f"{name} {shown(value)} cannot be used: {error}.") from error
        if not place.is_absolute():
            raise ValueError(f"{shown(value)} is not an absolute path: begin with / or ~.")
        return place


COUNT = WholeNumber(1)
"""How many pairs to show, to remove, to blame."""


def checked(**kinds: Kind) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A function whose arguments are converted, or refused in plain words, before it begins.

    Args:
        **kinds: of some of its parameters; one whose default is None may be None

    Returns:
        a decorator
    """

    def of(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)
        optional = {name for name, parameter in signature.parameters.items() if parameter.default is None}

        @functools.wraps(function)
        def called(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
            given = signature.bind(*arguments, **named)
            for name in kinds.keys() & given.arguments.keys():
                if given.arguments[name] is not None or name not in optional:
                    given.arguments[name] = kinds[name](name, given.arguments[name])
            return function(*given.args, **given.kwargs)

        return called

    return of


def at_most(limit: Any, name: str = "limit") -> int | None:
    """How many pairs are wanted at most; None for all of them.

    Raises:
        ValueError: unless it is a whole number of at least 1, or None
    """
    return None if limit is None else COUNT(name, limit)


def shown(value: Any) -> str:
    """A wrong value as a message repeats it."""
    try:
        words = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        words = f"a {type(value).__name__} that is too long to show"
    return words if len(words) <= LONGEST_SHOWN else f"{words[:LONGEST_SHOWN]}…"


def _storable(name: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise ValueError(f"{name} is {len(text):,} characters long; at most {longest:,} can be used.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a character that cannot be stored as text: {shown(text)}.") from None
    return text


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (type(value).__name__ in ("bool_", "bool") and hasattr(value, "dtype"))


def _is_scalar(value: Any) -> bool:
    """Whether this is a zero-dimensional array or tensor of numbers."""
    return getattr(value, "shape", None) == () and hasattr(value, "item") and isinstance(value.item(), Real)
