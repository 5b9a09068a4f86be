"""Which feature stores there are on this machine, and the removal of those that nobody needs any more."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fiftyone_ecif.features.folder import MANIFEST, StoreFolder, features_folder
from fiftyone_ecif.features.shard import Shard
from fiftyone_ecif.features.store import STORE_PREFIX, WRITE_LOCK

IN_USE = 60 * 60
"""Seconds after its last use during which a store is taken to be in use; readers mark it once a minute."""

DAY = 24 * 60 * 60

_NAME = re.compile(rf"{STORE_PREFIX}[0-9a-f]{{16}}")
_OURS = re.compile(rf"(shard-\d+-[0-9a-f]{{16}}\.safetensors|{re.escape(MANIFEST)})(\.part)?|{re.escape(WRITE_LOCK)}")


@dataclass(frozen=True)
class StoredFeatures:
    """A model's feature store.

    Attributes:
        folder: of its files
        model: the model's name; "unknown" in stores from before it was kept
        rows: pairs that it holds features of
        size: of its files, bytes
        used: when it was last read or written, seconds since the epoch
    """

    folder: Path
    model: str
    rows: int
    size: int
    used: float

    @property
    def in_use(self) -> bool:
        """Whether a job may be reading it."""
        return time.time() - self.used < IN_USE

    def __str__(self) -> str:
        days = (time.time() - self.used) / DAY
        last = "today" if days < 1 else f"{days:,.0f} days ago"
        return f"{self.folder.name}: {self.model}, {self.rows:,} pairs, {self.size / 1e6:,.1f} MB, last used {last}"


def local_folder() -> Path:
    """The folder of all stores.

    Raises:
        ValueError: if it is on shared storage, where other machines may use what this one does not know of
    """
    folder = StoreFolder(features_folder())
    if folder.shared:
        raise ValueError(
            f"The features are on shared storage ({folder.url}). This command looks after folders of this machine; "
            "delete stores there with the storage's own tools, once no machine uses them."
        )
    return folder.here


def stored_features(folder: Path) -> list[StoredFeatures]:
    """The stores in a folder, those first that were not used for the longest time."""
    stores = [_read(path) for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted((store for store in stores if store is not None), key=lambda store: store.used)


def chosen(stores: Sequence[StoredFeatures], names: Sequence[str], older_than: float | None) -> list[StoredFeatures]:
    """Choose stores by name or by age.

    Args:
        stores: there are
        names: of stores, or the beginnings of their 16 digits
        older_than: days since the last use; None to choose by name alone

    Raises:
        ValueError: if a name is that of no store, or the beginning of several
    """
    named = []
    for name in names:
        found = [store for store in stores if store.folder.name.removeprefix(STORE_PREFIX).startswith(_digits(name))]
        if len(found) != 1:
            raise ValueError(f"{name!r} is the name of {len(found) or 'no'} feature stores: copy one from the list.")
        named += found
    aged = [] if older_than is None else [store for store in stores if time.time() - store.used > older_than * DAY]
    return [store for store in stores if store in named or store in aged]


def remove(store: StoredFeatures) -> str | None:
    """Remove a store's files.

    Returns:
        why it stays, in plain words, if a job uses it or other files lie in its folder; None if it is gone
    """
    lock = FileLock(store.folder / WRITE_LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return "a job is writing to it"
    try:
        now = _read(store.folder)
        if now is None or now.in_use:
            return "a job read it within the last hour"
        foreign = sorted(path.name for path in store.folder.iterdir() if not _OURS.fullmatch(path.name))
        if foreign:
            return f"there are other files in it: {', '.join(foreign[:3])}"
        for path in sorted(store.folder.iterdir(), reverse=True):  # shards before the manifest, which says whose it is
            if path.name != WRITE_LOCK:
                path.unlink()
        with suppress(OSError):  # some systems keep what is open, and somebody may have come in between
            (store.folder / WRITE_LOCK).unlink()
            store.folder.rmdir()
    finally:
        lock.release()
    return None


def _digits(name: str) -> str:
    digits = name.rstrip("/").rpartition("/")[2].removeprefix(STORE_PREFIX)
    return digits if digits else "?"


def _read(folder: Path) -> StoredFeatures | None:
    """A store as its files say; None where there is none, or none of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        named = str(manifest["fingerprint"]).startswith(folder.name.removeprefix(STORE_PREFIX))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not named:
        return None
    paths = [path for path in folder.iterdir() if path.is_file()]
    rows = sum(_rows(path) for path in paths if path.name.startswith("shard-") and path.suffix == ".safetensors")
    size = sum(path.stat().st_size for path in paths)
    used = max(path.stat().st_mtime for path in paths if path.name != WRITE_LOCK)
    return StoredFeatures(folder, str(manifest.get("model") or "unknown model"), rows, size, used)


def _rows(path: Path) -> int:
    try:
        return Shard(path).rows
    except (OSError, SafetensorError):
        return 0
