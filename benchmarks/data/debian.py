"""Data sets inside Debian packages: installed ones are read in place, others downloaded and unpacked without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class SourceUnavailable(RuntimeError):
    """No source of the data set can be reached from this machine."""


def debian_files(packages: Sequence[str], content: Path, folder: Path) -> Path:
    """Where the files of Debian packages are: the system's own where installed, else unpacked into ``folder``.

    Args:
        packages: their names; all are downloaded if any of them is not there
        content: folders of the packages relative to the root, e.g. "usr/share/openclipart"
        folder: where they are unpacked

    Returns:
        the path of ``content``

    Raises:
        SourceUnavailable: if this is no Debian system, or a package cannot be downloaded
    """
    if all((Path("/usr/share/doc") / package).is_dir() for package in packages) and (Path("/") / content).is_dir():
        return Path("/") / content
    root = folder / "debian"
    if not root.is_dir():
        _unpack(packages, root)
    return root / content


def _unpack(packages: Sequence[str], root: Path) -> None:
    """Download packages with apt and unpack them to ``root``, complete or not at all."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SourceUnavailable("this is not a Debian system")
    part = root.with_name(root.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    download = ["apt-get", "download", *packages]
    fetched = subprocess.run(download, cwd=part, capture_output=True, text=True)
    if fetched.returncode != 0 and os.geteuid() == 0:
        subprocess.run(["apt-get", "update"], capture_output=True)  # a fresh machine knows no package yet
        fetched = subprocess.run(download, cwd=part, capture_output=True, text=True)
    archives = list(part.glob("*.deb"))
    if fetched.returncode != 0 or len(archives) < len(packages):
        raise SourceUnavailable(f"apt-get download failed: {fetched.stderr.strip().splitlines()[-1:]}")
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=part, check=True)
        archive.unlink()
    os.replace(part, root)
