"""The operators that repair the data: faces over the SDK's functions that tag, fix and undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import PROBABILITY
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.repair import fixes, review
from fiftyone_ecif.dataset.samples import number_of
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.plugin.background import Progress, show_output
from fiftyone_ecif.plugin.forms import (
    as_text,
    choose_samples,
    chosen_run,
    chosen_samples,
    chosen_threshold,
    counted,
    given,
    notice,
    passes,
    refuse,
    say_count,
    show_fields,
)
from fiftyone_ecif.plugin.operator import MODAL, EcifOperator
from fiftyone_ecif.plugin.run_operator import RunJob, RunOperator

SHOWN_CHANGES = 8

SURE = 0.9
"""The confidence from which suggestions are applied unless another is asked for: most others are wrong."""

STEPS = (0.9, 0.75, 0.5, 0.25)
"""Confidences from which suggestions are counted."""

HOW_TO_UNDO = "To take it back: “ECIF: undo fixes”, or “Undo last fix” in the panel's tab “Review”."


class TagMisaligned(RunOperator):
    """Tags the suspects, so that they can be repaired or left out of an export."""

    name = "tag_misaligned"
    label = "tag misaligned pairs"
    description = "Give the tag of misaligned pairs to those at or above a threshold of misalignment"
    icon = "tag.svg"
    risk = "medium"
    submit = "Tag"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        threshold: float | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to look at
            run_key: the run; None: the newest
            threshold: the minimum probability of being misaligned, 0 to 1; None: 0.5
            delegate: not supported, since the operator takes no time

        Returns:
            the result, whose ``result["tagged"]`` is the number of suspects
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, threshold=threshold)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for samples and threshold, and say how many pairs these give."""
        samples = choose_samples(ctx, inputs, "Tag among")
        field = inputs.float(
            "threshold",
            default=review.SUSPECTED,
            label="Minimum probability of being misaligned",
            description="From 0.5 on, a wrong caption is likelier than a right one",
        )
        if passes(field, chosen_threshold, ctx):
            count = len(review.suspected(samples, run_key, chosen_threshold(ctx)))
            none = "No pair reaches this threshold. Lower it to tag some."
            say_count(inputs, "count", count, f"{counted(count, 'pair')} will be tagged", none)

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Tag, and say how many."""
        tagged = ecif.tag_misaligned(chosen_samples(ctx), chosen_run(ctx), chosen_threshold(ctx))
        self.announce_change(ctx, f"Tagged {counted(tagged, 'pair')} as misaligned")
        return {"tagged": tagged}


class ApplySuggestions(RunOperator):
    """Replaces the captions or labels of the open sample, the selected ones, or all, by what a run suggests."""

    name = "apply_suggestions"
    label = "review and apply suggestions"
    description = "Replace captions or labels by the run's suggestions; the old ones are kept and can be restored"
    icon = "fix.svg"
    risk = "high"
    submit = "Apply"
    place = MODAL

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        min_confidence: float | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to repair
            run_key: the run; None: the newest
            min_confidence: the minimum confidence of a suggestion, 0 to 1; None: 0.9
            delegate: not supported, since the operator takes no time

        Returns:
            the result, with ``result["changed"]`` and ``result["unchanged"]``
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, min_confidence=min_confidence)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for samples and confidence, and show what would change."""
        samples = choose_samples(ctx, inputs, "Repair")
        field = inputs.float(
            "min_confidence",
            default=SURE,
            label="Minimum confidence",
            description="1 applies only the surest suggestions, 0 every one, likely or not",
        )
        if passes(field, _confidence, ctx):
            _preview(ctx, inputs, samples, run_key, _confidence(ctx))

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, object]:
        """Repair, and say what was not repaired and why."""
        run_key = chosen_run(ctx)
        report = ecif.apply_suggestions(chosen_samples(ctx), run_key, _confidence(ctx), by=ctx.user_id)
        outcome = _announce(self, ctx, "Suggestions", report, HOW_TO_UNDO if report.changed else "")
        show_fields(ctx, run_key)
        return outcome


def _confidence(ctx: foo.ExecutionContext) -> float:
    return given(ctx, "min_confidence", PROBABILITY, SURE, "The minimum confidence")


def _preview(
    ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, run_key: str, confidence: float
) -> None:
    """Show the changes that the form asks for, the surest first, or say why there are none."""
    text_field = ctx.dataset.get_run_info(run_key).config.text_field
    if text_field is None:
        refuse(inputs, "no_texts", "This run was computed without captions or labels, so there is nothing to replace.")
        return
    try:
        path = fixes.writable_text(ctx.dataset, text_field)
    except ValueError as error:
        refuse(inputs, "not_writable", str(error))
        return
    name = score_field(ctx.dataset, run_key, "suggestion")
    sureness = np.array(fixes.applicable(samples, run_key).values(f"{name}.confidence"), dtype=float)
    if not len(sureness):
        refuse(inputs, "count", "These samples have no suggestion that is not applied yet.")
        return
    by_confidence = (
        "Suggestions by confidence: "
        + ", ".join(f"{(sureness >= step).sum():,} from {step:g}" for step in STEPS)
        + f", {counted(len(sureness), 'suggestion')} in all."
    )
    changes = fixes.applicable(samples, run_key, confidence)
    count = len(changes)
    if not count:
        refuse(inputs, "count", "None of the suggestions that are not applied yet has this confidence.", by_confidence)
        return
    surest = changes.sort_by(f"{name}.confidence", reverse=True).limit(SHOWN_CHANGES)
    texts, labels, sureness = surest.values([path, f"{name}.label", f"{name}.confidence"])
    rows = [
        {"before": as_text(before), "after": f"{after} ({sure or 0.0:.2f})"}
        for before, after, sure in zip(texts, labels, sureness, strict=True)
    ]
    table = types.TableView(read_only=True)
    for key, label in (("before", "Now"), ("after", "Suggestion (confidence)")):  # a third column would be cut off
        table.add_column(key, label=label)
    notice(inputs, "count", types.Notice, f"{counted(count, 'sample')} will change", f"{by_confidence} {HOW_TO_UNDO}")
    inputs.list("changes", types.Object(), default=rows, view=table)


class NameWrongWords(RunJob):
    """Names the words of suspected captions that do not belong to their images."""

    name = "name_wrong_words"
    label = "name wrong words"
    description = "Name the words of suspected captions that do not belong to their images"
    icon = "words.svg"
    risk = "medium"
    submit = "Name"
    title = "Naming wrong words"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        threshold: float | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to look at
            run_key: the run; None: the newest
            threshold: the minimum probability of being misaligned, 0 to 1; None: 0.5
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, threshold=threshold)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for samples and threshold, and say what that costs."""
        samples = choose_samples(ctx, inputs, "Look at")
        config = ctx.dataset.get_run_info(run_key).config
        if config.model is None:
            words = "This run used stored embeddings, so there is no text tower to read captions without a word."
            refuse(inputs, "no_model", words)
        label = "Minimum probability of being misaligned"
        field = inputs.float("threshold", default=review.SUSPECTED, label=label)
        if passes(field, chosen_threshold, ctx):
            count = len(review.suspected(samples, run_key, chosen_threshold(ctx)))
            cost = "The model reads each of them once for each of its words. Nothing else is computed anew."
            none = "No pair reaches this threshold. Lower it to look at some."
            say_count(inputs, "count", count, f"{counted(count, 'caption')} will be looked at", none, cost)

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        run_key = chosen_run(ctx)
        results = ecif.load_results(ctx.dataset, run_key)
        suspects = review.suspected(chosen_samples(ctx), run_key, chosen_threshold(ctx))
        return lambda progress: results.name_wrong_words(suspects, progress=progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Say of how many captions words were named."""
        yield ctx.ops.reload_dataset()
        outputs = types.Object()
        named = sum(bool(words) for words in result.values())
        text = "The panel's tab “Review” marks them. They are guesses: look at the images."
        notice(outputs, "named", types.Success, f"Named words of {counted(named, 'caption')}", text)
        yield show_output(ctx, outputs)


class SampleOperator(EcifOperator):
    """Acts on the chosen samples, whatever run they were scored in."""

    def __call__(self, sample_collection: SampleCollection, delegate: bool = False) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples
            delegate: not supported, since the operator takes no time

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate)


class MarkAsFine(SampleOperator):
    """Records that somebody found a pair right, so that it is no longer a suspect."""

    name = "mark_as_fine"
    label = "mark as fine"
    description = "Give pairs that are right the tag of trusted pairs; they are no longer suspects"
    icon = "fine.svg"
    risk = "medium"
    submit = "Mark"
    place = MODAL

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for samples."""
        samples = choose_samples(ctx, inputs, "Mark")
        text = f"{counted(number_of(samples), 'pair')} will get the tag “{tags_of(ctx.dataset).trusted}”"
        notice(inputs, "count", types.Notice, text, "Remove the tag to undo this.")

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Tag, and say how many."""
        marked = ecif.mark_as_fine(chosen_samples(ctx))
        self.announce_change(ctx, f"Marked {counted(marked, 'pair')} as fine")
        return {"marked": marked}


class UndoFixes(SampleOperator):
    """Restores what the latest fix of each sample replaced."""

    name = "undo_fixes"
    label = "undo fixes"
    description = "Restore the captions or labels that the latest fixes replaced"
    icon = "undo.svg"
    risk = "high"
    submit = "Undo"
    place = MODAL

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for samples, and say how many of them have a fix."""
        count = len(ecif.fixed(choose_samples(ctx, inputs, "Restore")))
        text = "A caption that was edited by hand after its fix stays as it is."
        none = "None of these samples has a fix."
        say_count(inputs, "count", count, f"{counted(count, 'sample')} with a fix", none, text)

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, object]:
        """Restore, and say what was not restored and why."""
        return _announce(self, ctx, "Undo", ecif.undo_fixes(chosen_samples(ctx)))


def _announce(
    operator: EcifOperator, ctx: foo.ExecutionContext, what: str, report: Any, more: str = ""
) -> dict[str, object]:
    """Let the App show what a :class:`~fiftyone_ecif.dataset.repair.fixes.FixReport` reports; returns its figures."""
    operator.announce_change(
        ctx, f"{what}: {report}. {more}".strip(), variant="success" if report.changed else "warning"
    )
    return {"changed": report.changed, "unchanged": report.unchanged}
