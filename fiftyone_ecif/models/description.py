"""open_clip_config.json: what makes a folder of weights a model, its architecture and its preprocessing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip.constants import HF_CONFIG_NAME

DESCRIPTION: str = HF_CONFIG_NAME

_SHOWN = 4


@dataclass(frozen=True)
class Description:
    """The content of an ``open_clip_config.json``.

    Attributes:
        model: open_clip's configuration of the architecture ("model_cfg")
        preprocess: what is known of the preprocessing ("preprocess_cfg"); None where the file says nothing
    """

    model: dict[str, Any]
    preprocess: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read a folder's description.

        Args:
            folder: holds ``open_clip_config.json``

        Raises:
            ValueError: if it does not, or the file is not one of open_clip's
        """
        path = folder / DESCRIPTION
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ValueError(f"{folder} is no folder of a model: it holds no {DESCRIPTION}.") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Description:
        """Read a description's text.

        Args:
            text: the file's content
            path: of the file, for errors

        Raises:
            ValueError: if it is not one of open_clip's
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
        model = content.get("model_cfg") if isinstance(content, dict) else None
        parts = ("vision_cfg", "text_cfg")
        if not isinstance(model, dict) or not all(isinstance(model.get(part), dict) for part in parts):
            raise ValueError(f"{path} does not describe a model: it has no 'model_cfg' with {' and '.join(parts)}.")
        preprocess = content.get("preprocess_cfg")
        return cls(model, preprocess if isinstance(preprocess, dict) else None)

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"model_cfg": self.model, "preprocess_cfg": self.preprocess}, indent=2) + "\n"


OWN = ("image_size", "context_length", "init_logit_bias")
"""Settings that are read from a checkpoint's own tensors."""

_PRETRAINED = ("timm_model_pretrained", "hf_model_pretrained")  # where single towers' first weights came from


def differences(ours: dict[str, Any], theirs: dict[str, Any], ignored: tuple[str, ...] = ()) -> str:
    """Name the settings in which two configurations describe different models.

    Args:
        ours: open_clip's configuration of one model
        theirs: of another
        ignored: settings that do not count

    Returns:
        up to four names, or an empty text
    """
    left, right = _settings(ours, ignored), _settings(theirs, ignored)
    missing = object()
    names = sorted(key for key in {*left, *right} if left.get(key, missing) != right.get(key, missing))
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _settings(config: dict[str, Any], ignored: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """A configuration's settings by dotted names; what is absent, None or False says the same."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _settings(value, ignored, f"{prefix}{name}.")
        elif name not in (*_PRETRAINED, *ignored) and value is not None and value is not False:
            found[prefix + name] = value
    return found
