"""Where a feature store keeps its files: in a folder of this machine, or on shared storage with local copies."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fiftyone_ecif.cache import cache_folder

MANIFEST = "manifest.json"


def features_folder() -> str:
    """The folder or URL of all stores: ``$FIFTYONE_ECIF_FEATURES``, or ``features`` in the cache."""
    return os.environ.get("FIFTYONE_ECIF_FEATURES") or str(cache_folder("features"))


def shard_name(number: int, content: bytes) -> str:
    """The name of a store's shard: its place in the order of writing, and a digest of its content."""
    return f"shard-{number:05d}-{_digest(content)}.safetensors"


class StoreFolder:
    """The files of one store: a manifest, and shards whose names contain a digest of their content.

    Each file is whole or absent. A shard on shared storage is copied to this machine once, checked against its name,
    and read from the copy. So a name always means the same rows, whoever wrote them and wherever they are read.

    Args:
        url: a folder of this machine, or a URL that fsspec knows: ``s3://bucket/features``, ``gs://``, ``sftp://`` ...;
            fsspec takes the storage's keys and options from environment variables or its own configuration files

    Raises:
        ValueError: if fsspec does not know the storage, or needs a package for it
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        try:
            self._storage, self._root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"Features cannot be kept in {self.url}: {error}") from error
        self._marked = -float("inf")
        self.shared = not isinstance(self._storage, LocalFileSystem)
        if self.shared:
            self.here = cache_folder("shared-features") / _digest(self.url.encode())
        else:
            self.here = Path(self._root)

    def __reduce__(self) -> tuple[type[StoreFolder], tuple[str]]:
        return StoreFolder, (self.url,)  # another machine makes its own copies

    def shards(self) -> list[str]:
        """The names of all shards, in the order in which they were written."""
        self._storage.invalidate_cache()
        try:
            found = self._storage.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        names = (path.rpartition("/")[2] for path in found)
        return sorted(name for name in names if name.startswith("shard-") and name.endswith(".safetensors"))

    def read(self, name: str) -> bytes | None:
        """The content of a file that may change, or None if it does not exist."""
        try:
            content: bytes = self._storage.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def bring(self, names: Iterable[str]) -> None:
        """Copy the shards to this machine that it does not have, several at a time if the storage can do that.

        A shard whose content does not match its name, because it was cut short, is left out.
        """
        missing = [name for name in names if not (self.here / name).exists()] if self.shared else []
        if missing:
            self.here.mkdir(parents=True, exist_ok=True)
            parts = [self.here / f"{name}.{os.getpid()}.part" for name in missing]
            self._storage.get([f"{self._root}/{name}" for name in missing], [str(part) for part in parts])
            for part, name in zip(parts, missing, strict=True):
                if _digest(part.read_bytes()) in name:
                    part.replace(self.here / name)
                else:
                    part.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file; if that fails, no file is written and the storage's error is raised."""
        self.here.mkdir(parents=True, exist_ok=True)
        part = self.here / f"{name}.part"
        try:
            part.write_bytes(content)
            if self.shared:
                self._storage.put_file(str(part), f"{self._root}/{name}.part")
                self._storage.mv(f"{self._root}/{name}.part", f"{self._root}/{name}")
            part.replace(self.here / name)
        finally:
            part.unlink(missing_ok=True)

    def mark_used(self) -> None:
        """Let the manifest's modification time on this machine say that the store is in use; at most once a minute."""
        if time.monotonic() - self._marked > 60:
            self._marked = time.monotonic()
            with suppress(OSError):  # a store may lie where nothing can be written
                os.utime(self.here / MANIFEST)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.here / name).unlink(missing_ok=True)
        if self.shared and self._storage.exists(f"{self._root}/{name}"):
            self._storage.rm_file(f"{self._root}/{name}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
