"""How a model's images are preprocessed: mean, standard deviation, interpolation and the way of resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL.Image import Image
from torch import Tensor, nn

from fiftyone_ecif.models.description import DESCRIPTION, OWN, Description, differences

Preprocess = Callable[[Image], Tensor]
"""Turns a PIL image into a tensor (3, H, W)."""

INTERPOLATIONS = ("bicubic", "bilinear", "random")
"""Those that open_clip knows; "random" is for training, and bicubic otherwise."""
RESIZE_MODES = ("shortest", "longest", "squash")
"""The shortest side is resized and the rest is cut; the longest side, and the rest is filled; or both sides."""

PACKAGED = Path(__file__).parent / "configs"
"""Architectures of this package, which are trained with open_clip's default preprocessing."""

_NUMBERS = ("mean", "std")
_NAMES = ("interpolation", "resize_mode")

SETTINGS = (*_NUMBERS, *_NAMES, "fill_color")
"""The names of the settings that matter."""


def checked_preprocess(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the preprocessing in one form, for one that a person or a file gave.

    Args:
        values: any of "mean" and "std" (three numbers each, for pixels in 0..1), "interpolation" ("bicubic" or
            "bilinear"), "resize_mode" ("shortest", "longest" or "squash") and "fill_color" (0 to 255)

    Returns:
        those settings, tuples in place of lists

    Raises:
        ValueError: if a name or a value is none of these
    """
    if not isinstance(values, Mapping) or not set(values) <= set(SETTINGS):
        raise ValueError(f"preprocess is a mapping from some of {', '.join(SETTINGS)}, not {values!r}.")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in _NUMBERS:
            numbers = tuple(value) if isinstance(value, list | tuple) else ()
            if len(numbers) != 3 or not all(_is_number(number) for number in numbers):
                raise ValueError(f"preprocess: {name!r} is three numbers, one for each colour, not {value!r}.")
            if name == "std" and min(numbers) <= 0:
                raise ValueError(f"preprocess: 'std' is three positive numbers, not {value!r}.")
            found[name] = numbers
        elif name in _NAMES:
            choices = INTERPOLATIONS if name == "interpolation" else RESIZE_MODES
            if value not in choices:
                raise ValueError(f"preprocess: {name!r} is one of {', '.join(choices)}, not {value!r}.")
            found[name] = value
        else:
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise ValueError(f"preprocess: 'fill_color' is a whole number from 0 to 255, not {value!r}.")
            found[name] = value
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


def of_tag(name: str, tag: str) -> dict[str, Any]:
    """The preprocessing that open_clip knows for one of its tags."""
    return _known(open_clip.get_pretrained_cfg(name, tag))


def of_description(described: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The preprocessing that a description's file states, read as open_clip reads it.

    Args:
        described: its "preprocess_cfg"
        path: of the folder, for errors

    Raises:
        ValueError: if a value makes no sense
    """
    try:
        return _known(described)
    except ValueError as error:
        raise ValueError(f"{path / DESCRIPTION}: {error}") from error


def of_architecture(name: str) -> dict[str, Any] | None:
    """The preprocessing that all weights of an architecture share.

    Args:
        name: open_clip's name of it

    Returns:
        the preprocessing; None where there are no tags, or they disagree
    """
    if (PACKAGED / f"{name}.json").is_file():
        return {}
    found = [of_tag(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    return found[0] if found and all(other == found[0] for other in found) else None


def beside(checkpoint: Path, name: str, config: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The preprocessing that a description beside a checkpoint states, if it is about the same architecture.

    Args:
        checkpoint: the checkpoint's path
        name: of the architecture that it is loaded into
        config: open_clip's configuration of that

    Returns:
        the preprocessing, or None; and what the user should know
    """
    folder = checkpoint.absolute().parent
    if not (folder / DESCRIPTION).is_file():
        return None, []
    try:
        described = Description.read(folder)
        preprocess = None if described.preprocess is None else of_description(described.preprocess, folder)
    except ValueError as error:
        return None, [f"{error} It is not used for {checkpoint.name}."]
    if other := differences(config, described.model, OWN):
        note = (
            f"{folder / DESCRIPTION} describes another model than {name} ({other}), and is not used for "
            f"{checkpoint.name}. If the checkpoint is of that model, load local-dir:{folder} with it."
        )
        return None, [note]
    return preprocess, []


def unknown(checkpoint: str, name: str) -> str:
    """What to say where nothing tells how a checkpoint's images were preprocessed."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    why = f"the published weights of {name} differ in that" if tags else f"{name} has no published weights"
    return (
        f"How the images for {checkpoint} were preprocessed is not known, since {why}. OpenAI's way is used: "
        f"{in_words({})}. If it was another one, pass preprocess=, or put {DESCRIPTION} beside the checkpoint."
    )


def in_full(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the preprocessing, with open_clip's defaults for those that are left out."""
    return asdict(PreprocessCfg()) | dict(preprocess)


def in_words(preprocess: Mapping[str, Any]) -> str:
    """Settings of the preprocessing as a person reads them; what is left out is open_clip's default."""
    full = in_full(preprocess)
    mean, std = (" ".join(f"{number:.3f}" for number in full[name]) for name in _NUMBERS)
    return f"mean {mean}, standard deviation {std}, {full['interpolation']}, {full['resize_mode']} side"


def transform(model: nn.Module) -> Preprocess:
    """The validation transform that a model's ``visual.preprocess_cfg`` describes."""
    settings: Any = model.get_submodule("visual").preprocess_cfg
    made: Preprocess = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return made


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that matter out of an entry with others, of a file or of a tag."""
    return checked_preprocess({name: values[name] for name in SETTINGS if values.get(name) is not None})
