"""How many odd inputs are tried, what may come out of them, and how many did.

``make test`` tries a few of each kind; ``INPUTS=all`` (`make test-inputs`) at least a thousand of each.
"""

import os
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import bson
import fiftyone as fo
from fiftyone.operators.executor import ExecutionError, ExecutionResult
from hypothesis import HealthCheck, seed, settings

from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.dataset.run.lease import Busy
from fiftyone_ecif.features import UnreadablePair

ALL = os.environ.get("INPUTS") == "all"

DOCUMENTED = (ValueError, UnreadablePair, Busy, ConnectionError)
"""What a caller is told to expect: anything unusable is a ValueError, of which the next two are kinds; the last one is
for a database, or a server with weights, that does not answer."""

tried: Counter[tuple[str, str]] = Counter()
"""Inputs by their kind and by what came of them: "accepted", "refused" or "undocumented"."""


def inputs(few: int, many: int, of: str = "") -> Callable[[Callable], Callable]:
    """How many inputs hypothesis draws; the same ones each time, so that a failure is found again.

    Args:
        few: in ``make test``
        many: where all are tried
        of: what they are for; other names draw other inputs

    Returns:
        a decorator
    """
    drawn = settings(
        max_examples=many if ALL else few,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: seed(zlib.crc32(of.encode()))(drawn(test))


def attempt(kind: str, call: Callable[[], Any], dataset: fo.Dataset, inputs: int = 1) -> bool:
    """Make a call that may be refused with a documented error, and then has changed nothing.

    Args:
        kind: of the inputs, for the count
        call: with the inputs
        dataset: that the call is about
        inputs: how many it has

    Returns:
        whether the call was accepted
    """
    before = state_of(dataset)
    try:
        said_plainly(call)
    except DOCUMENTED as error:
        tried[kind, "refused"] += inputs
        assert str(error).strip(), "an error without words"
        assert state_of(dataset) == before, f"the call was refused and yet changed the dataset: {error}"
        return False
    except BaseException:
        tried[kind, "undocumented"] += inputs
        raise
    tried[kind, "accepted"] += inputs
    return True


def said_plainly(call: Callable[[], Any]) -> None:
    """Make a call; an operator that its form or a documented error refuses raises a ValueError with the same words."""
    try:
        outcome = call()
        if isinstance(outcome, ExecutionResult):
            outcome.raise_exceptions()
    except ExecutionError as error:
        last = str(error).strip().splitlines()[-1]
        names = {error.__name__ for error in DOCUMENTED}
        if last.startswith("Validation error") or last.partition(":")[0].rpartition(".")[2] in names:
            raise ValueError(last) from error
        raise


def state_of(dataset: fo.Dataset) -> dict[str, Any]:
    """A dataset's fields, runs and samples as the database has them."""
    document = database().datasets.find_one({"_id": dataset._doc.id})
    return {
        "fields": sorted((field["name"], str(field)) for field in document["sample_fields"]),
        "runs": {key: bson.encode(database().runs.find_one({"_id": id}) or {}) for key, id in document["runs"].items()},
        "samples": [bson.encode(sample) for sample in database()[document["sample_collection_name"]].find()],
    }
