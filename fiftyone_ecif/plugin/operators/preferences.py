"""The operators of preference pairs: faces over ``build_preferences``, and over the export of its results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import Choice, Flag, Number, Text
from fiftyone_ecif.dataset.checks import text_fields
from fiftyone_ecif.dataset.fields import ORIGINS, PREFERENCE_METHOD
from fiftyone_ecif.dataset.preference.request import ASKED, CONTAINERS, FORMS, PreferenceRequest
from fiftyone_ecif.dataset.repair.export import free_folder
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import (
    choose_samples,
    chosen_samples,
    dropdown,
    given,
    invalidate,
    named,
    notice,
    one_slice,
    or_none,
    passes,
    refuse,
)
from fiftyone_ecif.plugin.operator import EcifOperator
from fiftyone_ecif.plugin.operators.request_form import choose_run_key

DEFAULT_FORM, DEFAULT_CONTAINER = "dpo", "jsonl"


class BuildPreferences(EcifOperator):
    """Makes pairs of right and wrong answers about images."""

    name = "build_preferences"
    label = "build preference pairs"
    description = "Make pairs of right and wrong answers, for training a model against the wrong ones"
    icon = "compute.svg"
    risk = "high"
    submit = "Build"
    streams = delegable = True

    def __call__(
        self,
        sample_collection: SampleCollection,
        chosen_field: str,
        prompt_field: str | None = None,
        prompt: str | None = None,
        fixed: bool | None = None,
        image_weakened: bool | None = None,
        error_injected: bool | None = None,
        model: str | None = None,
        suspects_run: str | None = None,
        min_confidence: float | None = None,
        balance: bool | None = None,
        run_key: str | None = None,
        overwrite: bool | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples
            chosen_field: field with the right answers
            prompt_field: field with what is asked; None for the same prompt about all
            prompt: what is asked, without a field; None: "Describe the image."
            fixed: whether texts that fixes replaced are wrong answers; None: they are
            image_weakened: whether a model answers about weakened images; None: it does not
            error_injected: whether errors are put into right answers; None: they are not
            model: a folder or the Hugging Face name of the model that answers
            suspects_run: the run whose model says what an image shows, and whose suggestions can be used
            min_confidence: suggestions of at least this confidence count as corrections; None for none
            balance: whether the lengths of right and wrong answers are balanced
            run_key: of the new run; None: "preference"
            overwrite: whether a run of this key is replaced
            delegate: whether to queue the work for a worker

        Returns:
            the result, or a task where an event loop is running
        """
        return self.execute_on(
            sample_collection,
            delegate,
            chosen_field=chosen_field,
            prompt_field=prompt_field,
            prompt=prompt,
            fixed=fixed,
            image_weakened=image_weakened,
            error_injected=error_injected,
            model=model,
            suspects_run=suspects_run,
            min_confidence=min_confidence,
            balance=balance,
            run_key=run_key,
            overwrite=overwrite,
        )

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for fields, for where wrong answers come from, and for what that needs."""
        fields = text_fields(ctx.dataset)
        if not fields:
            refuse(inputs, "no_texts", "The dataset has no field with answers or captions.")
            return
        choose_samples(ctx, inputs, "Build pairs from")
        _choose(inputs, "chosen_field", {name: name for name in fields})
        _choose(inputs, "prompt_field", or_none(fields))
        if named(ctx, "prompt_field") is None:
            _ask(inputs, "prompt", PreferenceRequest.prompt)
        for origin, words in ORIGINS.items():
            inputs.bool(origin, default=origin == "fixed", label=words, view=types.CheckboxView())
        if given(ctx, "image_weakened", Flag(), False):
            _ask(inputs, "model")
        if runs := ecif.list_runs(ctx.dataset)[::-1]:
            _choose(inputs, "suspects_run", or_none(runs))
        if named(ctx, "suspects_run") is not None:
            about = ASKED["min_confidence"]
            inputs.float("min_confidence", label=about.label, description=about.hint)
        inputs.bool("balance", default=False, label=ASKED["balance"].label, view=types.CheckboxView())
        proposed, arguments = PreferenceRequest.run_key, _arguments(ctx)
        if choose_run_key(ctx, inputs, ASKED["run_key"], proposed, PREFERENCE_METHOD):
            try:
                PreferenceRequest(**arguments)
            except ValueError as error:
                refuse(inputs, "request", str(error))

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Build in a thread, telling the App how far it is; then show the samples with pairs."""
        samples, arguments = one_slice(chosen_samples(ctx)), _arguments(ctx)
        results = yield from in_background(
            ctx,
            f"Building preference pairs “{arguments['run_key']}”",
            lambda progress: ecif.build_preferences(samples, progress=progress, **arguments),
        )
        if results is not None and not ctx.delegated:
            yield ctx.ops.reload_dataset()
            yield ctx.ops.set_view(results.samples())
            outputs = types.Object()
            origins = ", ".join(f"{count:,} {origin}" for origin, count in results.health["origins"].items())
            notice(outputs, "built", types.Success, f"Built {results.health['pairs']:,} pairs", origins)
            for number, warning in enumerate(results.warnings):
                notice(outputs, f"warning_{number}", types.Warning, warning)
            yield show_output(ctx, outputs)


class ExportPreferences(EcifOperator):
    """Writes preference pairs for a training program."""

    name = "export_preferences"
    label = "export preference pairs"
    description = "Write preference pairs as TRL's trainers or LLaVA's read them"
    icon = "export.svg"
    risk = "high"
    submit = "Export"
    delegable = True

    def __call__(
        self,
        sample_collection: SampleCollection,
        folder: str,
        run_key: str | None = None,
        form: str | None = None,
        container: str | None = None,
        embed_images: bool | None = None,
        min_grounding: float | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            folder: where to write; must not exist, or be empty
            run_key: the run of pairs; None: the newest
            form: "dpo", "kto" or "llava"; None: "dpo"
            container: "jsonl" or "parquet"; None: "jsonl"
            embed_images: whether the file holds the images; None: it names their paths
            min_grounding: the least grounding of a pair, in nats; None for any
            delegate: whether to queue the work for a worker

        Returns:
            the result, whose ``result["exported"]`` is the number of rows
        """
        asked = dict(form=form, container=container, embed_images=embed_images, min_grounding=min_grounding)
        return self.execute_on(sample_collection, delegate, folder=folder, run_key=run_key, **asked)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for the run, the form of its rows and the folder."""
        runs = ecif.list_preferences(ctx.dataset)[::-1]
        if not runs:
            refuse(inputs, "no_runs", "The dataset has no preference pairs yet.", "Build some first.")
            return
        inputs.enum("run_key", runs, default=runs[0], label="Run", view=dropdown(runs))
        for name, choices, default in (("form", FORMS, DEFAULT_FORM), ("container", CONTAINERS, DEFAULT_CONTAINER)):
            inputs.enum(name, list(choices), default=default, label=name.capitalize(), view=dropdown(choices))
        inputs.bool("embed_images", default=False, label="Put the images into the file", view=types.CheckboxView())
        words = "Pairs below it are as likely without the image; left empty, all are written"
        inputs.float("min_grounding", label="Least grounding, in nats", description=words)
        hint = "A path on the machine that the App's server runs on"
        folder = inputs.str("folder", required=True, label="Folder", description=hint)
        if path := given(ctx, "folder", Text()):
            passes(folder, free_folder, path)
        if (given(ctx, "form", Text()), given(ctx, "container", Text())) == ("llava", "parquet"):
            invalidate(folder, "LLaVA's conversations are a JSON file: choose the container 'jsonl'.")

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Export, and say how many."""
        folder, runs = given(ctx, "folder", Text()), ecif.list_preferences(ctx.dataset)
        run_key = given(ctx, "run_key", Text(), runs[-1] if runs else None)
        if folder is None or run_key is None:
            raise ValueError("Name the run of preference pairs, and the folder to export to.")
        exported = ecif.load_preferences(ctx.dataset, run_key).export(
            folder,
            given(ctx, "form", Choice(FORMS), DEFAULT_FORM),
            given(ctx, "container", Choice(CONTAINERS), DEFAULT_CONTAINER),
            given(ctx, "embed_images", Flag(), False),
            min_grounding=given(ctx, "min_grounding", Number(-1e9)),
        )
        ctx.ops.notify(f"Exported {exported:,} rows to {folder}", variant="success")
        return {"exported": exported}


def _choose(inputs: types.Object, name: str, choices: dict[str, str]) -> None:
    """Add the choice of a parameter, the first of which is proposed."""
    about, first = ASKED[name], next(iter(choices))
    inputs.enum(name, list(choices), default=first, label=about.label, description=about.hint, view=dropdown(choices))


def _ask(inputs: types.Object, name: str, default: str | None = None) -> types.Property:
    """Add the text of a parameter."""
    return inputs.str(name, default=default, label=ASKED[name].label, description=ASKED[name].hint)


def _arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The form's values as arguments of :func:`fiftyone_ecif.build_preferences`, but for the samples."""
    asked = {name: given(ctx, name, about.kind) for name, about in ASKED.items() if name not in ("device", "seed")}
    asked |= {name: named(ctx, name) for name in ("prompt_field", "suspects_run")}
    arguments = {name: value for name, value in asked.items() if value is not None}
    arguments.setdefault("chosen_field", next(iter(text_fields(ctx.dataset)), None))
    arguments.setdefault("run_key", PreferenceRequest.run_key)
    arguments["negatives"] = [each for each in ORIGINS if given(ctx, each, Flag(), each == "fixed")]
    return arguments
