"""open_clip models as (towers, head, tokenizer, preprocess)."""

from pathlib import Path

import open_clip

from fiftyone_ecif.models.contrastive import ContrastiveModel, wrap_model
from fiftyone_ecif.models.loading import load_model

open_clip.add_model_config(Path(__file__).parent / "configs")

__all__ = ["ContrastiveModel", "load_model", "wrap_model"]
