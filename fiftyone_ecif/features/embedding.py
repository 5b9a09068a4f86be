"""Running the towers over pairs, once per image and caption, into a feature store."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fiftyone_ecif.core import HERE, Head, Progress, Workers
from fiftyone_ecif.features.batch_size import fastest_batch_size
from fiftyone_ecif.features.pairs import StoredPairs
from fiftyone_ecif.features.reading import PairRow, UnreadablePair, check_caption, read_image
from fiftyone_ecif.features.store import FeatureStore, row_key

if TYPE_CHECKING:  # open_clip takes long to import, and a worker of a cluster may never need it
    from fiftyone_ecif.models import ContrastiveModel

# Rows per shard: what a kill can cost, against the number of files.
SHARD_ROWS = 1024
# Rows between two calls of progress where no batch size is set.
REPORT_ROWS = 64
# Below this many images, starting worker processes takes longer than decoding.
_WORTH_WORKERS = 256


def embed_pairs(
    model: ContrastiveModel,
    rows: Sequence[PairRow],
    folder: str | os.PathLike,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    skip_failures: bool = True,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = HERE,
) -> StoredPairs:
    """Tower features of pairs; those already in the store are not computed again.

    Args:
        model: whose towers to run
        rows: the pairs
        folder: where stores are kept; the model gets a subfolder of its own
        batch_size: images or captions per forward pass; None for the fastest by trial, remembered
        num_workers: processes that decode images, for each of the workers; None for none with few images, else up to 4
        skip_failures: whether a pair that cannot be embedded is left out with its reason, or raises
        progress: called with the number of rows done and of all rows
        workers: what runs the towers; this process alone writes

    Returns:
        :class:`StoredPairs` in the order of ``rows``

    Raises:
        UnreadablePair: at the first pair that cannot be embedded, if ``skip_failures`` is False
        RuntimeError: if another process writes to the same store
        OSError: if features cannot be written, as on a full disk
    """
    report = progress or (lambda done, total: None)
    fingerprint, head = model.fingerprint, model.head()
    store = FeatureStore(folder, fingerprint, (head.image_weight.shape[1], head.text_weight.shape[1]))
    keys = [row_key(row) for row in rows]
    if any(key not in store for key in keys):  # several may read at a time
        with store.writing():
            todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in store}
            towers = _Towers(model, head, fingerprint, batch_size, num_workers, len(todo))
            outcomes = _outcomes(towers, todo) if workers is HERE else _outcomes_by(workers, towers, todo)
            waiting, skipped = [], {}
            try:
                for done, (key, outcome) in enumerate(outcomes, start=len(rows) - len(todo) + 1):
                    if isinstance(outcome, _Features):
                        waiting.append((key, outcome))
                    elif skip_failures:
                        skipped[key] = outcome.reason
                    else:
                        raise UnreadablePair(f"pair {todo[key].id} ({todo[key].filepath}): {outcome.reason}")
                    if len(waiting) == SHARD_ROWS:
                        _flush(store, waiting)
                    if done % (batch_size or REPORT_ROWS) == 0:
                        report(done, len(rows))
            finally:  # an error or an interruption keeps what was computed
                _flush(store, waiting)
                store.record_skipped(skipped)
    report(len(rows), len(rows))
    return store.pairs(rows, keys)


class _Features(NamedTuple):
    """One pair's row of a shard: (F_image,), (F_text,), and whether its caption was cut."""

    image: Tensor
    text: Tensor
    truncated: bool


def _flush(store: FeatureStore, waiting: list[tuple[bytes, _Features]]) -> None:
    if waiting:
        keys, features = zip(*waiting, strict=True)
        image, text, truncated = zip(*features, strict=True)
        waiting.clear()  # a shard that cannot be written is not tried again
        store.append(keys, torch.stack(image), torch.stack(text), torch.tensor(truncated))


def _outcomes(towers: _Towers, todo: dict[bytes, PairRow]) -> Iterator[tuple[bytes, _Features | UnreadablePair]]:
    """Each row's features, or why it has none, in order."""
    texts: dict[bytes, str] = {}
    faults: dict[bytes, UnreadablePair] = {}
    for key, row in todo.items():
        try:
            texts[key] = check_caption(row.caption)
        except UnreadablePair as fault:
            faults[key] = fault
    images = _OnDemand((todo[key].filepath for key in texts), towers.images)
    captions = _OnDemand(texts.values(), towers.captions)
    for key, row in todo.items():
        if key in faults:
            yield key, faults[key]
            continue
        image, (text, truncated) = images.take(row.filepath), captions.take(texts[key])
        unusable = next((half for half in (image, text) if isinstance(half, UnreadablePair)), None)
        yield key, unusable or _Features(image, text, truncated)


class _Piece(NamedTuple):
    """What a worker found of some rows: the good ones' features in order, and the others' faults."""

    image: Tensor
    text: Tensor
    truncated: Tensor
    faults: dict[bytes, UnreadablePair]


def _outcomes_by(
    workers: Workers, towers: _Towers, todo: dict[bytes, PairRow]
) -> Iterator[tuple[bytes, _Features | UnreadablePair]]:
    """The same as :func:`_outcomes`, by other processes: a piece that dies with its worker is at most one shard."""
    rows = list(todo.items())
    size = min(SHARD_ROWS, max(REPORT_ROWS, len(rows) // (4 * workers.count)))
    pieces = [dict(rows[start : start + size]) for start in range(0, len(rows), size)]
    for piece, found in zip(pieces, workers.map(_embed_piece, pieces, towers), strict=True):
        features = zip(found.image, found.text, found.truncated.tolist(), strict=True)
        for key in piece:
            yield key, found.faults.get(key) or _Features(*next(features))


def _embed_piece(piece: dict[bytes, PairRow], towers: _Towers, progress: Progress) -> _Piece:
    faults: dict[bytes, UnreadablePair] = {
        key: UnreadablePair("image file has changed meanwhile, or is another on this node of the cluster")
        for key, row in piece.items()
        if row_key(row) != key
    }
    if towers.num_workers is None and towers.model.device.type == "cpu":
        towers.num_workers = 0  # the other cores have workers of their own
    good = []
    for key, outcome in _outcomes(towers, {key: row for key, row in piece.items() if key not in faults}):
        if isinstance(outcome, UnreadablePair):
            faults[key] = outcome
        else:
            good.append(outcome)
    if not good:
        return _Piece(torch.empty(0), torch.empty(0), torch.empty(0), faults)
    image, text, truncated = zip(*good, strict=True)
    return _Piece(torch.stack(image), torch.stack(text), torch.tensor(truncated), faults)


class _OnDemand:
    """Outcomes by content (a path, a caption): computed once each, in order of first use, dropped after the last.

    So a caption shared by half the pairs is embedded once, and yet not all features are held at a time.
    """

    def __init__(self, uses: Iterable[str], compute: Callable[[list[str]], Iterator[tuple[str, Any]]]) -> None:
        self.uses_left = Counter(uses)
        self.stream = compute(list(self.uses_left))
        self.ready: dict[str, Any] = {}

    def take(self, content: str) -> Any:
        while content not in self.ready:
            computed, outcome = next(self.stream)
            self.ready[computed] = outcome
        self.uses_left[content] -= 1
        return self.ready[content] if self.uses_left[content] else self.ready.pop(content)


class _Towers:
    """Batched forward passes of a model's two towers."""

    def __init__(
        self,
        model: ContrastiveModel,
        head: Head,
        fingerprint: str,
        batch_size: int | None,
        num_workers: int | None,
        images: int,
    ) -> None:
        self.model, self.head, self.fingerprint = model, head.to(model.device), fingerprint
        self.asked, self.num_workers, self.count = batch_size, num_workers, images

    @cached_property
    def batch_size(self) -> int:
        """What was asked for, else the fastest where the model is."""
        if self.asked:
            return self.asked
        image = self.model.preprocess(Image.new("RGB", (256, 256)))

        def forward(size: int) -> Tensor:
            with self._autocast():
                return self.model.image_features(image.expand(size, *image.shape)).cpu()

        return fastest_batch_size(self.fingerprint, self.model.device, forward, self.count)

    def images(self, paths: list[str]) -> Iterator[tuple[str, Tensor | UnreadablePair]]:
        """(path, feature or fault) of each image file."""
        loader = DataLoader(
            _Decoding(paths, self.model.preprocess),
            batch_size=self.batch_size,
            num_workers=_default_workers(len(paths)) if self.num_workers is None else self.num_workers,
            collate_fn=_collate,
            pin_memory=self.model.device.type == "cuda",
        )
        for names, batch, faults in loader:
            yield from faults
            if batch is not None:
                with self._autocast():
                    features = self.model.image_features(batch.to(self.model.device, non_blocking=True))
                yield from zip(names, self._checked(features, self.head.image_weight, "image"), strict=True)

    def captions(self, texts: list[str]) -> Iterator[tuple[str, tuple[Tensor | UnreadablePair, bool]]]:
        """(caption, (feature or fault, whether it was cut)) of each caption."""
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            tokens = self.model.tokenize(batch)
            with self._autocast():
                features = self.model.text_features(tokens)
            checked = self._checked(features, self.head.text_weight, "caption")
            yield from zip(batch, zip(checked, self.model.truncated(batch, tokens).tolist(), strict=True), strict=True)

    def _autocast(self) -> AbstractContextManager:
        weights = self.model.model.logit_scale
        if weights.is_cuda and weights.dtype == torch.float32:
            return torch.autocast("cuda", torch.float16)
        return nullcontext()

    @staticmethod
    def _checked(features: Tensor, weight: Tensor, half: str) -> list[Tensor | UnreadablePair]:
        """Rows on the CPU; in place of one whose embedding has no direction, the fault."""
        finite = features.isfinite().all(dim=1).tolist()
        nonzero = (features @ weight.T != 0).any(dim=1).tolist()
        return [
            UnreadablePair(f"{half} features are not finite")
            if not finite[row]
            else feature
            if nonzero[row]
            else UnreadablePair(f"{half} embedding is all zeros")
            for row, feature in enumerate(features.cpu())
        ]


class _Decoding(Dataset):
    """Preprocessed images by path, or why there is none; runs in the loader's workers."""

    def __init__(self, paths: list[str], preprocess: Callable) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor | UnreadablePair]:
        path = self.paths[index]
        try:
            image = read_image(path)
            return path, self.preprocess(image)
        except UnreadablePair as fault:
            return path, fault
        # The transform is the model's, or the user's: what it refuses is a fault of this one image.
        except Exception as error:
            return path, UnreadablePair(f"image cannot be preprocessed ({error})")


def _collate(items: list[tuple[str, Tensor | UnreadablePair]]) -> tuple[list[str], Tensor | None, list]:
    """Names and stacked images of the good ones, and (name, fault) of the others."""
    faults = [item for item in items if isinstance(item[1], UnreadablePair)]
    good = [item for item in items if not isinstance(item[1], UnreadablePair)]
    return [name for name, _ in good], torch.stack([image for _, image in good]) if good else None, faults


def _default_workers(images: int) -> int:
    # A daemonic process, such as a worker of a pool, may have no children.
    if images < _WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(4, os.cpu_count() or 1)
