"""Running the towers over pairs, once for each image and caption, and storing their features."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from fiftyone_ecif.core import HERE, Progress, Workers
from fiftyone_ecif.features.content import HALF, row_keys
from fiftyone_ecif.features.pairs import StoredPairs
from fiftyone_ecif.features.reading import Marks, PairRow, UnreadablePair, check_caption
from fiftyone_ecif.features.store import FeatureStore
from fiftyone_ecif.features.towers import Towers

if TYPE_CHECKING:  # open_clip takes long to import, and a worker of a cluster may never need it
    from fiftyone_ecif.models.contrastive import ContrastiveModel

Content = TypeVar("Content")

# Rows per shard. More rows make fewer files, but an interrupted process loses up to so many rows.
SHARD_ROWS = 1024
# Rows between two calls of ``progress``, if no batch size is set.
REPORT_ROWS = 64


def embed_pairs(
    model: ContrastiveModel,
    rows: Sequence[PairRow],
    folder: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    skip_failures: bool = True,
    refresh: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = HERE,
) -> StoredPairs:
    """Tower features of pairs; features that are already in the store are not computed again.

    Args:
        model: the model whose towers are run
        rows: the pairs
        folder: the folder of all stores, in which the model gets a subfolder of its own
        batch_size: images or captions per forward pass; None for the fastest, which is found by trial and remembered
        num_workers: number of processes that decode images for each of the workers; None to choose: none if there
            are few images, else up to 4, or up to 16 for a GPU
        skip_failures: whether a pair that cannot be embedded is left out with its reason; otherwise it raises
        refresh: whether features that are in the store are computed again, too, and replace those
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
    store = FeatureStore(folder, fingerprint, (head.image_weight.shape[1], head.text_weight.shape[1]), model.title)
    keys = row_keys(rows, lambda: report(0, len(rows)))
    if refresh or any(key not in store for key in keys):  # reading alone needs no lock
        with store.writing():
            wanted = zip(keys, rows, strict=True)
            todo = {key: row for key, row in wanted if refresh or key not in store}
            towers = Towers(model, head, fingerprint, batch_size, num_workers, len(todo))
            outcomes = _outcomes(towers, todo) if workers is HERE else _outcomes_by(workers, towers, todo)
            with closing(_stored(store, outcomes)) as stored:
                for done, (key, outcome) in enumerate(stored, start=len(rows) - len(todo) + 1):
                    if isinstance(outcome, UnreadablePair) and not skip_failures:
                        raise UnreadablePair(f"pair {todo[key].id} ({todo[key].filepath}): {outcome.reason}")
                    if done % (batch_size or REPORT_ROWS) == 0:
                        report(done, len(rows))
    report(len(rows), len(rows))
    return store.pairs(rows, keys)


class _Features(NamedTuple):
    """One pair's row of a shard: (F_image,), (F_text,) and its marks."""

    image: Tensor
    text: Tensor
    marks: Marks


_Outcome = _Features | UnreadablePair


def _stored(
    store: FeatureStore, outcomes: Iterable[tuple[bytes, _Outcome]]
) -> Generator[tuple[bytes, _Outcome], None, None]:
    """Hand outcomes on and write them in shards; what came before an error or an interruption is kept."""
    waiting: list[tuple[bytes, _Features]] = []
    skipped: dict[bytes, str] = {}
    try:
        for key, outcome in outcomes:
            if isinstance(outcome, UnreadablePair):
                skipped[key] = outcome.reason
            else:
                waiting.append((key, outcome))
            if len(waiting) == SHARD_ROWS:
                _flush(store, waiting)
            yield key, outcome
    finally:
        _flush(store, waiting)
        store.record_skipped(skipped)


def _flush(store: FeatureStore, waiting: list[tuple[bytes, _Features]]) -> None:
    if waiting:
        keys, features = zip(*waiting, strict=True)
        waiting.clear()  # a shard that cannot be written is not written again at the end
        store.append(keys, *_columns(features))


def _columns(features: Sequence[_Features]) -> tuple[Tensor, Tensor, tuple[Marks, ...]]:
    """The rows of a shard as its columns."""
    image, text, marks = zip(*features, strict=True)
    return torch.stack(image), torch.stack(text), marks


def _outcomes(towers: Towers, todo: dict[bytes, PairRow]) -> Iterator[tuple[bytes, _Outcome]]:
    """Each row's features, or the reason why it has none, in order."""
    texts: dict[bytes, str] = {}
    faults: dict[bytes, UnreadablePair] = {}
    for key, row in todo.items():
        try:
            texts[key] = check_caption(row.caption)
        except UnreadablePair as fault:
            faults[key] = fault
    shown = {key[:HALF]: todo[key] for key in texts}
    images = _OnDemand((key[:HALF] for key in texts), lambda wanted: towers.images({one: shown[one] for one in wanted}))
    captions = _OnDemand(texts.values(), towers.captions)
    for key in todo:
        if key in faults:
            yield key, faults[key]
            continue
        (image, marks), (text, truncated) = images.take(key[:HALF]), captions.take(texts[key])
        unusable = next((outcome for outcome in (image, text) if isinstance(outcome, UnreadablePair)), None)
        yield key, unusable or _Features(image, text, marks._replace(truncated=truncated))


class _Piece(NamedTuple):
    """A worker's outcome for some rows: the columns of the good ones in order, and the faults of the others."""

    columns: tuple[Tensor, Tensor, tuple[Marks, ...]] | tuple[()]
    faults: dict[bytes, UnreadablePair]


def _outcomes_by(workers: Workers, towers: Towers, todo: dict[bytes, PairRow]) -> Iterator[tuple[bytes, _Outcome]]:
    """The same as :func:`_outcomes`, computed by other processes in pieces of at most one shard."""
    rows = list(todo.items())
    size = min(SHARD_ROWS, max(REPORT_ROWS, len(rows) // (4 * workers.count)))
    pieces = [dict(rows[start : start + size]) for start in range(0, len(rows), size)]
    for piece, found in zip(pieces, workers.map(_embed_piece, pieces, towers), strict=True):
        features = zip(*found.columns, strict=True)
        for key in piece:
            if key in found.faults:
                yield key, found.faults[key]
            else:
                yield key, _Features(*next(features))


def _embed_piece(piece: dict[bytes, PairRow], towers: Towers, progress: Progress) -> _Piece:
    if towers.num_workers is None and towers.model.device.type == "cpu":
        towers.num_workers = 0  # the other cores run workers already
    outcomes = list(_outcomes(towers, piece))
    good = [outcome for _, outcome in outcomes if isinstance(outcome, _Features)]
    faults = {key: outcome for key, outcome in outcomes if isinstance(outcome, UnreadablePair)}
    return _Piece(_columns(good) if good else (), faults)


class _OnDemand(Generic[Content]):
    """Outcomes by content (an image's key or a caption), computed once at the first use and dropped after the last.

    So a caption that many pairs share is embedded once, and yet the features of all pairs are never held at once.
    """

    def __init__(
        self, uses: Iterable[Content], compute: Callable[[list[Content]], Iterator[tuple[Content, Any]]]
    ) -> None:
        self.uses_left = Counter(uses)
        self.stream = compute(list(self.uses_left))
        self.ready: dict[Content, Any] = {}

    def take(self, content: Content) -> Any:
        while content not in self.ready:
            computed, outcome = next(self.stream)
            self.ready[computed] = outcome
        self.uses_left[content] -= 1
        return self.ready[content] if self.uses_left[content] else self.ready.pop(content)
