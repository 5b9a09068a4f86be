"""Where a feature store's files are: in a folder of this machine, or on shared storage with copies in one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fiftyone_ecif.cache import cache_folder


def features_folder() -> str:
    """Where stores are kept: ``$FIFTYONE_ECIF_FEATURES``, a folder or a URL, default ``features`` in the cache."""
    return os.environ.get("FIFTYONE_ECIF_FEATURES") or str(cache_folder("features"))


def shard_name(number: int, content: bytes) -> str:
    """The name of a store's shard: its place in the order of writing, and a digest of its content."""
    return f"shard-{number:05d}-{_digest(content)}.safetensors"


class StoreFolder:
    """Files of one store: manifests, and shards whose names end in a digest of their content. Each is whole or absent.

    A shard on shared storage is copied here once, checked against its name, and read from the copy. So a name always
    means the same rows, whoever wrote them and wherever they are read.

    Args:
        url: a folder of this machine, or whatever fsspec knows: ``s3://bucket/features``, ``gs://``, ``sftp://`` ...;
            keys and options of the storage are set as fsspec has it, by its environment variables or its own files

    Raises:
        ValueError: if fsspec does not know the storage, or wants a package for it
    """

    def __init__(self, url: str | os.PathLike) -> None:
        self.url = os.fspath(url)
        try:
            self._storage, self._root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"Features cannot be kept in {self.url}: {error}") from error
        self.shared = not isinstance(self._storage, LocalFileSystem)
        if self.shared:
            self.here = cache_folder("shared-features") / _digest(self.url.encode())
        else:
            self.here = Path(self._root)

    def __reduce__(self) -> tuple:
        return StoreFolder, (self.url,)  # another machine has copies of its own

    def shards(self) -> list[str]:
        """Names of the shards there are, in the order in which they were written."""
        self._storage.invalidate_cache()
        try:
            found = self._storage.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        names = (path.rpartition("/")[2] for path in found)
        return sorted(name for name in names if name.startswith("shard-") and name.endswith(".safetensors"))

    def read(self, name: str) -> bytes | None:
        """The content of a file that may change, or None if there is none."""
        try:
            return self._storage.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def bring(self, names: Iterable[str]) -> None:
        """Copy those shards here that are not, several at a time where the storage can.

        One that is not what its name says, as it was cut short, is left out.
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
        """Write a whole file, or none and raise what the storage raises."""
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

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.here / name).unlink(missing_ok=True)
        if self.shared and self._storage.exists(f"{self._root}/{name}"):
            self._storage.rm_file(f"{self._root}/{name}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
