"""Hugging Face's hub as tests have it: an empty cache, and no network."""

import shutil
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants


@pytest.fixture
def no_network(tmp_path, monkeypatch) -> list[str]:
    """A cache of the hub with nothing in it, and no network; the hosts that were asked for."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    asked: list[str] = []

    resolve = socket.getaddrinfo

    def refuse(host, *args, **options):
        if host in ("127.0.0.1", "localhost"):  # the tests' own database
            return resolve(host, *args, **options)
        asked.append(str(host))
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


@pytest.fixture
def empty_hub(no_network, tmp_path) -> Path:
    """The folder of that cache, for what may ask for no host at all."""
    yield tmp_path / "hub"
    assert not no_network


def put_into_cache(cache: Path, repository: str, folder: Path) -> None:
    """Put a folder's files where the hub's cache keeps a repository's."""
    stored = cache / f"models--{repository.replace('/', '--')}"
    (stored / "refs").mkdir(parents=True, exist_ok=True)
    (stored / "refs" / "main").write_text("revision")
    shutil.copytree(folder, stored / "snapshots" / "revision", dirs_exist_ok=True)
