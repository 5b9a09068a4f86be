"""What the operators that compute runs have alike: their signature, the run's key, and the advanced settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset import checks
from fiftyone_ecif.dataset.arguments import Choice, Device, Flag, Text, WholeNumber
from fiftyone_ecif.dataset.compute.signature import documented, parameters
from fiftyone_ecif.dataset.parameters import Parameter, Request
from fiftyone_ecif.plugin.forms import dropdown, given, passes
from fiftyone_ecif.plugin.operators.model_form import devices

AUTO = "auto"
"""The device that the SDK chooses."""


def takes_form(
    request: type[Request], asked: Mapping[str, Parameter]
) -> Callable[[Callable[..., foo.ExecutionResult]], Callable[..., foo.ExecutionResult]]:
    """A decorator: a method with ``delegate`` and ``parameters`` gets the signature of what a form asks for.

    Parameters that the method does not name itself have the default None: the form's own.

    Args:
        request: the dataclass whose fields are asked for
        asked: those that are
    """
    known = {each.name: each for each in fields(request)}  # type: ignore[arg-type]  # of a dataclass

    def of(function: Callable[..., foo.ExecutionResult]) -> Callable[..., foo.ExecutionResult]:
        own = dict(inspect.signature(function).parameters)
        last = own.pop("delegate")
        leading = [each for each in own.values() if each.kind is not each.VAR_KEYWORD]
        rest = parameters([name for name in asked if name not in own], known)
        middle = [each.replace(default=None, kind=last.kind) for each in rest]
        signature = inspect.Signature([*leading, *middle, last])

        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> foo.ExecutionResult:
            return function(**signature.bind(*arguments, **named).arguments)

        return documented(called, signature, asked, known)

    return of


def proposed_run_key(dataset: fo.Dataset, first: str) -> str:
    """The first of "<first>", "<first>_2", ... that is free."""
    return next(key for key in (first, *(f"{first}_{n}" for n in range(2, 1000))) if _is_free(dataset, key))


def _is_free(dataset: fo.Dataset, run_key: str) -> bool:
    try:
        checks.check_run_key(dataset, run_key)
    except ValueError:
        return False
    return True


def choose_run_key(
    ctx: foo.ExecutionContext, inputs: types.Object, asked: Parameter, proposed: str, method: str
) -> bool:
    """Ask for the run's key, and whether to replace the run that has it.

    Args:
        ctx: of the operator
        inputs: the form
        asked: the parameter
        proposed: a free key
        method: of the runs that may be replaced

    Returns:
        whether the key can serve
    """
    field = inputs.str("run_key", default=proposed, label=asked.label, description=asked.hint)
    run_key, overwrite = ctx.params.get("run_key", proposed), given(ctx, "overwrite", Flag(), False)
    if isinstance(run_key, str) and ctx.dataset.has_run(run_key):
        inputs.bool(
            "overwrite",
            default=False,
            label=f"Replace the run {run_key!r} and its fields",
            view=types.CheckboxView(),
        )
    return passes(field, checks.check_run_key, ctx.dataset, run_key, overwrite, method)


def choose_advanced(
    ctx: foo.ExecutionContext,
    inputs: types.Object,
    request: type[Request],
    asked: Mapping[str, Parameter],
    shown: Mapping[str, Any],
) -> dict[str, types.Property]:
    """Ask for the advanced settings of a request, each in the way that its kind says, if somebody wants to see them.

    Args:
        ctx: of the operator
        inputs: the form
        request: whose defaults are shown
        asked: its parameters that the form asks for
        shown: what the form shows in place of a default

    Returns:
        the fields whose values can serve, by name
    """
    inputs.bool("advanced", default=False, label="Advanced settings", view=types.SwitchView())
    if not given(ctx, "advanced", Flag(), False):
        return {}
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(request)}  # type: ignore[arg-type]
    sound = {}
    for name, each in asked.items():
        if each.advanced:
            field = _choose_by_kind(inputs, name, each, shown.get(name, defaults[name]))
            value = ctx.params.get(name)
            if value is not None and value != "" and passes(field, each.kind, each.label, value):
                sound[name] = field
    return sound


def _choose_by_kind(inputs: types.Object, name: str, asked: Parameter, default: Any) -> types.Property:
    """Add the choice of a parameter in the way that its kind says."""
    kind, words = asked.kind, {"default": default, "label": asked.label, "description": asked.hint}
    if isinstance(kind, Choice):
        return inputs.enum(name, list(kind.choices), view=dropdown(kind.choices, space=6), **words)
    if isinstance(kind, Device):
        choices = [AUTO, *devices()]
        return inputs.enum(name, choices, view=dropdown(choices, space=6), **words)
    if isinstance(kind, Flag):
        return inputs.bool(name, view=types.CheckboxView(), **words)
    if isinstance(kind, WholeNumber):
        return inputs.int(name, min=kind.minimum, max=kind.maximum, view=types.FieldView(space=6), **words)
    if isinstance(kind, Text):
        return inputs.str(name, view=types.FieldView(space=6), **words)
    return inputs.float(name, view=types.FieldView(space=6), **words)
