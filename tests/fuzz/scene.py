"""Twelve pairs with stored embeddings and a run with a trace; made anew where an accepted input changed them."""

from pathlib import Path

import fiftyone as fo
import numpy as np

import fiftyone_ecif as ecif
from tests.fuzz.inputs import state_of

KEY, SHIFT, PREFERENCES = "first", "shifted", "preferred"
VECTORS = dict(image="image_vector", query="text_vector")
FIELDS = dict(image_embeddings="image_vector", text_embeddings="text_vector")
SUGGESTED = dict(chosen_field="caption", negatives="fixed", suspects_run=KEY, min_confidence=0.5, progress=False)
QUICK = dict(text_field="caption", rounds=1, batch_size=6, progress=False, **FIELDS)


def unscored(paths: list[str]) -> fo.Dataset:
    """The pairs without a run; every third caption is another pair's."""
    random = np.random.default_rng(0)
    shown = random.normal(size=(12, 6))
    said = shown[[(row + 5) % 12 if row % 3 == 0 else row for row in range(12)]]
    dataset = fo.Dataset()
    dataset.add_samples(
        fo.Sample(
            filepath=path,
            caption=f"caption {row}",
            captions=[f"caption {row}", "another caption"],
            ground_truth=fo.Classification(label=f"label {row % 3}"),
            image_vector=shown[row].tolist(),
            text_vector=(said[row] + 0.1 * random.normal(size=6)).tolist(),
        )
        for row, path in enumerate(paths)
    )
    return dataset


class Scene:
    """Datasets with a run to try inputs on.

    Args:
        paths: of twelve images
        folder: for what is written

    Attributes:
        whole: stays as it is
        dataset: a copy of it
        results: the run
        shift: a run of the shift from the first half to the second
        preferences: pairs of the run's suggestions against what they replace
        trace: its trace, under the key "kept"
        failing_here: the id of a sample that the run's heads answer wrong
    """

    def __init__(self, paths: list[str], folder: Path) -> None:
        self.whole, self.folder = unscored(paths), folder
        results = ecif.compute_influence(self.whole, run_key=KEY, **QUICK)
        suspects = results.misaligned(limit=4).values("id")
        labels = {id: fo.Classification(label="a better caption", confidence=0.9) for id in suspects}
        self.whole.set_values(f"{KEY}_suggestion", labels, key_field="id")
        sets = self.whole.limit(6), self.whole.skip(6)
        ecif.compute_shift(*sets, run_key=SHIFT, embeddings=VECTORS, resamples=2, progress=False)
        ecif.build_preferences(self.whole, run_key=PREFERENCES, **SUGGESTED)
        self._failing = ecif.find_failures(self.whole, KEY, progress=False).first().filepath
        self._make()

    def _make(self) -> None:
        self.dataset = self.whole.clone()
        self.results = ecif.load_results(self.dataset, KEY)
        self.shift = ecif.load_shift(self.dataset, SHIFT)
        self.preferences = ecif.load_preferences(self.dataset, PREFERENCES)
        self.failing_here = self.dataset[self._failing].id
        self.trace = self.results.trace(self.failing_here, k=3, key="kept", progress=False)
        self._state = state_of(self.dataset)

    def new_folder(self) -> str:
        """The path of a folder that is not there yet."""
        return str(self.folder / f"exported-{len(list(self.folder.iterdir()))}")

    def restored(self) -> "Scene":
        """The scene as it was at first."""
        if state_of(self.dataset) != self._state or self.results.list_traces() != ["kept"]:
            self.dataset.delete()
            self._make()
        return self
