"""What a pair is made of: 8 bytes for the content of its image file, 8 for its caption, whatever its id and path.

A copied or moved file is the same image, and a file with other content is another one, even if size and time are the
same. The contents of files that did not change are remembered, so that they are read once.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b, sha256
from typing import BinaryIO, NamedTuple

from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.features.reading import PairRow, UnreadablePair, opened
from fiftyone_ecif.notes import note

KEY_BYTES = 16
"""Bytes of a pair's key."""

HALF = KEY_BYTES // 2
"""Bytes of a key that stand for the image; the others stand for the caption."""

READING = 2
"""Number of the way in which images are decoded. Features of images that were decoded in another way are not used."""

SETTLED = 2.0
"""Seconds without a change after which a file's times tell its versions apart; clocks of file systems are coarse."""

TOGETHER = 1024
"""Files that are looked up at a time."""

_BLOCK = 2**20


def row_keys(rows: Sequence[PairRow], report: Callable[[], None] | None = None) -> list[bytes]:
    """The key of each pair: 16 bytes that change with its image's content, the way it is read, and its caption.

    They depend neither on the pair's id nor on the file's path, so that clones and moved data sets share features.

    Args:
        rows: the pairs; files that cannot be opened count by their path
        report: called now and then while files are read, which may take as long as copying them

    Returns:
        a key for each row
    """
    contents = file_contents(dict.fromkeys(row.filepath for row in rows), report)
    return [
        image_key(contents[row.filepath], row.apply_orientation) + digest(repr(row.caption).encode(), HALF)
        for row in rows
    ]


def earlier_key(row: PairRow) -> bytes:
    """The key of runs from before files were known by their content: by path, size, modification time and caption."""
    try:
        status = os.stat(row.filepath)
        file = (status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        file = None
    content = repr((os.fspath(row.filepath), file, row.caption))
    return sha256(content.encode(errors="surrogatepass")).digest()[:KEY_BYTES]


def image_key(content: bytes, apply_orientation: bool) -> bytes:
    """The 8 bytes of a pair's key that stand for its image.

    Args:
        content: by :func:`content_of`
        apply_orientation: whether the image is turned as its EXIF orientation says
    """
    return digest(content + bytes([READING, apply_orientation]), HALF)


def content_of(file: BinaryIO) -> bytes:
    """16 bytes that change with what an open file holds; it is then at its beginning again."""
    hashed = blake2b(digest_size=KEY_BYTES)
    while block := file.read(_BLOCK):
        hashed.update(block)
    file.seek(0)
    return hashed.digest()


def file_contents(paths: Iterable[str], report: Callable[[], None] | None = None) -> dict[str, bytes]:
    """The content of files, read where they have changed since they were last looked up.

    Args:
        paths: of the files
        report: called now and then

    Returns:
        16 bytes by path; those of a file that cannot be opened stand for its path
    """
    found: dict[str, bytes] = {}
    todo = list(paths)
    index = cache_folder("contents") / "files.sqlite"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(todo), TOGETHER):
            if start and report is not None:
                report()
            part = {path: digest(os.fspath(path).encode(errors="surrogatepass")) for path in todo[start:][:TOGETHER]}
            known = _remembered(index, part.values())
            missing = []
            for path, place in part.items():
                entry = known.get(place)
                if entry is not None and entry.signature == _signature(path):
                    found[path] = entry.content
                else:
                    missing.append(path)
            read = dict(zip(missing, threads.map(_read, missing), strict=True))
            found |= {path: entry.content for path, entry in read.items()}
            _remember(index, {part[path]: entry for path, entry in read.items() if entry.settled})
    return found


class _Entry(NamedTuple):
    """A file's content, its signature at that time, and whether this signature will tell a later change."""

    signature: bytes
    content: bytes
    settled: bool = True


def _signature(file: str | int) -> bytes | None:
    """What changes when a file, by its path or number, is written or replaced; None if it is gone.

    Tools that restore a file's size and modification time (tar, rsync) still change its inode or its ctime.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return digest(repr((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)).encode())


def _read(path: str) -> _Entry:
    started = time.time()
    try:
        with opened(path) as file:
            status, before = os.fstat(file.fileno()), _signature(file.fileno())
            content, after = content_of(file), _signature(file.fileno())
    except (UnreadablePair, OSError):
        return _Entry(b"", digest(b"no file " + os.fspath(path).encode(errors="surrogatepass")), settled=False)
    settled = before == after and max(status.st_mtime, status.st_ctime) < started - SETTLED
    return _Entry(before or b"", content, settled)


def _remembered(index: os.PathLike[str], places: Iterable[bytes]) -> dict[bytes, _Entry]:
    """What the index holds of files, by the digests of their paths."""
    wanted = list(places)
    query = f"SELECT path, signature, content FROM files WHERE path IN ({','.join('?' * len(wanted))})"
    try:
        with closing(_connected(index)) as connection:
            return {path: _Entry(signature, content) for path, signature, content in connection.execute(query, wanted)}
    except sqlite3.Error as error:
        _warn(index, error)
        return {}


def _remember(index: os.PathLike[str], entries: Mapping[bytes, _Entry]) -> None:
    if not entries:
        return
    rows = [(path, entry.signature, entry.content) for path, entry in entries.items()]
    try:
        with closing(_connected(index)) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
    except sqlite3.Error as error:
        _warn(index, error)


def _connected(index: os.PathLike[str]) -> sqlite3.Connection:
    connection = sqlite3.connect(index, timeout=30)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, signature BLOB, content BLOB) WITHOUT ROWID"
    )
    return connection


def _warn(index: os.PathLike[str], error: sqlite3.Error) -> None:
    note(
        f"The index of image files {os.fspath(index)} cannot be used ({error}), so that all images are read to see "
        "whether they have changed. Delete it to start afresh."
    )


def digest(content: bytes, size: int = KEY_BYTES) -> bytes:
    """So many bytes that change with a content."""
    return blake2b(content, digest_size=size).digest()
