"""Functions whose signature and documentation are those of a request."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from fiftyone_ecif.dataset.compute.request import PARAMETERS
from fiftyone_ecif.dataset.parameters import described

Result = TypeVar("Result")


def takes(request: type, *leading: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """A decorator: a function of collections and a request becomes one of the collections and each parameter.

    Its docstring says ``{parameters}`` where their descriptions go.

    Args:
        request: a dataclass whose fields are described as those of ``RunRequest``
        leading: the names of the parameters before the request
    """
    known = {each.name: each for each in fields(request)}

    def of(function: Callable[..., Result]) -> Callable[..., Result]:
        signature = inspect.signature(function)
        kept = [signature.parameters[name] for name in leading]
        signature = signature.replace(parameters=[*kept, *parameters(known, known)])

        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> Result:
            given = signature.bind(*arguments, **named).arguments
            first = [given.pop(name) for name in leading]
            return function(*first, request(**given))

        return documented(called, signature, known, known)

    return of


def parameters(names: Iterable[str], known: Mapping[str, Field] = PARAMETERS) -> list[inspect.Parameter]:
    """Some parameters of a request as parameters of a function."""
    found = []
    for name in names:
        each = known[name]
        named = described(each).keyword_only
        kind = inspect.Parameter.KEYWORD_ONLY if named else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append(inspect.Parameter(name, kind, default=each.default, annotation=each.type))
    return found


def documented(
    function: Callable[..., Result],
    signature: inspect.Signature,
    names: Iterable[str],
    known: Mapping[str, Field] = PARAMETERS,
) -> Callable[..., Result]:
    """The function with a signature, and descriptions of some parameters of a request in its docstring."""
    lines = [
        textwrap.fill(
            f"{name}: {described(known[name]).description}",
            width=120,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name in names
    ]
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = (function.__doc__ or "").replace("{parameters}", "\n".join(lines).strip())
    return function
