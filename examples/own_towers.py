"""A model of your own from two pretrained towers that were not made for each other, in minutes and without a GPU.

Both towers stay as they are (LiT, Zhai et al. 2022): they run once over your pairs, and two linear projections are
trained on their features. The result is an ordinary open_clip model folder::

    python -m examples.own_towers --pairs pairs.csv --folder my-towers \
        --image-tower vit_small_patch14_dinov2.lvd142m --encoder sentence-transformers/all-MiniLM-L6-v2

Then ``compute_influence(…, model="local-dir:my-towers")``. Some thousand pairs are enough; they should be pairs whose
captions you trust, and others than those that you want to score.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from benchmarks.data.pairs import PairTable
from benchmarks.data.pairs_file import pairs_from_csv
from benchmarks.models.projections import ProjectionRecipe, fit_projections
from benchmarks.models.towers import description
from benchmarks.report.command import ask
from fiftyone_ecif import ContrastiveModel, wrap_model
from fiftyone_ecif.features import PairRow, cache_folder, embed_pairs


@dataclass(frozen=True)
class OwnTowers:
    """Train linear projections over two pretrained towers, and write them as an open_clip model folder.

    Args:
        pairs: a CSV file with the columns filepath, caption and misaligned (which may be empty)
        folder: where the model is written
        image_tower: timm's name of the image tower, with the tag of its weights
        encoder: name on the Hugging Face hub, or folder, of the text encoder
        pooler: what a text's tokens become: "mean_pooler" for sentence encoders, "cls_pooler" for BERT and its like
        image_size: side of the images in pixels; 0 for that of the tower's weights
        context_length: tokens that a text is cut or padded to
        dimension: of the shared space
        epochs: passes over the pairs
    """

    pairs: Path
    folder: Path
    image_tower: str = "vit_small_patch14_dinov2.lvd142m"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    pooler: str = "mean_pooler"
    image_size: int = 0
    context_length: int = 64
    dimension: int = 384
    epochs: int = 50


def main() -> None:
    """Make the model, train its projections, write it."""
    asked = ask(OwnTowers, "examples.own_towers")
    table, _ = pairs_from_csv(asked.pairs)
    model = pretrained_towers(asked)
    print(f"The towers run over {len(table)} pairs …", file=sys.stderr)
    train_projections(model, table, asked)
    print(f'compute_influence(…, model="local-dir:{asked.folder}")')


def pretrained_towers(asked: OwnTowers, pretrained: bool = True) -> ContrastiveModel:
    """The two towers with their pretrained weights, and projections that say nothing yet.

    Args:
        asked: which towers
        pretrained: whether their weights are fetched (by timm and transformers); otherwise they are random
    """
    import timm
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    trunk = timm.create_model(asked.image_tower, pretrained=pretrained)
    settings = timm.data.resolve_model_data_config(trunk)
    # The folder holds what open_clip asks of the text encoder, so that nothing else is needed to load the model.
    asked.folder.mkdir(parents=True)
    AutoTokenizer.from_pretrained(asked.encoder).save_pretrained(asked.folder)
    AutoConfig.from_pretrained(asked.encoder).save_pretrained(asked.folder)
    content = description(
        asked.image_tower.partition(".")[0],
        asked.folder.absolute(),
        asked.image_size or settings["input_size"][-1],
        settings,
        asked.dimension,
        asked.context_length,
        asked.pooler,
    )
    (asked.folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n")

    name = f"local-dir:{asked.folder}"
    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained_text=False, load_weights=False)
    copy_weights(trunk, model.visual.trunk)
    if pretrained:
        copy_weights(AutoModel.from_pretrained(asked.encoder), model.text.transformer)
    return wrap_model(model, preprocess, open_clip.get_tokenizer(name), name=name, config=content["model_cfg"])


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a tower another one's weights; what only the source has, such as a classifier, is left out.

    Raises:
        ValueError: if the target has weights that the source does not have
    """
    weights = source.state_dict()
    if missing := target.state_dict().keys() - weights.keys():
        raise ValueError(f"The pretrained tower has no {', '.join(sorted(missing)[:3])}.")
    target.load_state_dict({name: weights[name] for name in target.state_dict()})


def train_projections(model: ContrastiveModel, table: PairTable, asked: OwnTowers) -> None:
    """Run the towers once, train the projections on their features, and write the model into its folder."""
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
    stored = embed_pairs(model, rows, cache_folder("features"))
    image, text = stored.gather(torch.arange(len(stored)))
    head = fit_projections(image, text, asked.dimension, ProjectionRecipe(epochs=asked.epochs))
    model.save_checkpoint(asked.folder, head, overwrite=True)


if __name__ == "__main__":
    main()
