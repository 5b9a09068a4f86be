"""The on-disk store of tower features: shards of rows addressed by what they were made from, and a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fiftyone_ecif.features.pairs import StoredPairs
from fiftyone_ecif.features.reading import PairRow

FORMAT_VERSION = 1
_KEY_BYTES = 16


def row_key(row: PairRow) -> bytes:
    """16 bytes that change with a pair's caption and its image file's path, size and time of change.

    The id is no part of it: clones of a dataset share their features.
    """
    try:
        status = os.stat(row.filepath)
        file = (status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        file = None
    content = repr((os.fspath(row.filepath), file, row.caption))
    return hashlib.sha256(content.encode(errors="surrogatepass")).digest()[:_KEY_BYTES]


class FeatureStore:
    """Tower features of one model, in a subfolder of its own, so that the stores of several models stand side by side.

    A shard ``shard-00000.safetensors`` holds the tensors ``image`` (n, F_image) and ``text`` (n, F_text), float32,
    ``truncated`` (n,), bool, and the rows' ``keys`` (n, 16), uint8. It is complete or absent. Rows are never changed,
    only added: a pair with a new caption gets a new row, and the old one stays unused.

    Args:
        folder: where stores are kept
        fingerprint: of the model
        dims: (F_image, F_text); may be left out where the store exists

    Raises:
        FileNotFoundError: if there is no such store and ``dims`` is left out
        ValueError: if the folder holds a store of another format or model
    """

    def __init__(self, folder: str | os.PathLike, fingerprint: str, dims: tuple[int, int] | None = None) -> None:
        self.folder = Path(folder) / f"features-{fingerprint[:16]}"
        self.fingerprint = fingerprint
        self.image_dim, self.text_dim, self.skipped = self._open_manifest(dims)
        self._rescan()

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, key: bytes) -> bool:
        return key in self._position

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer.

        Raises:
            RuntimeError: if another process writes to this store
        """
        lock = FileLock(self.folder / "write.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RuntimeError(
                f"Another process is writing features to {self.folder}. Wait for it, or let FIFTYONE_ECIF_CACHE name "
                "another folder."
            ) from error
        try:
            for path in self._rescan():
                warnings.warn(f"Dropped the damaged feature shard {path}: its pairs are embedded again.", stacklevel=4)
                path.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def append(self, keys: Sequence[bytes], image: Tensor, text: Tensor, truncated: Tensor) -> None:
        """Write one shard; call inside :meth:`writing`.

        Args:
            keys: of the n rows
            image: (n, F_image)
            text: (n, F_text)
            truncated: (n,), whether the caption was cut

        Raises:
            OSError: if the shard cannot be written; the store is then as it was
        """
        number = 1 + max((int(path.stem.removeprefix("shard-")) for path in self._shards), default=-1)
        path = self.folder / f"shard-{number:05d}.safetensors"
        tensors = {
            "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, _KEY_BYTES),
            "image": image.float().contiguous(),
            "text": text.float().contiguous(),
            "truncated": truncated.bool().contiguous(),
        }
        self._write(path, lambda part: save_file(tensors, part))
        self._add_shard(path, keys)

    def record_skipped(self, skipped: dict[bytes, str]) -> None:
        """Keep in the manifest why rows are missing; call inside :meth:`writing`."""
        self.skipped = {key: reason for key, reason in {**self.skipped, **skipped}.items() if key not in self}
        self._write_manifest()

    def pairs(self, rows: Sequence[PairRow], keys: Sequence[bytes] | None = None) -> StoredPairs:
        """Those of ``rows`` that the store holds, in their order.

        Args:
            rows: the pairs wanted
            keys: their :func:`row_key`, where already known

        Returns:
            :class:`StoredPairs`; rows that are not in the store are in its ``skipped``
        """
        keys = [row_key(row) for row in rows] if keys is None else keys
        found = [(row.id, self._position[key]) for row, key in zip(rows, keys, strict=True) if key in self]
        skipped = {
            row.id: self.skipped.get(key, "pair is not embedded yet")
            for row, key in zip(rows, keys, strict=True)
            if key not in self
        }
        return StoredPairs(
            [id for id, _ in found],
            torch.tensor([position for _, position in found], dtype=torch.int64),
            self._shards,
            torch.tensor(self._starts, dtype=torch.int64),
            self.image_dim,
            self.text_dim,
            skipped,
        )

    def _rescan(self) -> list[Path]:
        """Take in the shards on disk; returns those that cannot be read."""
        self._shards: list[Path] = []
        self._starts: list[int] = []
        self._position: dict[bytes, int] = {}
        self._rows = 0
        damaged = []
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    flat = file.get_tensor("keys").numpy().tobytes()
            except (SafetensorError, OSError):
                damaged.append(path)
                continue
            self._add_shard(path, [flat[i : i + _KEY_BYTES] for i in range(0, len(flat), _KEY_BYTES)])
        return damaged

    def _add_shard(self, path: Path, keys: Sequence[bytes]) -> None:
        self._shards.append(path)
        self._starts.append(self._rows)
        self._position.update(zip(keys, range(self._rows, self._rows + len(keys)), strict=True))
        self._rows += len(keys)

    def _open_manifest(self, dims: tuple[int, int] | None) -> tuple[int, int, dict[bytes, str]]:
        path = self.folder / "manifest.json"
        if not path.exists():
            if dims is None:
                raise FileNotFoundError(f"There are no features in {self.folder}: embed the pairs first.")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.image_dim, self.text_dim, self.skipped = *dims, {}
            self._write_manifest()
            return *dims, {}
        try:
            manifest = json.loads(path.read_text())
            expected = {"version": FORMAT_VERSION, "fingerprint": self.fingerprint}
            if dims is not None:
                expected |= {"image_dim": dims[0], "text_dim": dims[1]}
            different = [name for name, value in expected.items() if manifest[name] != value]
            held = manifest["image_dim"], manifest["text_dim"]
            skipped = {bytes.fromhex(key): reason for key, reason in manifest["skipped"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a feature store's manifest: delete {self.folder} to start anew."
            ) from error
        if different:
            raise ValueError(
                f"{self.folder} was written with another {' and '.join(different)}: delete it to start anew."
            )
        return *held, skipped

    def _write_manifest(self) -> None:
        manifest = {
            "version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "image_dim": self.image_dim,
            "text_dim": self.text_dim,
            "skipped": {key.hex(): reason for key, reason in self.skipped.items()},
        }
        self._write(self.folder / "manifest.json", lambda part: part.write_text(json.dumps(manifest, indent=1)))

    def _write(self, path: Path, save: Callable[[Path], object]) -> None:
        """Write a whole file or none."""
        part = path.with_name(path.name + ".part")
        try:
            save(part)
            part.replace(path)
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            raise OSError(
                f"Features cannot be written to {self.folder} ({error}). What was written before is kept: make "
                "room and run it again, it goes on from there; or let FIFTYONE_ECIF_CACHE name another disk's folder."
            ) from error
