"""The sample tags that verdicts are recorded by. Their names belong to the dataset, which a team shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import fiftyone.core.odm as foo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Samples, Text, checked

INFO = "ecif_tags"
"""The entry of ``dataset.info`` that holds the names."""


LONGEST_TAG = 100
"""Characters."""


@dataclass(frozen=True)
class Tags:
    """Names of sample tags.

    Attributes:
        misaligned: of pairs that wait for a repair
        trusted: of pairs that somebody looked at and found right
        rejected: of pairs that somebody looked at and found wrong, the suggestion included
        empty: of pairs whose caption somebody looked at and found to say nothing about the image
    """

    misaligned: str = "misaligned"
    trusted: str = "trusted"
    rejected: str = "rejected"
    empty: str = "empty_caption"


@checked(samples=Samples())
def tags_of(samples: SampleCollection) -> Tags:
    """The names of a dataset's tags, as the database has them now.

    Args:
        samples: Dataset or view

    Returns:
        :class:`Tags`
    """
    found = foo.get_db_conn().datasets.find_one({"_id": samples._dataset._doc.id}, {f"info.{INFO}": 1}) or {}
    kept = (found.get("info") or {}).get(INFO)
    named = kept if isinstance(kept, dict) else {}
    return Tags(**{name: named[name] for name in asdict(Tags()) if isinstance(named.get(name), str)})


@checked(dataset=Samples())
def set_tags(
    dataset: SampleCollection,
    *,
    misaligned: str | None = None,
    trusted: str | None = None,
    rejected: str | None = None,
    empty: str | None = None,
) -> Tags:
    """Choose the names of the sample tags that this package reads and writes on a dataset, and on its clones.

    Tags that samples have already stay as they are. Do this where your team's tags of these names mean something else.

    Args:
        dataset: a Dataset or view
        misaligned: tag of pairs that wait for a repair; None to leave its name
        trusted: tag of pairs that were found right, which the next run takes as right; likewise
        rejected: tag of pairs that were found wrong, which the cleaned set leaves out; likewise
        empty: tag of pairs whose caption was found to say nothing, which the cleaned set leaves out; likewise

    Returns:
        the :class:`Tags` that are used from now on

    Raises:
        ValueError: if a name is empty, or two are alike
    """
    given = {"misaligned": misaligned, "trusted": trusted, "rejected": rejected, "empty": empty}
    checked = {name: Text(LONGEST_TAG)(name, tag) for name, tag in given.items() if tag is not None}
    chosen = replace(tags_of(dataset), **checked)
    names = list(asdict(chosen).values())
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise ValueError(f"The tags need names that differ and are not empty, not {', '.join(map(repr, names))}.")
    found = {"_id": dataset._dataset._doc.id}
    foo.get_db_conn().datasets.update_one(found, {"$set": {f"info.{INFO}": asdict(chosen)}})
    dataset._dataset._reload()  # the document alone: views that were used before go on to work
    return chosen
