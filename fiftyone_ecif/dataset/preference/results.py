"""The results of a run of preference pairs: its pairs, their bias, and what a reviewer decides about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Choice, Flag, Number, Samples, Text, checked, shown
from fiftyone_ecif.dataset.fields import ORIGINS, PREFERENCE_FIELDS
from fiftyone_ecif.dataset.preference.request import CONTAINERS, FORMS
from fiftyone_ecif.dataset.repair.export import appearing, free_folder
from fiftyone_ecif.dataset.run.config import PreferenceConfig, check_preferences, run_field_names
from fiftyone_ecif.dataset.run.stored_run import StoredRun
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.preference import Bias, PreferencePair, bias_of, reason_against, write

DECISIONS = {"keep": "The pair is good", "drop": "The pair is left out of exports"}
"""What a reviewer can say of a pair; an edited pair is kept."""

TEXTS = ("prompt", "chosen", "rejected", "origin", "t", "grounding")


class PreferenceResults(StoredRun):
    """What a run of ``build_preferences`` made.

    Args:
        dataset: the data set
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        check_preferences(dataset, run_key)
        super().__init__(dataset, run_key)

    def __repr__(self) -> str:
        return f"PreferenceResults({self.dataset.name!r}, {self.run_key!r}: {self.health['pairs']:,} pairs)"

    @property
    def config(self) -> PreferenceConfig:
        """What the run was asked for."""
        return self.dataset.get_run_info(self.run_key).config

    @property
    def fields(self) -> dict[str, str]:
        """The run's field names, by their suffixes in :data:`~fiftyone_ecif.dataset.fields.PREFERENCE_FIELDS`."""
        there = set(run_field_names(self.dataset, self.run_key))
        names = {suffix: field.name(self.run_key) for suffix, field in PREFERENCE_FIELDS.items()}
        return {suffix: name for suffix, name in names.items() if name in there}

    @property
    def bias_before(self) -> Bias:
        """How chosen texts differed from rejected ones before lengths were balanced."""
        return Bias(**self._stored.bias[0])

    @property
    def bias_after(self) -> Bias:
        """Likewise after that, as the run was made."""
        return Bias(**self._stored.bias[1])

    def bias(self) -> Bias:
        """Likewise of the pairs as they are now, without those that were dropped."""
        return bias_of([(each.chosen, each.rejected) for each in self.pairs()])

    @checked(origin=Choice(ORIGINS), min_grounding=Number(-1e9))
    def pairs(self, origin: str | None = None, min_grounding: float | None = None) -> list[PreferencePair]:
        """The pairs as they are now, without those that were dropped, in the order of the samples.

        Args:
            origin: of which wrong answers; None for all
            min_grounding: the least grounding, in nats; None for any, and for those that have none

        Raises:
            ValueError: if the run's field was deleted
        """
        found = [
            _pair(id, path, each)
            for id, path, own in self._all()
            for each in own
            if each.get("decision") != "drop" and (origin is None or each["origin"] == origin)
        ]
        if min_grounding is not None:
            found = [each for each in found if each.grounding is not None and each.grounding >= min_grounding]
        return found

    @checked(origin=Choice(ORIGINS))
    def samples(self, origin: str | None = None) -> fo.DatasetView:
        """The samples with pairs that were not dropped.

        Args:
            origin: of which wrong answers; None for all
        """
        wanted: dict[str, Any] = {"decision": {"$ne": "drop"}} | ({} if origin is None else {"origin": origin})
        return everything(self.dataset).match({self._field(): {"$elemMatch": wanted}})

    @checked(key=Text(), decision=Choice(DECISIONS))
    def decide(self, key: str, decision: str) -> None:
        """Keep or drop a pair.

        Args:
            key: the pair's
            decision: of :data:`DECISIONS`

        Raises:
            ValueError: if there is no such pair
        """
        self._set(key, {"decision": decision})

    @checked(key=Text(), chosen=Text(), rejected=Text())
    def edit(self, key: str, chosen: str | None = None, rejected: str | None = None) -> None:
        """Change the texts of a pair, which keeps its key and is kept; its grounding is forgotten with the wrong text.

        Args:
            key: the pair's
            chosen: the new right text; None to leave it
            rejected: the new wrong text; None to leave it

        Raises:
            ValueError: if there is no such pair, or the texts would make none
        """
        pair = replace_texts(self.pair(key), chosen, rejected)
        if not pair.chosen.strip():
            raise ValueError("The chosen text is empty.")
        if reason := reason_against(pair.chosen, pair.rejected):
            raise ValueError(f"These texts make no pair: {reason}.")
        self._set(key, {name: getattr(pair, name) for name in TEXTS} | {"decision": "keep"})

    @checked(form=Choice(FORMS), container=Choice(CONTAINERS), embed_images=Flag())
    def export(
        self,
        folder: str,
        form: str = "dpo",
        container: str = "jsonl",
        embed_images: bool = False,
        origin: str | None = None,
        min_grounding: float | None = None,
    ) -> int:
        """Write the pairs for a training program; the folder appears when it is complete.

        Args:
            folder: where to; must not exist, or be empty
            form: "dpo" or "kto" for TRL, "llava" for conversations with the right answers
            container: "jsonl" for a JSON file, "parquet" for a Hugging Face dataset
            embed_images: whether the file holds the images themselves, or their present paths
            origin: as in :meth:`pairs`
            min_grounding: likewise

        Returns:
            the number of rows

        Raises:
            ValueError: if the folder cannot serve, no pair is left, an image is gone, or a library is not here
        """
        path, pairs = free_folder(folder), self.pairs(origin, min_grounding)
        if not pairs:
            raise ValueError("No pair is left to export.")
        gone = [each.path for each in pairs if not Path(each.path).is_file()]
        if gone:
            missing = f"{len(set(gone))} images are gone, such as {shown(gone[0])}"
            raise ValueError(f"{missing}: put them back, or drop their pairs.")
        with appearing(path) as part:
            part.mkdir()
            return write(form, container, embed_images, pairs, part)

    @checked(key=Text())
    def pair(self, key: str) -> PreferencePair:
        """A pair by its key, dropped or not.

        Raises:
            ValueError: if there is no such pair
        """
        for id, path, own in self._all():
            for each in own:
                if each["key"] == key:
                    return _pair(id, path, each)
        raise ValueError(f"Run {self.run_key!r} has no pair {shown(key)}.")

    def decisions(self) -> dict[str, str | None]:
        """What was decided of each pair, by its key, in the order of the samples; None for nothing yet."""
        return {each["key"]: each.get("decision") for _, _, own in self._all() for each in own}

    def _set(self, key: str, values: Mapping[str, Any]) -> None:
        """Change what is stored of a pair."""
        pair, field = self.pair(key), self._field()
        changed = {f"{field}.$.{name}": value for name, value in values.items()}
        found = {"_id": ObjectId(pair.sample_id), f"{field}.key": key}
        self.dataset._sample_collection.update_one(found, {"$set": changed, "$currentDate": {"last_modified_at": True}})
        fo.Sample._reload_docs(self.dataset._sample_collection_name, sample_ids=[pair.sample_id])

    def _all(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        """Id, path and stored pairs of each sample that has some."""
        view = everything(self.dataset).exists(self._field())
        values = view.aggregate([fo.Values("id"), fo.Values("filepath"), fo.Values(self._field(), _raw=True)])
        return [row for row in zip(*values, strict=True) if row[2]]

    def _field(self) -> str:
        if "preferences" not in self.fields:
            raise ValueError(f"The pairs of run {self.run_key!r} were deleted: build them again.")
        return self.fields["preferences"]


@checked(dataset=Samples())
def load_preferences(dataset: SampleCollection, run_key: str) -> PreferenceResults:
    """Open a run of ``build_preferences``.

    Args:
        dataset: a Dataset or view
        run_key: the run's key

    Returns:
        :class:`PreferenceResults`

    Raises:
        ValueError: if there is no such run
    """
    return PreferenceResults(dataset._dataset, run_key)


def document(pair: PreferencePair) -> dict[str, Any]:
    """A pair as its sample's field holds it."""
    stored = {name: getattr(pair, name) for name in TEXTS}
    return {"_cls": "DynamicEmbeddedDocument", "key": pair.key, **stored, "decision": None}


def replace_texts(pair: PreferencePair, chosen: str | None, rejected: str | None) -> PreferencePair:
    """The pair with other texts."""
    if rejected is not None and rejected != pair.rejected:
        pair = replace(pair, rejected=rejected, grounding=None)
    return pair if chosen is None else replace(pair, chosen=chosen)


def _pair(id: str, path: str, stored: Mapping[str, Any]) -> PreferencePair:
    told: dict[str, Any] = {name: stored.get(name) for name in (*TEXTS, "key")}
    return PreferencePair(id, path, **told)
