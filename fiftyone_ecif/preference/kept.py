"""What was asked once, kept on disk by content, so that a run that was interrupted asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any


class KeptAnswers:
    """Answers in a folder, one file each, found by what was asked.

    Args:
        folder: where they lie; made if missing
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, asked: object) -> Any:
        """The answer to a question of plain values; None where it was not asked, or its file is damaged."""
        try:
            return json.loads(self._path(asked).read_text())["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, asked: object, answer: str | float) -> None:
        """Keep an answer; the file is there whole or not at all."""
        path = self._path(asked)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_text(json.dumps({"answer": answer}))
        part.replace(path)

    def _path(self, asked: object) -> Path:
        name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.json"


def content_of(path: str) -> str:
    """64 hexadecimal digits of a file's bytes.

    Raises:
        OSError: if it cannot be read
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    """The same with Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
