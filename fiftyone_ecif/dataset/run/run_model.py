"""The model of a run: loaded again as its record says, or given by who has it."""

from __future__ import annotations

from typing import Any

from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.models import ContrastiveModel, load_model
from fiftyone_ecif.notes import collecting_notes


def check_model(model: ContrastiveModel, config: EcifConfig, run_key: str) -> None:
    """Refuse a model that is not the run's.

    Args:
        model: by ``load_model`` or ``wrap_model``
        config: of the run
        run_key: the run's key

    Raises:
        ValueError: if it is another model, or has other weights or another preprocessing
    """
    if not isinstance(model, ContrastiveModel):
        raise ValueError(f"model must come from load_model or wrap_model, not {type(model).__name__}.")
    if model.fingerprint != config.model_fingerprint:
        raise ValueError(
            f"This is not the model of run {run_key!r} ({config.model}): its name, its weights or its preprocessing "
            "differ. For another model, compute a run of its own."
        )


def load_again(config: EcifConfig, run_key: str, device: str) -> ContrastiveModel:
    """The model as it was given to the run, out of what is on this machine: a record starts no download.

    Args:
        config: of the run
        run_key: the run's key
        device: where to load it

    Raises:
        ValueError: if the run has none, or it was made in memory, or its weights are not here, or not the same
    """
    if config.model is None:
        raise ValueError("This run used stored embeddings: there is no model.")
    again: dict[str, Any] | None = config.load_arguments
    if again is None:  # a run from before it was kept
        again = {"name": config.model, "pretrained": config.pretrained}
    if not again:
        raise ValueError(
            f"The model of run {run_key!r} ({config.model}) was made in memory: make it again, and pass it as model= "
            "or to results.use_model(model)."
        )
    with collecting_notes():  # the run has said them
        try:
            model = load_model(**again, device=device, local_files_only=True)
        except ConnectionError as error:
            asked = ", ".join(repr(again[name]) for name in ("name", "pretrained") if again.get(name) is not None)
            raise ValueError(
                f"The model of run {run_key!r} is not on this machine, and a run's record downloads nothing. "
                f"If you trust it, load_model({asked}) downloads it; then ask again. ({error})"
            ) from error
    if model.fingerprint != config.model_fingerprint:
        raise ValueError(
            f"The weights behind {config.model!r} ({config.pretrained}) are not those of the run: put the checkpoint "
            "back, or compute the run again."
        )
    return model
