"""Training of small open_clip models on image-caption pairs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import fiftyone_ecif.models  # noqa: F401  registers the package's own configurations with open_clip
from benchmarks.data.pairs import PairTable
from fiftyone_ecif.features import cache_folder, read_image

BATCH_SIZE = 256  # an odd last batch is dropped
LEARNING_RATE = 2e-3  # the peak of the one-cycle schedule
WEIGHT_DECAY = 0.1  # of matrices only
LARGEST_LOGIT_SCALE = 4.6052  # log 100, as in CLIP


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Args:
        epochs: passes over the pairs; an odd last batch is dropped
        learning_rate: the peak of the one-cycle schedule
        shift: pixels by which a batch of images is moved at most; 0 for none
        flip: whether half of the images are mirrored
        batch_size: pairs a step
    """

    epochs: int = 6
    learning_rate: float = LEARNING_RATE
    shift: int = 2
    flip: bool = True
    batch_size: int = BATCH_SIZE


def trained_checkpoint(
    model_name: str,
    table: PairTable,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    start: Path | None = None,
    progress: bool = True,
) -> Path:
    """The checkpoint of a model trained on these pairs, trained now unless the cache has it.

    Args:
        model_name: name of an open_clip model configuration
        table: the training pairs
        recipe: how it is trained
        seed: of the initial weights, order and augmentation
        start: checkpoint of this function to go on from; None for random weights
        progress: whether to show progress bars

    Returns:
        path of a checkpoint for ``fiftyone_ecif.models.load_model(model_name, path)``
    """
    config = open_clip.get_model_config(model_name)
    # A checkpoint's name is a fingerprint of how it came about, so that of `start` stands for its weights.
    history = [config, asdict(recipe), seed, WEIGHT_DECAY, start and start.name]
    history += [list(zip(table.filepaths, table.captions))]
    fingerprint = hashlib.sha256(json.dumps(history).encode()).hexdigest()[:12]
    path = cache_folder("models") / f"{model_name}-{fingerprint}.pt"
    if not path.exists():
        save_checkpoint(train(model_name, table, recipe, seed, start, progress), path)
    return path


def save_checkpoint(model: nn.Module, path: Path) -> None:
    """Write a model's state dict as open_clip reads it, complete or not at all."""
    part = path.with_name(path.name + ".part")
    torch.save(model.state_dict(), part)
    os.replace(part, path)


def train(
    model_name: str,
    table: PairTable,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    start: Path | None = None,
    progress: bool = True,
) -> nn.Module:
    """Train an open_clip model on the CPU, with open_clip's own loss, AdamW and a one-cycle schedule.

    Images go through the model's own validation preprocessing before they are augmented.

    Args:
        model_name: name of an open_clip model configuration
        table: the training pairs
        recipe: how it is trained
        seed: of the initial weights, order and augmentation
        start: checkpoint to go on from; None for random weights
        progress: whether to show progress bars

    Returns:
        the trained model, in evaluation mode
    """
    torch.manual_seed(seed)
    model, _, preprocess = open_clip.create_model_and_transforms(model_name)
    if start is not None:
        open_clip.load_checkpoint(model, str(start))
    model.visual.to(memory_format=torch.channels_last)  # by a third faster on the CPU
    reading = tqdm(table.filepaths, desc="model: reading images", unit="image", disable=not progress)
    images = torch.stack([preprocess(read_image(path)) for path in reading])
    images = images.contiguous(memory_format=torch.channels_last)
    encode_text = _text_encoding(model, model_name, table.captions)

    batch_size = min(recipe.batch_size, len(table))
    steps = len(table) // batch_size
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps)
    clip_loss = open_clip.ClipLoss()
    model.train()
    with tqdm(total=recipe.epochs * steps, desc="model: training", unit="batch", disable=not progress) as bar:
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(table))[: steps * batch_size].split(batch_size):
                embeddings = model.encode_image(_augment(images[batch], recipe)), encode_text(batch)
                loss = clip_loss(*(functional.normalize(each, dim=1) for each in embeddings), model.logit_scale.exp())
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                model.logit_scale.data.clamp_(0, LARGEST_LOGIT_SCALE)
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    return model.eval()


def _text_encoding(model: Any, model_name: str, captions: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """The function from rows (B,) of the captions to their embeddings (B, D), not normalised."""
    texts, positions = np.unique(captions, return_inverse=True)
    tokens, caption_of = open_clip.get_tokenizer(model_name)(texts.tolist()), torch.from_numpy(positions)

    def encode(rows: Tensor) -> Tensor:
        used, position = caption_of[rows].unique(return_inverse=True)  # a caption that many share is encoded once
        return model.encode_text(tokens[used])[position]

    return encode


def _augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Flip each image with even odds, and move the batch by a few pixels; (B, 3, H, W) in and out."""
    height, width = images.shape[-2:]
    if recipe.flip:
        flipped = torch.rand(len(images)) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    if recipe.shift:
        padded = functional.pad(images, (recipe.shift,) * 4, mode="replicate")
        top, left = torch.randint(0, 2 * recipe.shift + 1, (2,)).tolist()
        images = padded[..., top : top + height, left : left + width]
    return images
