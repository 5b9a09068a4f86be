"""The operator that computes influence: a face over :func:`fiftyone_ecif.compute_influence`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.checks import is_classification_field, text_fields
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import notice, show_fields
from fiftyone_ecif.plugin.operator import GRID, EcifOperator
from fiftyone_ecif.plugin.operators.compute_form import compute_form, proposed_run_key, trusted_pairs, without
from fiftyone_ecif.plugin.panel.choices import open_panel


class ComputeInfluence(EcifOperator):
    """Scores the pairs, then shows them, the most suspicious first."""

    name = "compute_influence"
    label = "compute influence"
    description = "Find the pairs that harm a CLIP-style model, and the captions that do not belong to their images"
    icon = "compute.svg"
    submit = "Compute"
    place = GRID
    streams = delegable = True

    def __call__(
        self,
        sample_collection: SampleCollection,
        text_field: str,
        target: str | None = None,
        run_key: str = "ecif",
        model: str | None = None,
        pretrained: str | None = None,
        templates: str | None = None,
        image_embeddings: str | None = None,
        text_embeddings: str | None = None,
        removal: str | None = None,
        rounds: int | None = None,
        batch_size: int | None = None,
        damping: float | None = None,
        seed: int | None = None,
        device: str | None = None,
        engine: str | None = None,
        evidence: bool | None = None,
        overwrite: bool | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script, with the form's parameters.

        Args:
            sample_collection: the training pairs
            text_field: their captions, or a Classification field
            target: trusted pairs, which are not scored themselves, as "view:<saved view>" or "tag:<sample tag>"; None:
                the pairs are cross-fitted
            run_key: the run's name, and the prefix of its fields
            model: the model's name in open_clip
            pretrained: one of the model's tags, or the path of a checkpoint
            templates: for a Classification field, one template per line, e.g. "a photo of a {}"
            image_embeddings: field of stored image embeddings, in place of a model
            text_embeddings: field of stored caption embeddings, in place of a model
            removal: "exact" or "first_order"
            rounds: how many times the pairs are partitioned into random batches
            batch_size: pairs per batch
            damping: damping of the curvature
            seed: of all random choices
            device: "cpu", "cuda", ...; None: the best there is
            engine: "local" for this machine, "ray" for a Ray cluster
            evidence: whether to write a field for each kind of evidence of misalignment, too
            overwrite: whether to replace a run of this name
            delegate: whether to queue the run for a worker

        Returns:
            the result, or a task where an event loop is running
        """
        return self.execute_on(
            sample_collection,
            delegate,
            advanced=True,
            features="embeddings" if image_embeddings or text_embeddings else "model",
            text_field=text_field,
            target=target,
            run_key=run_key,
            model=model,
            pretrained=pretrained,
            templates=templates,
            image_embeddings=image_embeddings,
            text_embeddings=text_embeddings,
            removal=removal,
            rounds=rounds,
            batch_size=batch_size,
            damping=damping,
            seed=seed,
            device=device,
            engine=engine,
            evidence=evidence,
            overwrite=overwrite,
        )

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for everything that can be chosen, guessed from the data and checked while the user types."""
        compute_form(ctx, inputs)

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Compute in a thread, telling the App how far it is; then show the result."""
        samples, target, arguments = ctx.target_view(), trusted_pairs(ctx), sdk_arguments(ctx)
        if target is not None:
            samples = without(samples, target)
        results = yield from in_background(
            ctx,
            f"Computing influence “{arguments['run_key']}”",
            lambda progress: ecif.compute_influence(samples, target=target, progress=progress, **arguments),
        )
        if results is not None and not ctx.delegated:
            yield from show_results(ctx, results)


def sdk_arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The form's values as arguments of :func:`fiftyone_ecif.compute_influence`, but for samples and target."""
    given = {name: value for name, value in ctx.params.items() if value not in (None, "")}
    given.setdefault("text_field", next(iter(text_fields(ctx.dataset)), None))
    given.setdefault("run_key", proposed_run_key(ctx.dataset))
    names = ["text_field", "run_key", "removal", "rounds", "batch_size", "damping", "seed", "engine"]
    names += ["evidence", "overwrite"]
    if given.get("features") == "embeddings":
        names += ["image_embeddings", "text_embeddings"]
    else:
        names += ["model", "pretrained"]
    arguments = {name: given[name] for name in names if name in given}
    if "templates" in given and is_classification_field(ctx.dataset, given["text_field"]):
        arguments["templates"] = [line.strip() for line in given["templates"].splitlines() if line.strip()]
    if given.get("device", "auto") != "auto":
        arguments["device"] = given["device"]
    if not ctx.delegated and given.get("engine") != "ray":
        arguments["num_workers"] = 0  # the App's server must not fork
    return arguments


def show_results(ctx: foo.ExecutionContext, results: Any) -> Iterator[Any]:
    """Reload the grid, sort it by suspicion, show scores on the thumbnails, and say what was done."""
    view = results.misaligned()
    yield ctx.ops.reload_dataset()
    yield ctx.ops.set_view(view)
    yield show_fields(ctx, results.run_key)
    yield open_panel(ctx, "suspects", results.run_key)
    scored, skipped = len(view), len(results.skipped)
    outputs = types.Object()
    notice(outputs, "scored", types.Success, f"Scored {scored:,} pairs", "The most suspicious come first.")
    for number, warning in enumerate(results.warnings):
        notice(outputs, f"warning_{number}", types.Warning, warning)
    yield show_output(ctx, outputs)
    message = f"ECIF scored {scored:,} pairs and skipped {skipped:,}; warnings: {len(results.warnings)}"
    yield ctx.ops.notify(message, variant="warning" if results.warnings else "success")
