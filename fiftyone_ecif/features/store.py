"""The store of tower features: a manifest, and shards of rows that are found by what they were made from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from fiftyone_ecif.features.content import KEY_BYTES, row_keys
from fiftyone_ecif.features.folder import MANIFEST, StoreFolder, shard_name
from fiftyone_ecif.features.pairs import StoredPairs, key_tensor
from fiftyone_ecif.features.reading import Marks, PairRow
from fiftyone_ecif.features.shard import Shard
from fiftyone_ecif.notes import note

FORMAT_VERSION = 1

WRITE_LOCK = "write.lock"
"""The name of the file that its only writer holds."""

STORE_PREFIX = "features-"
"""What the names of stores' folders begin with."""


class FeatureStore:
    """Tower features of one model, in a subfolder of its own beside the stores of other models.

    A shard ``shard-00000-<digest>.safetensors`` holds the tensors ``image`` (n, F_image) and ``text`` (n, F_text),
    float32, a column (n,), bool, for each of :class:`~fiftyone_ecif.features.reading.Marks`, and the rows' ``keys``
    (n, 16), uint8. It is complete or absent.
    Rows are only added and never changed: a pair with a new caption gets a new row, and its old row is no longer used;
    of two rows of one key the later one counts. Earlier shards lack the columns of later marks, and those from before
    files were known by their content have other keys; runs of that time still find their rows.

    Args:
        folder: the folder of all stores, see :class:`~fiftyone_ecif.features.folder.StoreFolder`
        fingerprint: the model's fingerprint
        dims: (F_image, F_text); may be left out if the store exists
        model: the model's name, for people; likewise

    Raises:
        FileNotFoundError: if the store does not exist and ``dims`` is left out
        ValueError: if the folder holds a store of another format or model
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fingerprint: str,
        dims: tuple[int, int] | None = None,
        model: str | None = None,
    ) -> None:
        self.folder = StoreFolder(f"{os.fspath(folder).rstrip('/')}/{STORE_PREFIX}{fingerprint[:16]}")
        self.fingerprint, self.model = fingerprint, model
        self.image_dim, self.text_dim, self.skipped = self._open_manifest(dims)
        self._crowded = False
        self._rescan()
        self.folder.mark_used()

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, key: bytes) -> bool:
        return key in self._position

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer on this machine; other machines may write to shared storage at the same time.

        Raises:
            RuntimeError: if another process is writing to this store
        """
        lock = FileLock(self.folder.here / WRITE_LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RuntimeError(
                f"Another process is writing features to {self.folder.url}. Wait for it, or set FIFTYONE_ECIF_FEATURES "
                "to another folder."
            ) from error
        try:
            for name in self._rescan():
                note(f"Dropped the damaged feature shard {self.folder.url}/{name}: its pairs will be embedded again.")
                self.folder.remove(name)
            yield
        finally:
            lock.release()

    def append(self, keys: Sequence[bytes], image: Tensor, text: Tensor, marks: Sequence[Marks]) -> None:
        """Write one shard; call inside :meth:`writing`.

        Args:
            keys: the keys of the n rows
            image: (n, F_image)
            text: (n, F_text)
            marks: of the n pairs

        Raises:
            OSError: if the shard cannot be written; the store is then as it was
        """
        tensors = {
            "keys": key_tensor(b"".join(keys)),
            "image": image.float().contiguous(),
            "text": text.float().contiguous(),
        }
        for name, column in zip(Marks._fields, zip(*marks, strict=True), strict=True):
            tensors[name] = torch.tensor(column)
        content = save(tensors)
        name = shard_name(1 + max(map(_number, self._shards), default=-1), content)
        self._write(name, content)
        self._add_shard(name, keys)
        if self.folder.shared and not self._crowded and not set(self.folder.shards()) <= set(self._shards):
            self._crowded = True
            note(
                f"Another machine is writing features to {self.folder.url} as well. Nothing is lost, but pairs "
                "that both need are embedded twice."
            )

    def record_skipped(self, skipped: dict[bytes, str]) -> None:
        """Record in the manifest why rows are missing; call inside :meth:`writing`."""
        self.skipped = {key: reason for key, reason in {**self.skipped, **skipped}.items() if key not in self}
        self._write_manifest()

    def pairs(self, rows: Sequence[PairRow], keys: Sequence[bytes] | None = None) -> StoredPairs:
        """The pairs among ``rows`` that the store holds, in their order.

        Args:
            rows: the pairs that are wanted
            keys: their keys (:func:`~fiftyone_ecif.features.content.row_keys`), if already known

        Returns:
            :class:`StoredPairs`, whose ``skipped`` names the rows that are not in the store
        """
        keys = row_keys(rows) if keys is None else keys
        found = [(row.id, self._position[key], key) for row, key in zip(rows, keys, strict=True) if key in self]
        skipped = {
            row.id: self.skipped.get(key, "pair is not embedded yet")
            for row, key in zip(rows, keys, strict=True)
            if key not in self
        }
        return StoredPairs(
            [id for id, _, _ in found],
            torch.tensor([position for _, position, _ in found], dtype=torch.int64),
            self.folder,
            self._shards,
            torch.tensor(self._starts, dtype=torch.int64),
            self.image_dim,
            self.text_dim,
            skipped,
            key_tensor(b"".join(key for _, _, key in found)),
        )

    def _rescan(self) -> list[str]:
        """Read the keys of all shards; returns the names of those that cannot be read."""
        self._shards: list[str] = []
        self._starts: list[int] = []
        self._position: dict[bytes, int] = {}
        self._rows = 0
        damaged = []
        names = self.folder.shards()
        self.folder.bring(names)
        for name in names:
            try:
                flat = Shard(self.folder.here / name).whole("keys").numpy().tobytes()
            except (SafetensorError, OSError):
                damaged.append(name)
                continue
            self._add_shard(name, [flat[i : i + KEY_BYTES] for i in range(0, len(flat), KEY_BYTES)])
        return damaged

    def _add_shard(self, name: str, keys: Sequence[bytes]) -> None:
        self._shards.append(name)
        self._starts.append(self._rows)
        self._position.update(zip(keys, range(self._rows, self._rows + len(keys)), strict=True))
        self._rows += len(keys)

    def _open_manifest(self, dims: tuple[int, int] | None) -> tuple[int, int, dict[bytes, str]]:
        content = self.folder.read(MANIFEST)
        if content is None:
            if dims is None:
                raise FileNotFoundError(f"There are no features in {self.folder.url}: embed the pairs first.")
            self.image_dim, self.text_dim, self.skipped = *dims, {}
            self._write_manifest()
            return *dims, {}
        try:
            manifest = json.loads(content)
            expected = {"version": FORMAT_VERSION, "fingerprint": self.fingerprint}
            if dims is not None:
                expected |= {"image_dim": dims[0], "text_dim": dims[1]}
            different = [name for name, value in expected.items() if manifest[name] != value]
            held = manifest["image_dim"], manifest["text_dim"]
            self.model = self.model or manifest.get("model")
            skipped = {bytes.fromhex(key): reason for key, reason in manifest["skipped"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.folder.url}/manifest.json is not a feature store's manifest: delete {self.folder.url} to start "
                "afresh."
            ) from error
        if different:
            raise ValueError(
                f"{self.folder.url} was written with another {' and '.join(different)}: delete it to start afresh."
            )
        return *held, skipped

    def _write_manifest(self) -> None:
        manifest = {
            "version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "model": self.model,
            "image_dim": self.image_dim,
            "text_dim": self.text_dim,
            "skipped": {key.hex(): reason for key, reason in self.skipped.items()},
        }
        self._write(MANIFEST, json.dumps(manifest, indent=1).encode())

    def _write(self, name: str, content: bytes) -> None:
        """Write a whole file, or none and raise an OSError."""
        try:
            self.folder.write(name, content)
        except Exception as error:  # each storage raises errors of its own kinds
            raise OSError(
                f"Features cannot be written to {self.folder.url} ({error}). What was written before is kept: make "
                "room and run it again, it goes on from there; or set FIFTYONE_ECIF_FEATURES to another folder."
            ) from error


def _number(shard: str) -> int:
    """The position of a shard in the order of writing."""
    return int(re.findall(r"\d+", shard)[0])
