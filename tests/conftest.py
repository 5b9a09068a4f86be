"""What all tests share: a database of their own, nothing of the user's touched, and a few generated pairs.

The environment is set before FiftyOne is imported, since it reads it once. Where FiftyOne is not installed (a machine
for GPU tests), the tests that need it are left out and the others run.
"""

import atexit
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
HAS_FIFTYONE = importlib.util.find_spec("fiftyone") is not None
collect_ignore = [] if HAS_FIFTYONE else ["dataset", "plugin", "browser", "faults", "fuzz"]

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 220), "yellow": (230, 210, 40)}
SHAPES = ("circle", "square", "triangle")
TEMPLATES = ("a {} {}", "a drawing of a {} {}", "one {} {} on gray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pytest_configure(config):
    own_fiftyone()


def own_fiftyone() -> Path:
    """Give FiftyOne a database, plugins and folders of its own, which vanish at exit; returns where they are."""
    if "fiftyone" in sys.modules:
        raise pytest.UsageError("fiftyone was imported before it could be given a database of its own")
    root = Path(tempfile.mkdtemp(prefix="fiftyone-ecif-tests-"))
    # Exit handlers run last in, first out: FiftyOne's own, registered later, must still find the server and its files.
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "plugins").mkdir()
    (root / "plugins" / "fiftyone-ecif").symlink_to(REPOSITORY)
    os.environ.update(
        FIFTYONE_DATABASE_NAME="fiftyone-ecif-tests",
        FIFTYONE_DATABASE_VALIDATION="false",
        FIFTYONE_PLUGINS_DIR=str(root / "plugins"),
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_SHOW_PROGRESS_BARS="false",
        FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS="true",  # the App's "Schedule" choice
        FIFTYONE_CONFIG_PATH=str(root / "config.json"),
        FIFTYONE_APP_CONFIG_PATH=str(root / "app_config.json"),
        FIFTYONE_DEFAULT_DATASET_DIR=str(root / "datasets"),
        FIFTYONE_DATASET_ZOO_DIR=str(root / "zoo-datasets"),
        FIFTYONE_MODEL_ZOO_DIR=str(root / "zoo-models"),
        FIFTYONE_ECIF_CACHE=str(root / "cache"),
        RAY_TMPDIR=str(root),  # else Ray would look for a cluster of the user's, or for one that was killed
    )
    if HAS_FIFTYONE:
        os.environ["FIFTYONE_DATABASE_URI"] = start_mongod(root)
    return root


def start_mongod(root: Path) -> str:
    """Start a database server under ``root`` that stops when the tests end; returns its URI."""
    port = free_port()
    start_server(root, port)
    return f"mongodb://127.0.0.1:{port}"


def start_server(root: Path, port: int) -> subprocess.Popen:
    """Start a database server, on the files that an earlier one left under ``root`` where there are any."""
    bundled = Path(importlib.util.find_spec("fiftyone").submodule_search_locations[0]) / "db" / "bin" / "mongod"
    mongod = str(bundled) if bundled.is_file() else shutil.which("mongod")
    if mongod is None:
        raise pytest.UsageError("There is no mongod, so the tests against FiftyOne cannot run; `make env` installs one")
    (root / "database").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [mongod, "--dbpath", root / "database", "--logpath", root / "mongod.log"]
        + ["--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"],
        stdout=subprocess.DEVNULL,
    )
    atexit.register(stop_server, server)
    wait_for_server(server, port, root / "mongod.log")
    return server


def stop_server(server: subprocess.Popen) -> None:
    server.terminate()
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()


def wait_for_server(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    tail = log.read_text()[-1000:] if log.exists() else "it wrote no log"
    raise pytest.UsageError(f"mongod did not start: {tail}")


@pytest.fixture(scope="session")
def pair_rows(tmp_path_factory) -> list[tuple[str, str, str]]:
    """60 generated images as (filepath, caption, shape): 4 colours, 3 shapes, 5 sizes each."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number, (color, shape, size) in enumerate(itertools.product(COLORS, SHAPES, range(16, 46, 6))):
        image = Image.new("RGB", (96, 96), (235, 235, 235))
        draw = ImageDraw.Draw(image)
        box = (48 - size, 48 - size, 48 + size, 48 + size)
        if shape == "circle":
            draw.ellipse(box, fill=COLORS[color])
        elif shape == "square":
            draw.rectangle(box, fill=COLORS[color])
        else:
            draw.polygon([(48, 48 - size), (48 + size, 48 + size), (48 - size, 48 + size)], fill=COLORS[color])
        path = folder / f"{number:02d}-{color}-{shape}.png"
        image.save(path)
        rows.append((str(path), TEMPLATES[number % len(TEMPLATES)].format(color, shape), shape))
    return rows


@pytest.fixture
def pair_dataset(pair_rows):
    """A fresh dataset of the generated pairs, with fields ``caption`` and ``ground_truth``.

    It stays until the tests' database vanishes: the App's server may still be answering a page that showed it.
    """
    import fiftyone as fo

    dataset = fo.Dataset()
    dataset.add_samples(
        [
            fo.Sample(filepath=filepath, caption=caption, ground_truth=fo.Classification(label=shape))
            for filepath, caption, shape in pair_rows
        ]
    )
    return dataset
