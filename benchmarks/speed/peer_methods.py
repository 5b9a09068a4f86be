"""The task that other attribution libraries are given, and their scores of it.

None of them can express a contrastive loss: they take a loss to be a sum over samples, each with a gradient of its own,
and a pair is in the loss of every other of its batch. They are given the nearest that they can express, and the
cheapest for them: a pair's positive role, ½ [−log P_nn − log Q_nn], among B − 1 others whose embeddings are constants
(as in TRAK's own tutorial on CLIP). So ∇pos_n through the others, and the negative role, are missing from their scores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from fiftyone_ecif.core import Head, TensorPairs

TARGETS = 32
"""Target pairs: the peers' seconds grow with them, those of this package do not."""
PROJECTION = 512
"""TRAK's projections."""
CHUNK = 64
"""Pairs whose gradients a peer holds together."""


class PositiveRole(nn.Module):
    """Logits of pairs among constant others: forward gives (b, 2, B), the pair's own first, rows are directions."""

    def __init__(self, head: Head, others: TensorPairs) -> None:
        super().__init__()
        self.image, self.text = (
            nn.Linear(weight.shape[1], weight.shape[0], bias=False) for weight in (head.image_weight, head.text_weight)
        )
        self.image.weight.data, self.text.weight.data = head.image_weight.clone(), head.text_weight.clone()
        batch = head.linearize(others.image, others.text)
        self.register_buffer("other_images", batch.image)
        self.register_buffer("other_texts", batch.text)
        self.register_buffer("scale", head.logit_scale.exp())

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Of image features (b, F) and text features (b, F)."""
        u, v = normalize(self.image(image), dim=-1), normalize(self.text(text), dim=-1)
        own = (u * v).sum(-1, keepdim=True)
        rows = torch.cat([own, u @ self.other_texts.T], -1)
        columns = torch.cat([own, v @ self.other_images.T], -1)
        return self.scale * torch.stack([rows, columns], -2)


class PositiveLoss(nn.Module):
    """½ Σ_n [−log P_nn − log Q_nn] of such logits; the targets say nothing."""

    reduction = "sum"

    def forward(self, logits: Tensor, targets: Tensor | None = None) -> Tensor:
        """A scalar."""
        flat = logits.reshape(-1, logits.shape[-1])
        return 0.5 * cross_entropy(flat, torch.zeros(len(flat), dtype=torch.int64), reduction="sum")


Peer = Callable[[PositiveRole, TensorDataset, TensorDataset, float, Path], Tensor]
"""(N,) scores of the first data set's pairs for the second's mean loss, up to sign and scale."""


def captum_tracin(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """TracIn at one checkpoint (Pruthi et al. 2020): products of gradients, no curvature."""
    from captum.influence import TracInCP

    checkpoint = folder / "checkpoint.pt"
    torch.save(model.state_dict(), checkpoint)
    tracin = TracInCP(
        model,
        train,
        [str(checkpoint)],
        checkpoints_load_func=lambda module, path: module.load_state_dict(torch.load(path)) and 1.0,
        layers=["image", "text"],
        loss_fn=PositiveLoss(),
        batch_size=CHUNK,
        sample_wise_grads_per_batch=True,
    )
    return tracin.influence(target.tensors).mean(0)


def kronfluence_ekfac(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """Influence by EK-FAC (Grosse et al. 2023), empirical Fisher."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task

    class Pairs(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return PositiveLoss()(model(*batch[:2]))

        def compute_measurement(self, batch, model):
            return PositiveLoss()(model(*batch[:2]))

    task = Pairs()
    analyzer = Analyzer("peer", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=str(folder))
    arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    analyzer.fit_all_factors("factors", train, per_device_batch_size=CHUNK, factor_args=arguments)
    analyzer.compute_pairwise_scores(
        "scores", "factors", target, train, per_device_query_batch_size=TARGETS, per_device_train_batch_size=CHUNK
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"].mean(0)


def dattri_conjugate_gradients(
    model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path
) -> Tensor:
    """Influence by ten conjugate-gradient steps on the Hessian plus the anchor."""
    from dattri.algorithm.influence_function import IFAttributorCG
    from dattri.task import AttributionTask

    def loss(parameters: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        width = data[0].shape[-1]
        logits = torch.func.functional_call(model, parameters, tuple(part.reshape(-1, width) for part in data[:2]))
        return PositiveLoss()(logits) / logits.shape[0]

    task = AttributionTask(loss_func=loss, model=model, checkpoints=[model.state_dict()])
    attributor = IFAttributorCG(task=task, device="cpu", regularization=anchor)
    attributor.cache(DataLoader(train, batch_size=len(train)))
    with torch.no_grad():
        return attributor.attribute(DataLoader(train, batch_size=CHUNK), DataLoader(target, batch_size=TARGETS)).mean(1)


def trak(model: PositiveRole, train: TensorDataset, target: TensorDataset, anchor: float, folder: Path) -> Tensor:
    """TRAK (Park et al. 2023) with one model."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    class Output(AbstractModelOutput):
        def __init__(self):
            pass

        @staticmethod
        def get_output(model, weights, buffers, image, text, label):
            logits = torch.func.functional_call(model, (weights, buffers), (image[None], text[None]))
            own = (-PositiveLoss()(logits)).clamp_max(-1e-6)
            return own - torch.log(-torch.expm1(own))  # the log odds of being matched

        @staticmethod
        def get_out_to_loss_grad(model, weights, buffers, batch):
            logits = torch.func.functional_call(model, (weights, buffers), tuple(batch[:2]))
            probability = logits.log_softmax(-1)[..., 0].mean(-1).exp()
            return (1.0 - probability).clone().detach().unsqueeze(-1)

    parameters = sum(value.numel() for value in model.parameters())
    projector = BasicProjector(
        parameters, PROJECTION, seed=0, proj_type=ProjectionType.normal, device=torch.device("cpu"), block_size=128
    )
    traker = TRAKer(
        model, Output(), train_set_size=len(train), save_dir=str(folder / "trak"), device="cpu", projector=projector,
        proj_dim=PROJECTION, use_half_precision=False, logging_level=logging.ERROR,
    )  # fmt: skip
    traker.load_checkpoint(model.state_dict(), model_id=0)
    for batch in DataLoader(train, batch_size=CHUNK):
        traker.featurize(batch=batch, num_samples=len(batch[0]))
    traker.finalize_features()
    traker.start_scoring_checkpoint("target", model.state_dict(), model_id=0, num_targets=TARGETS)
    for batch in DataLoader(target, batch_size=TARGETS):
        traker.score(batch=batch, num_samples=len(batch[0]))
    return torch.as_tensor(traker.finalize_scores(exp_name="target")).float().mean(1)


PeerName = Literal["captum_tracin", "kronfluence_ekfac", "dattri_cg", "trak"]
PEERS: dict[PeerName, Peer] = {
    "captum_tracin": captum_tracin,
    "kronfluence_ekfac": kronfluence_ekfac,
    "dattri_cg": dattri_conjugate_gradients,
    "trak": trak,
}
ALL_PEERS: tuple[PeerName, ...] = get_args(PeerName)

WITHOUT_CURVATURE = {"captum_tracin"}
"""Peers that invert no curvature. They are also compared with one round of our scores along the target's gradient."""
