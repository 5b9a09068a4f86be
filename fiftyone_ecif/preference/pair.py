"""What a preference pair is, and which of several are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PreferencePair:
    """A prompt about an image with a better and a worse answer.

    Attributes:
        sample_id: of the image's sample
        path: of the image
        prompt: what is asked
        chosen: the better answer
        rejected: the worse one
        origin: of the worse one: "fixed", "image_weakened" or "error_injected"
        t: step of the noise that it was given under; None for other origins
        grounding: how far the fit of the worse answer falls when the image is weakened, in nats (per token where a
            model's likelihood is taken): low for one that is as likely without the image; None where nothing tells
        key: 16 hexadecimal digits that tell the pair from others of its run, made of its texts; a pair whose texts are
            edited keeps it
    """

    sample_id: str
    path: str
    prompt: str
    chosen: str
    rejected: str
    origin: str
    t: int | None = None
    grounding: float | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            parts = [self.sample_id, self.prompt, self.chosen, self.rejected]
            object.__setattr__(self, "key", hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])


def distinct(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """The pairs without repetitions: of those that say the same of the same sample, the first."""
    found: dict[tuple[str, ...], PreferencePair] = {}
    for each in pairs:
        said = (" ".join(text.casefold().split()) for text in (each.prompt, each.chosen, each.rejected))
        found.setdefault((each.sample_id, *said), each)
    return list(found.values())
