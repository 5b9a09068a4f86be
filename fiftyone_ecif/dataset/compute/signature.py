"""Functions whose signature and documentation are those of a request."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.compute.request import PARAMETERS, RunRequest, described

Result = TypeVar("Result")


def takes_request(function: Callable[[SampleCollection, RunRequest], Result]) -> Callable[..., Result]:
    """A function of (samples, request) as one of (samples, and each parameter).

    Its docstring says ``{parameters}`` where their descriptions go.
    """
    samples = inspect.Parameter("samples", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="SampleCollection")
    signature = inspect.signature(function).replace(parameters=[samples, *parameters(PARAMETERS)])

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Result:
        given = signature.bind(*arguments, **named).arguments
        return function(given.pop("samples"), RunRequest(**given))

    return documented(called, signature, PARAMETERS)


def parameters(names: Iterable[str]) -> list[inspect.Parameter]:
    """Some parameters of a request as parameters of a function."""
    found = []
    for name in names:
        each = PARAMETERS[name]
        named = described(each).keyword_only
        kind = inspect.Parameter.KEYWORD_ONLY if named else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append(inspect.Parameter(name, kind, default=each.default, annotation=each.type))
    return found


def documented(
    function: Callable[..., Result], signature: inspect.Signature, names: Iterable[str]
) -> Callable[..., Result]:
    """The function with a signature, and descriptions of some parameters of a request in its docstring."""
    lines = [
        textwrap.fill(
            f"{name}: {described(PARAMETERS[name]).description}",
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
