"""Training of small open_clip models on image-caption pairs."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

import fiftyone_ecif.models  # noqa: F401  registers the package's own configurations with open_clip
from benchmarks.data.pairs import PairTable
from fiftyone_ecif.features import cache_folder

BATCH_SIZE = 256  # an odd last batch is dropped
LEARNING_RATE = 2e-3  # the peak of the one-cycle schedule
WEIGHT_DECAY = 0.1  # of matrices only
LARGEST_LOGIT_SCALE = 4.6052  # log 100, as in CLIP
SHIFT = 2  # pixels by which an image is moved at most


def trained_checkpoint(
    model_name: str, table: PairTable, epochs: int = 6, seed: int = 0, progress: bool = True
) -> Path:
    """The checkpoint of a model trained on these pairs, trained now unless the cache has it.

    Args:
        model_name: name of an open_clip model configuration
        table: the training pairs
        epochs: passes over the pairs
        seed: of the initial weights, order and augmentation
        progress: whether to show progress bars

    Returns:
        path of a checkpoint for ``open_clip.create_model(model_name, pretrained=str(path))``
    """
    recipe = [open_clip.get_model_config(model_name), epochs, seed, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, SHIFT]
    recipe += [list(zip(table.filepaths, table.captions))]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    path = cache_folder("models") / f"{model_name}-{fingerprint}.pt"
    if not path.exists():
        save_checkpoint(train(model_name, table, epochs, seed, progress), path)
    return path


def save_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """Write a model's state dict as open_clip reads it, complete or not at all."""
    part = path.with_name(path.name + ".part")
    torch.save(model.state_dict(), part)
    os.replace(part, path)


def train(model_name: str, table: PairTable, epochs: int = 6, seed: int = 0, progress: bool = True) -> torch.nn.Module:
    """Train an open_clip model from scratch on the CPU, with open_clip's own loss, AdamW and a one-cycle schedule.

    Images go through the model's own validation preprocessing, then are flipped and shifted by a few pixels.

    Args:
        model_name: name of an open_clip model configuration
        table: the training pairs
        epochs: passes over the pairs; an odd last batch is dropped
        seed: of the initial weights, order and augmentation
        progress: whether to show progress bars

    Returns:
        the trained model, in evaluation mode
    """
    torch.manual_seed(seed)
    model, _, preprocess = open_clip.create_model_and_transforms(model_name, output_dict=True)
    reading = tqdm(table.filepaths, desc="model: reading images", unit="image", disable=not progress)
    images = torch.stack([preprocess(Image.open(path)) for path in reading])
    texts = open_clip.get_tokenizer(model_name)(table.captions)

    batch_size = min(BATCH_SIZE, len(table))
    steps = len(table) // batch_size
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps)
    clip_loss = open_clip.ClipLoss()
    model.train()
    with tqdm(total=epochs * steps, desc="model: training", unit="batch", disable=not progress) as bar:
        for _ in range(epochs):
            for batch in torch.randperm(len(table))[: steps * batch_size].split(batch_size):
                loss = clip_loss(**model(_augment(images[batch]), texts[batch]))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                model.logit_scale.data.clamp_(0, LARGEST_LOGIT_SCALE)
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    return model.eval()


def _augment(images: Tensor) -> Tensor:
    """Flip each image with even odds, and move the batch by a few pixels; (B, 3, H, W) in and out."""
    height, width = images.shape[-2:]
    flipped = torch.rand(len(images)) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    padded = functional.pad(images, (SHIFT,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
    return padded[..., top : top + height, left : left + width]
