"""The part of a form that says where the pairs' features come from: a model, or stored embeddings."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset.arguments import Choice, Text
from fiftyone_ecif.dataset.compute.request import ASKED
from fiftyone_ecif.dataset.parameters import DEFAULT_MODEL
from fiftyone_ecif.plugin.forms import dropdown, given, invalidate, notice, passes

SOURCES = {"model": "A model", "embeddings": "Embeddings stored in fields"}
"""Where features can come from."""

FOLDER = "local-dir:"
"""What the name of a model begins with that a folder holds."""

OWN_WEIGHTS = "Left empty, the weights that come with this model; or the path of a checkpoint"


@functools.cache
def model_names() -> list[str]:
    """The names of open_clip's models, including those of this package."""
    import open_clip

    import fiftyone_ecif.models  # noqa: F401  registers its models with open_clip

    return open_clip.list_models()


@functools.cache
def pretrained_tags(model: str) -> list[str]:
    """open_clip's tags of a model; the SDK's default comes first if it is one of them."""
    import open_clip

    return sorted(open_clip.list_pretrained_tags_by_model(model), key=lambda tag: (model, tag) != DEFAULT_MODEL)


@functools.cache
def devices() -> list[str]:
    """The devices of this machine."""
    import torch

    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def embedding_fields(dataset: fo.Dataset) -> list[str]:
    """The dataset's fields that can hold an embedding per sample."""
    vectors = dataset.get_field_schema(ftype=(fo.VectorField, fo.ArrayField))
    lists = dataset.get_field_schema(ftype=fo.ListField, subfield=fo.FloatField)
    return [*vectors, *lists]


def uses_embeddings(ctx: foo.ExecutionContext) -> bool:
    """Whether the features come from stored embeddings, not from a model."""
    return given(ctx, "features", Choice(SOURCES), "model") == "embeddings"


def choose_features(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Add the choice between a model and, if the dataset has at least two such fields, stored embeddings.

    Parameters of the form: ``features`` ("model" or "embeddings"), then ``model``, ``pretrained`` and ``preprocess``,
    or ``image_embeddings`` and ``text_embeddings``.
    """
    fields = embedding_fields(ctx.dataset)
    if len(fields) >= 2:
        choose_source(inputs)
    if uses_embeddings(ctx):
        _choose_embeddings(ctx, inputs, fields)
    elif choose_model(ctx, inputs):
        _choose_preprocess(ctx, inputs)


def choose_source(inputs: types.Object) -> None:
    """Add the choice between a model and stored embeddings, as ``features``."""
    choices = types.RadioGroup(orientation="horizontal")
    for value, label in SOURCES.items():
        choices.add_choice(value, label=label)
    inputs.enum("features", choices.values(), default="model", label="Features from", view=choices)


def choose_model(ctx: foo.ExecutionContext, inputs: types.Object, more: Sequence[str] = ()) -> bool:
    """Add the choice of a model and its weights, as ``model`` and ``pretrained``.

    Args:
        ctx: of the operator
        inputs: the form
        more: names that are none of open_clip's and bring weights of their own

    Returns:
        whether the weights come from a file or a folder, which may say nothing of how images are prepared
    """
    names = [*more, *model_names()]
    model = given(ctx, "model", Text(), DEFAULT_MODEL[0])
    field = inputs.str(
        "model",
        default=DEFAULT_MODEL[0],
        label=ASKED["model"].label,
        description=ASKED["model"].hint,
        view=_suggestions(names),
    )
    if model in more:
        return False
    described = ":" in model  # "hf-hub:…" and "local-dir:…" bring their own weights
    if not described and model not in names:
        invalidate(field, f"open_clip has no model named {model!r}.")
        return False
    folder = model.removeprefix(FOLDER)
    if folder != model and not Path(folder).is_dir():
        invalidate(field, f"There is no folder {folder!r}.")
        return False

    tags = [] if described else pretrained_tags(model)
    weights = inputs.str(
        "pretrained",
        default=tags[0] if tags else None,
        label=ASKED["pretrained"].label,
        description=OWN_WEIGHTS if described else ASKED["pretrained"].hint,
        view=_suggestions(tags),
    )
    chosen = _chosen_weights(ctx, described)
    is_file = chosen is not None and Path(chosen).is_file()
    if chosen and chosen not in tags and not is_file:
        known = f"whose tags are {', '.join(tags)}" if tags else "which has no tags"
        invalidate(weights, f"{chosen!r} is neither a file nor a tag of {model}, {known}.")
    elif not chosen and not described and model != DEFAULT_MODEL[0]:
        warning = "Without weights the model is random, and its scores mean nothing."
        notice(inputs, "random_weights", types.Warning, warning)
    return described or is_file


def _choose_preprocess(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    asked = ASKED["preprocess"]
    field = inputs.str("preprocess", label=asked.label, description=asked.hint)
    passes(field, _chosen_preprocess, ctx)


def model_arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """What the form says of the model, as arguments of :func:`fiftyone_ecif.compute_influence`."""
    preprocess = _chosen_preprocess(ctx)
    return named_model(ctx) | ({} if preprocess is None else {"preprocess": preprocess})


def named_model(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The arguments ``model`` and ``pretrained``, as far as the form names them."""
    model = given(ctx, "model", ASKED["model"].kind)
    found = {"model": model, "pretrained": _chosen_weights(ctx, ":" in (model or ""))}
    return {name: value for name, value in found.items() if value is not None}


def _chosen_weights(ctx: foo.ExecutionContext, described: bool) -> str | None:
    """The tag or checkpoint; a model with weights of its own has no tags, and one that is still named means another."""
    chosen = given(ctx, "pretrained", Text())
    return None if described and chosen in _all_tags() else chosen


@functools.cache
def _all_tags() -> set[str]:
    import open_clip

    return {tag for _, tag in open_clip.list_pretrained()}


def _chosen_preprocess(ctx: foo.ExecutionContext) -> dict[str, Any] | None:
    """The settings of the preprocessing; raises a ValueError if the text is none."""
    text = given(ctx, "preprocess", TextOrSettings())
    if text is None:
        return None
    from fiftyone_ecif.models.preprocessing import checked_preprocess  # brings torch

    return checked_preprocess(text)


class TextOrSettings:
    """Settings by name, or the text of a JSON object with them."""

    def __call__(self, name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ValueError(f"This is no JSON: {error}.") from error
        return ASKED["preprocess"].kind(name, value)


def _suggestions(values: list[str]) -> types.AutocompleteView:
    view = types.AutocompleteView(space=6)
    for value in values:
        view.add_choice(value, label=value)
    return view


def _choose_embeddings(ctx: foo.ExecutionContext, inputs: types.Object, fields: list[str]) -> None:
    for name, guess in (("image_embeddings", "image"), ("text_embeddings", "text")):
        default = next((field for field in fields if guess in field), None)
        inputs.enum(name, fields, default=default, label=ASKED[name].label, view=dropdown(fields, space=6))
    images, texts = (given(ctx, name, Text()) for name in ("image_embeddings", "text_embeddings"))
    if images and images == texts:
        invalidate(inputs.get_property("text_embeddings"), "Images and captions need different fields.")
