"""How the argument ``samples`` travels through ``compute_influence``, and how often the database is asked for values.

Run it with ``python scripts/walk_argument.py``; it starts a database of its own and needs nothing else. It runs
``compute_influence`` on a small made-up dataset twice, with stored embeddings and with the model ecif-tiny, and watches
every call of a function of the package. An argument counts as ``samples`` if it is the collection itself.

- stays: functions that receive it
- files: in which those are
- returns: how often a function that handed it on gets control back and hands it on again
- questions: calls that ask the database for values of samples, and who makes them
"""

from __future__ import annotations

import sys
import tempfile
import threading
import warnings
from collections import Counter
from inspect import CO_GENERATOR
from pathlib import Path
from types import CodeType, FrameType

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.conftest import own_fiftyone  # it is imported before FiftyOne, which must find the database

PAIRS = 24
COLORS, THINGS = ("red", "green", "blue", "grey"), ("cat", "dog", "tree", "car", "house", "boat")
ASKING = ("values", "aggregate", "count", "distinct", "bounds", "iter_samples", "first", "last", "head", "tail")


class Walk:
    """Where an object goes in a package; ``asking`` are the functions that ask the database, by their code."""

    def __init__(self, package: Path, followed: object, asking: dict[CodeType, str]) -> None:
        self.package, self.followed, self.asking = f"{package}/", followed, asking
        self.stays: Counter[str] = Counter()
        self.handed_on: Counter[FrameType] = Counter()
        self.questions: Counter[tuple[str, str]] = Counter()
        self.generators: set[FrameType] = set()

    def __enter__(self) -> Walk:
        threading.setprofile(self.on_event)
        sys.setprofile(self.on_event)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  (typeshed: None turns it off)

    def on_event(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        caller, is_inner = self.caller(frame)
        if frame.f_code in self.asking:
            if caller is not None and not is_inner:
                self.questions[self.name(caller), self.asking[frame.f_code]] += 1
        elif self.is_own(frame) and self.receives(frame):
            self.stays[self.name(frame)] += 1
            if caller is not None:
                self.handed_on[caller] += 1

    def is_own(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.package)

    def receives(self, frame: FrameType) -> bool:
        code = frame.f_code
        if code.co_flags & CO_GENERATOR:  # it is called anew for each of its values
            if frame in self.generators:
                return False
            self.generators.add(frame)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return any(frame.f_locals.get(name) is self.followed for name in names)

    def caller(self, frame: FrameType) -> tuple[FrameType | None, bool]:
        """The nearest function of the package below a call, and whether another question lies between the two."""
        below, is_inner = frame.f_back, False
        while below is not None and not self.is_own(below):
            is_inner |= below.f_code in self.asking
            below = below.f_back
        return below, is_inner

    def name(self, frame: FrameType) -> str:
        return f"{frame.f_code.co_filename.removeprefix(self.package)}:{frame.f_code.co_name}"

    def report(self, title: str) -> str:
        files = {stay.partition(":")[0] for stay in self.stays}
        returns = sum(times - 1 for times in self.handed_on.values())
        asked = sum(self.questions.values())
        lines = [
            f"{title}: {len(self.stays)} stays, {len(files)} files, {returns} returns, {asked} questions",
            "  stays",
        ]
        lines += [f"    {stay}  × {times}" for stay, times in sorted(self.stays.items())]
        lines += [
            "  questions",
            *(f"    {who} asks {how}()  × {n}" for (who, how), n in sorted(self.questions.items())),
        ]
        return "\n".join(lines)


def made_up_dataset(folder: Path):
    """Pairs of noisy images and captions, with embeddings of both."""
    import fiftyone as fo
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    dataset = fo.Dataset()
    for number in range(PAIRS):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        caption = f"a {COLORS[number % len(COLORS)]} {THINGS[number % len(THINGS)]}"
        vector = rng.normal(size=8)
        image, text = vector + rng.normal(size=(2, 8)) / 4
        dataset.add_sample(fo.Sample(filepath=str(path), caption=caption, image=image, text=text))
    return dataset


def main() -> None:
    """Print both walks."""
    own_fiftyone()
    from fiftyone.core.collections import SampleCollection

    import fiftyone_ecif as ecif
    import fiftyone_ecif.models  # what is imported once is no part of the walk

    asking = {getattr(SampleCollection, name).__code__: name for name in ASKING if hasattr(SampleCollection, name)}
    ways = {
        "stored embeddings": dict(run_key="stored", image_embeddings="image", text_embeddings="text"),
        "ecif-tiny": dict(run_key="tiny", model="ecif-tiny", device="cpu", num_workers=0),
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = made_up_dataset(Path(folder))
        for title, options in ways.items():
            with Walk(Path(ecif.__file__).parent, dataset, asking) as walk:
                ecif.compute_influence(dataset, "caption", progress=False, **options)
            print(walk.report(title))


if __name__ == "__main__":
    main()
