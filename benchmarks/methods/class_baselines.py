"""Published scores of how suspicious a class label is; higher is more suspicious."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fiftyone_ecif.detect.nearest_rows import nearest


def clip_logits(image: np.ndarray, class_text: np.ndarray, labels: np.ndarray, temperature: float = 0.01) -> np.ndarray:
    """1 − P(label), P the softmax over the class prompts: the "CLIP logits" of LEMoN's comparison (arXiv 2407.18941).

    Args:
        image: (N, D) unit vectors
        class_text: (K, D) unit vectors, one per class
        labels: (N,) int64, the given classes
        temperature: T, 1/τ of pretrained CLIP

    Returns:
        (N,), 0 to 1
    """
    probability = torch.as_tensor(image @ class_text.T).double().div(temperature).softmax(1).numpy()
    return 1.0 - probability[np.arange(len(labels)), labels]


def deep_knn(image: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """1 − share of the nearest images with the same label: deep k-NN (Bahri et al., ICML 2020).

    Args:
        image: (N, D) unit vectors
        labels: (N,) int64, the given classes; for free texts those of :func:`text_clusters`
        neighbours: k

    Returns:
        (N,), multiples of 1/k
    """
    near = nearest(torch.as_tensor(image), min(neighbours, len(image) - 1)).numpy()
    return 1.0 - (labels[near] == labels[:, None]).mean(1)


def text_clusters(text: np.ndarray, clusters: int = 100, seed: int = 0) -> np.ndarray:
    """Labels for pairs with free texts: k-means clusters of the texts (LEMoN's comparison, arXiv 2407.18941).

    Args:
        text: (N, D) unit vectors
        clusters: at most this many, and no more than there are distinct texts
        seed: of the clusters' starts

    Returns:
        int64 (N,)
    """
    distinct = len(np.unique(text.round(5), axis=0))
    return KMeans(min(clusters, distinct), n_init=3, random_state=seed).fit_predict(text).astype(np.int64)


def confident_learning(image: np.ndarray, labels: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """1 − label quality by confident learning (Northcutt et al., JAIR 2021), cleanlab's own.

    The class probabilities are those of a logistic regression on the image embeddings, out of fold.

    Args:
        image: (N, D) unit vectors
        labels: (N,) int64, the given classes
        folds: of the cross-validation
        seed: of the folds

    Returns:
        (N,), 0 to 1

    Raises:
        ImportError: if cleanlab is not installed
    """
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise ImportError("Confident learning needs cleanlab: pip install cleanlab") from error
    _, present = np.unique(labels, return_inverse=True)
    classifier = LogisticRegression(max_iter=1_000)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probability = cross_val_predict(classifier, image, present, cv=splits, method="predict_proba")
    return 1.0 - get_label_quality_scores(present, probability)
