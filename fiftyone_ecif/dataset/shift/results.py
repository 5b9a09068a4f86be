"""A shift run's results: scenarios with their numbers, the samples that carry a shift, the directions it goes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import COUNT, Samples, Text, checked
from fiftyone_ecif.dataset.fields import SHIFT_FIELDS
from fiftyone_ecif.dataset.run.config import ShiftConfig, check_shift, run_field_names
from fiftyone_ecif.dataset.run.store import load_tensors
from fiftyone_ecif.dataset.run.stored_run import StoredRun
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.dataset.shift.request import MEASURES
from fiftyone_ecif.shift import Club, Divergence, Estimate, EstimatorFit, save_club

REFERENCE = "reference"
"""What the set that all others are compared with is called."""

ESTIMATOR = "estimator."
"""What the names of the estimator's tensors begin with."""


@dataclass(frozen=True)
class ShiftDirection:
    """A direction of the embeddings in which a scenario and the reference differ.

    Attributes:
        reference_mass: the mean square of the reference's unit embeddings along it, 0 to 1
        scenario_mass: likewise of the scenario's
        sample_ids: those that lie farthest along it, of the set with the larger mass, farthest first
    """

    reference_mass: float
    scenario_mass: float
    sample_ids: list[str]

    @property
    def more_in_scenario(self) -> bool:
        """Whether the scenario has more of it than the reference, and so the samples are the scenario's."""
        return self.scenario_mass > self.reference_mass


@dataclass(frozen=True)
class ShiftScenario:
    """One set of samples against the reference. What was not compared is None.

    Attributes:
        name: of the set
        count: its samples that were compared
        image: the divergence of its images from the reference's
        query: that of its queries
        emi: its effective mutual information, in the estimator's units; None without responses
        emid: the reference's EMI less this: how much relevance of the responses is lost
        answers: the divergence of its responses from their references
        bound: the upper bound of EMID in its scale-adjusted form: it ranks scenarios and does not bound EMID
        entropy_bound: the entropy form, where an entropy was given
        image_directions: in which the images differ most, the largest difference first
        query_directions: likewise of the queries
    """

    name: str
    count: int
    image: Divergence | None
    query: Divergence | None
    emi: Estimate | None
    emid: Estimate | None
    answers: Divergence | None
    bound: Estimate | None
    entropy_bound: Estimate | None
    image_directions: list[ShiftDirection]
    query_directions: list[ShiftDirection]

    @property
    def input_shift(self) -> float:
        """Σ √JSD over the inputs, debiased where there were permutations: the bound's part that needs no answers."""
        found = [each.debiased or each.estimate for each in (self.image, self.query) if each is not None]
        return float(sum(max(each.value, 0.0) ** 0.5 for each in found))

    @property
    def risk(self) -> float:
        """What scenarios are ranked by: the bound, or without responses the shift of the inputs."""
        return self.input_shift if self.bound is None else self.bound.value


class ShiftResults(StoredRun):
    """What a run of ``compute_shift`` found.

    Args:
        dataset: the data set
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        check_shift(dataset, run_key)
        super().__init__(dataset, run_key)

    def __repr__(self) -> str:
        named = ", ".join(each.name for each in self.scenarios)
        return f"ShiftResults({self.dataset.name!r}, {self.run_key!r}: {named})"

    @property
    def config(self) -> ShiftConfig:
        """What the run was asked for."""
        return self.dataset.get_run_info(self.run_key).config

    @property
    def fields(self) -> dict[str, str]:
        """The run's field names, by their suffixes in :data:`~fiftyone_ecif.dataset.fields.SHIFT_FIELDS`."""
        there = set(run_field_names(self.dataset, self.run_key))
        names = {suffix: field.name(self.run_key) for suffix, field in SHIFT_FIELDS.items()}
        return {suffix: name for suffix, name in names.items() if name in there}

    @cached_property
    def scenarios(self) -> list[ShiftScenario]:
        """The scenarios, the riskiest first: by the bound, or without responses by the shift of the inputs."""
        found = [_scenario(each) for each in self._stored.scenarios]
        return sorted(found, key=lambda each: each.risk, reverse=True)

    @checked(name=Text())
    def scenario(self, name: str | None = None) -> ShiftScenario:
        """A scenario by its name; the riskiest for None.

        Raises:
            ValueError: that names those there are, if there is none of this name
        """
        if name is None:
            return self.scenarios[0]
        found = [each for each in self.scenarios if each.name == name]
        if not found:
            raise ValueError(
                f"There is no scenario {name!r}: there are {', '.join(each.name for each in self.scenarios)}."
            )
        return found[0]

    @property
    def reference_count(self) -> int:
        """Samples of the reference that were compared."""
        return self._stored.reference["count"]

    @property
    def reference_emi(self) -> Estimate | None:
        """The reference's effective mutual information, in the estimator's units; None without responses."""
        return _estimate(self._stored.reference["emi"])

    @property
    def reference_answers(self) -> Divergence | None:
        """The divergence of the reference's responses from their references; None without responses."""
        return _divergence(self._stored.reference["answers"])

    @property
    def estimator_fit(self) -> EstimatorFit | None:
        """How the estimator's training went; None for one that was loaded, and without responses."""
        kept = self._stored.estimator_fit
        return None if kept is None else EstimatorFit(**kept)

    @checked(name=Text())
    def samples(self, name: str) -> fo.DatasetView:
        """The samples of a scenario, or of the "reference", that were compared and are still there.

        A sample of several scenarios is found in the first of them.

        Args:
            name: of the scenario
        """
        if name != REFERENCE:
            self.scenario(name)
        return everything(self.dataset).match({self._field("scenario"): name})

    @checked(of=Text(), name=Text(), limit=COUNT)
    def most_shifted(self, of: str = "image", name: str | None = None, limit: int | None = None) -> fo.DatasetView:
        """The samples that carry the most of a shift, those first that add most to it.

        Args:
            of: "image" or "query", for what each adds to the divergence; "emi", for the samples whose responses lose
                the most
            name: of the scenario; None for the riskiest
            limit: at most so many

        Returns:
            a sorted view

        Raises:
            ValueError: if that was not compared, or there is no such scenario
        """
        if of not in MEASURES:
            raise ValueError(f"of must be one of {', '.join(MEASURES)}, not {of!r}.")
        field = self._field(MEASURES[of])
        view = self.samples(self.scenario(name).name).exists(field).sort_by(field, reverse=of != "emi")
        return view if limit is None else view.limit(limit)

    def direction_samples(self, direction: ShiftDirection) -> fo.DatasetView:
        """The samples that lie farthest along a direction of a scenario and are still there, farthest first."""
        if not isinstance(direction, ShiftDirection):
            raise ValueError(f"direction must be one of a scenario's directions, not {type(direction).__name__}.")
        return everything(self.dataset).select(direction.sample_ids, ordered=True)

    def _field(self, suffix: str) -> str:
        """The name of one of the run's fields; raises a ValueError if it has none."""
        if suffix not in self.fields:
            raise ValueError(
                f"Run {self.run_key!r} has no field {SHIFT_FIELDS[suffix].name(self.run_key)!r}: that was not "
                "compared, or the field was deleted."
            )
        return self.fields[suffix]

    def estimator(self) -> Club:
        """The estimator that EMI is by.

        Raises:
            ValueError: if the run had no responses, or its tensors are gone
        """
        tensors = load_tensors(self.config)
        state = {name.removeprefix(ESTIMATOR): value for name, value in tensors.items() if name.startswith(ESTIMATOR)}
        if not state:
            raise ValueError(f"Run {self.run_key!r} was computed without responses: there is no estimator.")
        (hidden, inputs), outputs = state["p_mu.0.weight"].shape, len(state["p_mu.2.weight"])
        club = Club(inputs, outputs, hidden, self.config.bounded)
        club.load_state_dict(state)
        return club.requires_grad_(False)

    @checked(path=Text())
    def save_estimator(self, path: str) -> str:
        """Write the estimator as ``.safetensors``, for ``compute_shift(estimator=path)``: EMI compares under one alone.

        Returns:
            ``path``
        """
        save_club(self.estimator(), path)
        return path


@checked(dataset=Samples())
def load_shift(dataset: SampleCollection, run_key: str) -> ShiftResults:
    """Open a run of ``compute_shift``.

    Args:
        dataset: a Dataset or view
        run_key: the run's key

    Returns:
        :class:`ShiftResults`

    Raises:
        ValueError: if there is no such run
    """
    return ShiftResults(dataset._dataset, run_key)


def _estimate(kept: Mapping[str, Any] | None) -> Estimate | None:
    return None if kept is None else Estimate(**kept)


def _divergence(kept: Mapping[str, Any] | None) -> Divergence | None:
    if kept is None:
        return None
    return Divergence(Estimate(**kept["estimate"]), _estimate(kept["debiased"]), kept["p_value"], kept["few"])


def _scenario(kept: Mapping[str, Any]) -> ShiftScenario:
    """A scenario as its record keeps it."""
    kinds: dict[str, Callable[[Any], Any]] = dict.fromkeys(("image", "query", "answers"), _divergence)
    kinds |= dict.fromkeys(("emi", "emid", "bound", "entropy_bound"), _estimate)
    kinds |= dict.fromkeys(("image_directions", "query_directions"), _directions)
    return ShiftScenario(**{name: kinds[name](value) if name in kinds else value for name, value in kept.items()})


def _directions(kept: Sequence[Mapping[str, Any]]) -> list[ShiftDirection]:
    return [ShiftDirection(**each) for each in kept]
