"""A small dataset with runs of several owners, calls that change it in a process that may be killed, and what is left.

A child process is forked from a server that has imported everything and is connected to nothing, so that it costs no
more than the calls that it makes.
"""

import multiprocessing
import os
import signal
import traceback
from datetime import timezone
from multiprocessing.connection import Connection

import fiftyone as fo
import fiftyone.core.odm.database as connection
import mongoengine
import numpy as np
import pymongo.monitoring
import torch
from bson import ObjectId
from fiftyone.core.runs import RunConfig

import fiftyone_ecif as ecif
from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.dataset.compute.influence import compute_influence
from fiftyone_ecif.dataset.run.config import tensor_file
from fiftyone_ecif.dataset.run.database import database
from tests.support.prepared import columns, few_samples, write

KEY, OLD, NEW = "x", 1.0, 1000.0
"""The run that the calls are about, and what the values of its first and second writing begin with."""


# In the process that may be killed


class Counter(pymongo.monitoring.CommandListener):
    """Counts the commands to the database from ``armed`` on, and kills a process before a given one.

    Args:
        kill_at: the number of the command
        victim: id of the process; None for this one
    """

    def __init__(self, kill_at: int | None, victim: int | None = None) -> None:
        self.kill_at, self.victim, self.count, self.armed = kill_at, victim, 0, False

    def started(self, event):
        """A command is about to be sent."""
        if self.armed:
            self.count += 1
            if self.count == self.kill_at:
                os.kill(self.victim or os.getpid(), signal.SIGKILL)

    def succeeded(self, event):
        """Not counted."""

    def failed(self, event):
        """Not counted."""


def connect_anew(listener: Counter) -> None:
    """Give a forked process connections of its own."""
    pymongo.monitoring.register(listener)
    connection._disconnect()
    mongoengine.disconnect_all()
    connection.establish_db_conn(fo.config)


def child(call, arguments: tuple, counter: dict, uri: str | None, answer: Connection) -> None:
    """Make a call on the tests' database or another; answers (returned value, commands), or (None, error as text)."""
    counter = Counter(**counter)
    try:
        if uri is not None:
            fo.config.database_uri = uri
            connection._connection_kwargs["serverSelectionTimeoutMS"] = 500
        connect_anew(counter)
        returned = call(*arguments, counter)
        answer.send((returned, counter.count))
    except BaseException:
        answer.send((None, traceback.format_exc()))


def in_child(call, *arguments, kill_at: int | None = None, victim: int | None = None, uri: str | None = None):
    """Make a call in a fresh process.

    Args:
        call: a function of this module
        *arguments: its arguments but the last one, the :class:`Counter`
        kill_at: the command before which a process is killed
        victim: the id of that process; None for the fresh one
        uri: of the database; None for that of the tests

    Returns:
        what it returned and how many commands it sent after ``counter.armed``; None if it was killed
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    here, there = server.Pipe(duplex=False)
    process = server.Process(target=child, args=(call, arguments, dict(kill_at=kill_at, victim=victim), uri, there))
    process.start()
    there.close()
    try:
        returned, count = here.recv()
    except EOFError:
        returned, count = None, None
    process.join(120)
    if count is None:
        assert process.exitcode == -signal.SIGKILL
        return None
    assert not isinstance(count, str), count
    return returned, count


def write_new(name: str, overwrite: bool, counter: Counter) -> None:
    """Write the run a second time, or for the first."""
    some = fo.load_dataset(name).limit(4)
    values = columns(some, base=NEW)
    counter.armed = True
    write(some, KEY, values, overwrite=overwrite)
    counter.armed = False


def rename(name: str, counter: Counter) -> None:
    """Rename the run."""
    dataset = fo.load_dataset(name)
    counter.armed = True
    ecif.rename_run(dataset, KEY, "renamed")
    counter.armed = False


def delete(name: str, counter: Counter) -> None:
    """Delete the run."""
    dataset = fo.load_dataset(name)
    counter.armed = True
    ecif.delete_run(dataset, KEY)
    counter.armed = False


def look(name: str, counter: Counter) -> list[str]:
    """List the runs: what any call of the package does first."""
    dataset = fo.load_dataset(name)
    counter.armed = True
    return ecif.list_runs(dataset)


def write_under(name: str, run_key: str, base: float, counter: Counter) -> None:
    """Write a run under some key."""
    dataset = fo.load_dataset(name)
    write(dataset, run_key, columns(dataset, base=base, evidence=True))


def new_scene(counter: Counter) -> tuple[str, dict, dict]:
    """Make a scene with a run; returns its name and what is there."""
    dataset = scene(with_run=True)
    return dataset.name, theirs(dataset), ours(dataset)


def look_closely(name: str, counter: Counter) -> tuple[dict, dict, list]:
    """List the runs, and say what is there and what was left."""
    dataset = fo.load_dataset(name)
    ecif.list_runs(dataset)
    return theirs(dataset), ours(dataset), leftovers(dataset)


def refusal(call, *arguments) -> str:
    """What a call is refused with, in a process of its own."""
    *arguments, counter = arguments
    try:
        call(*arguments, counter)
    except (ValueError, ConnectionError) as error:
        return f"{type(error).__name__}: {error}"
    return "it was not refused"


# The scene


def scene(with_run: bool) -> fo.Dataset:
    """A dataset with fields and runs that are not the call's business, and perhaps with the run that it is about."""
    dataset = few_samples()
    dataset.persistent = True  # no process that ends may delete it
    dataset.set_values("x_replacement_value", [0.5] * 6)
    dataset.set_values("quality", list(range(6)))
    dataset.create_index("quality")
    dataset.register_run("x_replacement", RunConfig(method="another package's"))
    write(dataset, "other", columns(dataset, base=50.0, evidence=True), tensors={"t": torch.arange(5)})
    if with_run:
        write(dataset, KEY, columns(dataset, base=OLD, evidence=True))
    return dataset


def theirs(dataset: fo.Dataset) -> dict:
    """Everything of the dataset that is not the run's, bit for bit."""
    document = database().datasets.find_one({"_id": dataset._doc.id})
    samples = database()[document["sample_collection_name"]]
    ours = (KEY + "_", "renamed_", "last_modified_at", "last_loaded_at")

    def kept(values):
        return {k: v for k, v in values.items() if not k.startswith(ours) or k.startswith("x_replacement")}

    runs = {key: id for key, id in document["runs"].items() if key not in (KEY, "renamed")}
    scheme = document["app_config"].pop("color_scheme", None) or {}
    tensors = tensor_file(dataset.get_run_info("other").config).read_bytes()
    fields = [field for field in document["sample_fields"] if field["name"] in kept({field["name"]: 0})]
    return {
        "document": {k: v for k, v in kept(document).items() if k not in ("runs", "sample_fields")},
        "colors": [each for each in scheme.get("fields") or () if each["path"] in kept({each["path"]: 0})],
        "fields": [field for field in fields if field["name"] != "last_modified_at"],
        "samples": [kept(sample) for sample in samples.find()],
        "runs": [(key, database().runs.find_one({"_id": id})) for key, id in runs.items()],
        "results": _results(runs.values()),
        "indexes": {k: v for k, v in samples.index_information().items() if k in kept({k: 0})},
        "tensors": tensors,
    }


def ours(dataset: fo.Dataset, key: str = KEY) -> dict:
    """What the dataset has of a run: its values by field, its declared fields, indexes, record and tensors."""
    document = database().datasets.find_one({"_id": dataset._doc.id})
    samples = database()[document["sample_collection_name"]]
    names = [f["name"] for f in document["sample_fields"] if f["name"].startswith(f"{key}_")]
    names = [name for name in names if not name.startswith("x_replacement")]
    record = database().runs.find_one({"_id": document["runs"].get(key)})
    values = [
        {name[len(key) :]: _plain(value) for name, value in sample.items() if name.startswith(f"{key}_")}
        for sample in samples.find()
    ]
    indexes = [name for name in samples.index_information() if name.startswith(f"{key}_")]
    for sample in values:
        sample.pop("_replacement_value", None)
    return {
        "fields": sorted(name[len(key) :] for name in names),
        "values": values,
        "indexes": sorted(name[len(key) :] for name in indexes),
        "asked": None if record is None else record["config"].get("asked"),
        "pairs": None if record is None else dataset_results(record),
    }


def leftovers(dataset: fo.Dataset) -> list:
    """What was made since the dataset was and belongs to no run: records, collections, journals, results, files."""
    document, since = database().datasets.find_one({"_id": dataset._doc.id}), dataset.created_at
    records = list(database().runs.find({"_dataset_id": dataset._doc.id}))
    lost = [record["_id"] for record in records if record["_id"] not in document["runs"].values()]
    lost += [name for name in database().list_collection_names() if name.startswith("ecif.staged.")]
    lost += list(database()["ecif.journals"].find())
    known = {record["results"] for record in database().runs.find() if record.get("results")}
    lost += [each["_id"] for each in database()["fs.files"].find() if each["_id"] not in known | _made_before(since)]
    lost += [id for id in database()["fs.chunks"].distinct("files_id") if id not in known | _made_before(since)]
    named = {record["config"].get("tensors") for record in database().runs.find()}
    seconds = since.replace(tzinfo=timezone.utc).timestamp()
    files = [file for file in cache_folder("runs").iterdir() if file.stat().st_mtime > seconds]
    return lost + [file.name for file in files if file.stem not in named or file.suffix == ".part"]


def _made_before(moment) -> set:
    """Ids of results that were stored before a moment."""
    return {each["_id"] for each in database()["fs.files"].find({"uploadDate": {"$lt": moment}})}


def dataset_results(record: dict) -> str:
    """A run's results as they are stored."""
    return b"".join(chunk["data"] for chunk in _chunks(record["results"])).decode()


def _results(ids) -> list:
    records = [database().runs.find_one({"_id": id}) for id in ids]
    return [chunk for record in records if record.get("results") for chunk in _chunks(record["results"])]


def _chunks(results: ObjectId):
    return database()["fs.chunks"].find({"files_id": results}).sort("n", 1)


def _plain(value):
    """A value without the ids that a label gets when it is made."""
    return {k: v for k, v in value.items() if k != "_id"} if isinstance(value, dict) else value


# A real run


def embedded_samples() -> fo.Dataset:
    """A dataset with stored embeddings of 24 pairs, two of them swapped."""
    dataset, rng = few_samples(24), np.random.default_rng(0)
    dataset.persistent = True
    codes = rng.normal(size=(24, 8))
    texts = codes + 0.3 * rng.normal(size=(24, 8))
    texts[[0, 5]] = texts[[5, 0]]
    dataset.set_values("image_vector", codes.tolist())
    dataset.set_values("text_vector", texts.tolist())
    return dataset


def score(name: str, kill_at_step: int | None, overwrite: bool, counter: Counter) -> int:
    """Score the pairs; the process is killed at a given call of ``progress``. Returns the number of these calls."""
    calls = [0]

    def progress(step: str, done: int, total: int) -> None:
        calls[0] += 1
        if calls[0] == kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    compute_influence(
        fo.load_dataset(name),
        text_field="caption",
        image_embeddings="image_vector",
        text_embeddings="text_vector",
        run_key=KEY,
        rounds=1,
        batch_size=8,
        overwrite=overwrite,
        progress=progress,
    )
    return calls[0]
