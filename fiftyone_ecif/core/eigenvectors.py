"""Eigenvalues and eigenvectors of symmetric matrices, such as curvature has."""

from __future__ import annotations

import torch
from torch import Tensor

NOT_FINITE = "The curvature is not finite: look for NaN or huge numbers in features, weights or logit scale."
"""What is said where a curvature, or its product with a vector, cannot be used."""


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in rising order, and eigenvectors as columns.

    LAPACK's divide and conquer does not settle on some matrices with many almost equal eigenvalues, as second moments
    of fewer rows than columns have. In float64 it does.

    Args:
        matrix: (P, P), symmetric

    Returns:
        (P,) and (P, P), in the dtype of the matrix

    Raises:
        ValueError: if the matrix is not finite
    """
    if not matrix.isfinite().all():
        raise ValueError(NOT_FINITE)
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        values, vectors = (part.to(matrix.dtype) for part in torch.linalg.eigh(matrix.double()))
    return values, vectors
