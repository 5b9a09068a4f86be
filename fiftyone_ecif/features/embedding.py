"""Running the towers over pairs, once for each image and caption, and storing their features."""

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
    from fiftyone_ecif.models.contrastive import ContrastiveModel, Preprocess

# Rows per shard. More rows make fewer files, but an interrupted process loses up to so many rows.
SHARD_ROWS = 1024
# Rows between two calls of ``progress``, if no batch size is set.
REPORT_ROWS = 64
# For fewer images than this, starting worker processes takes longer than decoding.
_WORTH_WORKERS = 256


def embed_pairs(
    model: ContrastiveModel,
    rows: Sequence[PairRow],
    folder: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    skip_failures: bool = True,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = HERE,
) -> StoredPairs:
    """Tower features of pairs; features that are already in the store are not computed again.

    Args:
        model: the model whose towers are run
        rows: the pairs
        folder: the folder of all stores, in which the model gets a subfolder of its own
        batch_size: images or captions per forward pass; None for the fastest, which is found by trial and remembered
        num_workers: number of processes that decode images for each of the workers; None for up to 4, or none if there
            are few images
        skip_failures: whether a pair that cannot be embedded is left out with its reason; otherwise it raises
        progress: called with the number of rows done and the number of all rows
        workers: run the towers; only this process writes

    Returns:
        :class:`StoredPairs` in the order of ``rows``

    Raises:
        UnreadablePair: at the first pair that cannot be embedded, if ``skip_failures`` is False
        RuntimeError: if another process is writing to the same store
        OSError: if features cannot be written, for example to a full disk
    """
    report = progress or (lambda done, total: None)
    fingerprint, head = model.fingerprint, model.head()
    store = FeatureStore(folder, fingerprint, (head.image_weight.shape[1], head.text_weight.shape[1]))
    keys = [row_key(row) for row in rows]
    if any(key not in store for key in keys):  # reading alone needs no lock
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
            finally:  # what was computed before an error or an interruption is kept
                _flush(store, waiting)
                store.record_skipped(skipped)
    report(len(rows), len(rows))
    return store.pairs(rows, keys)


class _Features(NamedTuple):
    """One pair's row of a shard: (F_image,), (F_text,), and whether the caption was cut to the model's context."""

    image: Tensor
    text: Tensor
    truncated: bool


def _flush(store: FeatureStore, waiting: list[tuple[bytes, _Features]]) -> None:
    if waiting:
        keys, features = zip(*waiting, strict=True)
        image, text, truncated = zip(*features, strict=True)
        waiting.clear()  # a shard that cannot be written is not written again at the end
        store.append(keys, torch.stack(image), torch.stack(text), torch.tensor(truncated))


def _outcomes(towers: _Towers, todo: dict[bytes, PairRow]) -> Iterator[tuple[bytes, _Features | UnreadablePair]]:
    """Each row's features, or the reason why it has none, in order."""
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
        unusable = next((outcome for outcome in (image, text) if isinstance(outcome, UnreadablePair)), None)
        yield key, unusable or _Features(image, text, truncated)


class _Piece(NamedTuple):
    """A worker's outcome for some rows: the features of the good ones in order, and the faults of the others."""

    image: Tensor
    text: Tensor
    truncated: Tensor
    faults: dict[bytes, UnreadablePair]


def _outcomes_by(
    workers: Workers, towers: _Towers, todo: dict[bytes, PairRow]
) -> Iterator[tuple[bytes, _Features | UnreadablePair]]:
    """The same as :func:`_outcomes`, computed by other processes in pieces of at most one shard."""
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
        towers.num_workers = 0  # the other cores run workers already
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
    """Outcomes by content (a path or a caption), each computed once at its first use and dropped after its last.

    So a caption that many pairs share is embedded once, and yet the features of all pairs are never held at once.
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
        """The batch size that was asked for, or else the fastest one on the model's device."""
        if self.asked:
            return self.asked
        image = self.model.preprocess(Image.new("RGB", (256, 256)))

        def forward(size: int) -> Tensor:
            with self._autocast():
                return self.model.image_features(image.expand(size, *image.shape)).cpu()

        return fastest_batch_size(self.fingerprint, self.model.device, forward, self.count)

    def images(self, paths: list[str]) -> Iterator[tuple[str, Tensor | UnreadablePair]]:
        """Pairs (path, feature or fault), one for each image file."""
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
        """Pairs (caption, (feature or fault, whether it was cut)), one for each caption."""
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            tokens = self.model.tokenize(batch)
            with self._autocast():
                features = self.model.text_features(tokens)
            checked = self._checked(features, self.head.text_weight, "caption")
            yield from zip(batch, zip(checked, self.model.truncated(batch, tokens).tolist(), strict=True), strict=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        weights = self.model.model.get_parameter("logit_scale")
        if weights.is_cuda and weights.dtype == torch.float32:
            return torch.autocast("cuda", torch.float16)
        return nullcontext()

    @staticmethod
    def _checked(features: Tensor, weight: Tensor, kind: str) -> list[Tensor | UnreadablePair]:
        """The rows on the CPU, with a fault in place of each whose embedding has no direction."""
        finite = features.isfinite().all(dim=1).tolist()
        nonzero = (features @ weight.T != 0).any(dim=1).tolist()
        return [
            UnreadablePair(f"{kind} features are not finite")
            if not finite[row]
            else feature
            if nonzero[row]
            else UnreadablePair(f"{kind} embedding is all zeros")
            for row, feature in enumerate(features.cpu())
        ]


class _Decoding(Dataset[tuple[str, "Tensor | UnreadablePair"]]):
    """A preprocessed image for each path, or the reason why there is none; runs in the loader's workers."""

    def __init__(self, paths: list[str], preprocess: Preprocess) -> None:
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
        # The transform is the model's or the user's own; what it refuses is a fault of this one image.
        except Exception as error:
            return path, UnreadablePair(f"image cannot be preprocessed ({error})")


def _collate(
    items: list[tuple[str, Tensor | UnreadablePair]],
) -> tuple[list[str], Tensor | None, list[tuple[str, UnreadablePair]]]:
    """Paths and stacked images of the good ones, and (path, fault) of the others."""
    faults = [(path, found) for path, found in items if isinstance(found, UnreadablePair)]
    good = [(path, found) for path, found in items if not isinstance(found, UnreadablePair)]
    return [path for path, _ in good], torch.stack([image for _, image in good]) if good else None, faults


def _default_workers(images: int) -> int:
    # A daemonic process, such as a worker of a pool, may have no children.
    if images < _WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(4, os.cpu_count() or 1)
