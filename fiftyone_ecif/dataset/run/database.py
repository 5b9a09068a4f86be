"""The database that FiftyOne is connected to, and what is said when it stops answering."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fiftyone.core.odm as foo
from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import ConnectionFailure


def database() -> Database:
    """The database that FiftyOne is connected to."""
    return foo.get_db_conn()


def database_mark() -> dict[str, str]:
    """What the files of this database's runs are marked with, since databases may share a cache folder."""
    marks, new = database()["ecif.about"], {"$setOnInsert": {"mark": uuid.uuid4().hex}}
    known = marks.find_one_and_update({"_id": "database"}, new, upsert=True, return_document=ReturnDocument.AFTER)
    return {"database": known["mark"]}


@contextmanager
def plain_errors(doing: str) -> Iterator[None]:
    """Say in plain words that the database stopped answering.

    Args:
        doing: what the block does, as in "while it was written"

    Raises:
        ConnectionError: in place of the driver's own errors
    """
    try:
        yield
    except ConnectionFailure as error:
        raise ConnectionError(
            f"FiftyOne's database stopped answering {doing}. Start it again and repeat the call: what was half written "
            "is completed or undone first, and nothing else was touched."
        ) from error
