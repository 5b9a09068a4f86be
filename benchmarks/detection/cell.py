"""One cell of the detection benchmark: what every method is given, and the truth; saved, so that it can be replayed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.models.model import in_memory
from fiftyone_ecif.core import Head, Pairs, embeddings_under
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.features import ArrayPairs


@dataclass(frozen=True)
class Classes:
    """What class-labelled pairs have in addition.

    Attributes:
        names: K classes
        given: (N,) int64, the class that a pair's caption names
        true: (N,) int64, the class that its image shows; None where nobody knows
        prompts: (K, T, F_text), text features of T prompts per class
    """

    names: list[str]
    given: np.ndarray
    true: np.ndarray | None
    prompts: Tensor

    def embeddings(self, head: Head) -> np.ndarray:
        """(K, D) unit vectors: each class's mean prompt."""
        count, prompts, width = self.prompts.shape
        flat = self.prompts.reshape(-1, width)
        text = head.linearize(torch.zeros(len(flat), head.image_weight.shape[1]), flat).text
        return torch.nn.functional.normalize(text.reshape(count, prompts, -1).mean(1), dim=1).numpy()


@dataclass(frozen=True)
class Cell:
    """The inputs of all methods.

    Attributes:
        pairs: tower features of the N pairs
        head: the model's own
        loss: the model's, a key of :data:`~fiftyone_ecif.core.LOSSES`
        captions: N, as they are in the noisy data
        planted: (N,) bool, True where the caption is wrong; None where nobody knows
        classes: of class-labelled pairs; None for free captions
        views: the same with each image's mean over mild views; None where the model was not at hand
        trusted: (N,) bool, pairs that somebody has marked as right; the figures leave them out
        settings: where the cell came from: data, noise, rate, regime, seed, ...
        originals: N, the captions before noise was planted among them; None where nobody knows
    """

    pairs: ArrayPairs
    head: Head
    loss: str
    captions: list[str]
    planted: np.ndarray | None
    classes: Classes | None
    views: ArrayPairs | None
    trusted: np.ndarray
    settings: dict[str, str | int | float | None]
    originals: list[str] | None = None

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """u_n and v_n under the given head, (N, D) each."""
        image, text = embeddings_under(self.pairs, self.head)
        return image.numpy(), text.numpy()

    def texts(self) -> list[str]:
        """What a run's text field would hold: the captions or, for class-labelled pairs, the names of the classes."""
        return [self.classes.names[number] for number in self.classes.given] if self.classes else self.captions

    def scored(self) -> tuple[Pairs, Pairs | None]:
        """Pairs and views as a run has them, whose text field holds :meth:`texts`."""
        if not self.classes:
            return self.pairs, self.views
        texts = self.texts()
        return LabelledPairs(self.pairs, texts), None if self.views is None else LabelledPairs(self.views, texts)

    def save(self, path: Path) -> None:
        """Write the cell as a safetensors file, complete or not at all."""
        arrays: dict[str, Tensor | np.ndarray | None] = {
            "image_features": self.pairs.image,
            "text_features": self.pairs.text,
            "planted": self.planted,
            "trusted": self.trusted,
            **{f"head.{name}": value for name, value in vars(self.head).items()},
        }
        if self.classes:
            arrays |= {f"classes.{name}": getattr(self.classes, name) for name in ("given", "true", "prompts")}
        if self.views:
            arrays["view_features"] = self.views.image
        described = {
            "captions": self.captions,
            "originals": self.originals,
            "loss": self.loss,
            "class_names": self.classes and self.classes.names,
            "settings": self.settings,
        }
        tensors = {
            name: torch.as_tensor(value).contiguous().clone() for name, value in arrays.items() if value is not None
        }
        part = path.with_name(path.name + ".part")
        save_file(tensors, part, {"cell": json.dumps(described)})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Cell:
        """Read what :meth:`save` wrote."""
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            described = json.loads(file.metadata()["cell"])

        def array(name: str) -> np.ndarray | None:
            return tensors[name].numpy() if name in tensors else None

        head = Head(
            **{name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        )
        classes = None
        if described["class_names"] is not None:
            given = tensors["classes.given"].numpy()
            classes = Classes(described["class_names"], given, array("classes.true"), tensors["classes.prompts"])
        return cls(
            in_memory(tensors["image_features"], tensors["text_features"]),
            head,
            described["loss"],
            described["captions"],
            array("planted"),
            classes,
            in_memory(tensors["view_features"], tensors["text_features"]) if "view_features" in tensors else None,
            tensors["trusted"].numpy(),
            described["settings"],
            described.get("originals"),  # which cells of before they were kept lack
        )
