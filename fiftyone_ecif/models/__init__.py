"""open_clip models, taken apart into towers, head, tokenizer and preprocessing."""

from pathlib import Path

import open_clip

from fiftyone_ecif.models.contrastive import ContrastiveModel, wrap_model
from fiftyone_ecif.models.loading import load_model
from fiftyone_ecif.models.lora import lora_scope
from fiftyone_ecif.models.parameter_scope import ParameterScope, parameter_scope
from fiftyone_ecif.models.views import ViewAveraged

open_clip.add_model_config(Path(__file__).parent / "configs")

__all__ = [
    "ContrastiveModel",
    "ParameterScope",
    "ViewAveraged",
    "load_model",
    "lora_scope",
    "parameter_scope",
    "wrap_model",
]
