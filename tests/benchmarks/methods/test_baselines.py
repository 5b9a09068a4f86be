"""Each baseline against its definition, in loops."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from benchmarks.methods.baselines import clip_score, lemon, structure_consistency
from benchmarks.methods.class_baselines import clip_logits, confident_learning, deep_knn, text_clusters


@pytest.fixture
def labelled():
    """120 images around 4 class centres, a sixth of them labelled wrong, with a text per class and wording."""
    rng = np.random.default_rng(0)
    centres, words = rng.standard_normal((2, 4, 8))
    true = np.arange(120) % 4
    wrong = np.arange(120) % 6 == 0
    labels = np.where(wrong, (true + 1) % 4, true)
    image = unit(centres[true] + 0.4 * rng.standard_normal((120, 8)))
    text = unit(words[labels] + 0.1 * rng.standard_normal((120, 8)))
    return image.astype(np.float32), text.astype(np.float32), unit(centres).astype(np.float32), labels, wrong


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def nearest_others(rows, n, count):
    """The most similar other rows, one by one."""
    order = sorted((-float(rows[n] @ rows[j]), j) for j in range(len(rows)) if j != n)
    return [j for _, j in order[:count]]


def test_lemon_is_its_formula_with_the_fixed_setting(labelled):
    image, text, *_ = labelled

    def distance(a, b):
        return 1.0 - float(a @ b)

    expected = []
    for n in range(len(image)):
        terms = []
        for same, other in ((image, text), (text, image)):
            values = [
                distance(other[n], other[j])
                * np.exp(-0.1 * distance(same[n], same[j]))
                * np.exp(-5.0 * distance(image[j], text[j]))
                for j in nearest_others(same, n, 30)
            ]
            terms.append(np.mean(values))
        expected.append(distance(image[n], text[n]) + 5.0 * terms[0] + 5.0 * terms[1])
    np.testing.assert_allclose(lemon(image, text), expected, rtol=1e-4)


def test_structure_consistency_is_its_formula_in_one_batch(labelled):
    image, text, *_ = labelled
    count, scale = len(image), 3.0

    def place(rows, n):
        return np.array([1 / (1 + np.exp(-float(rows[n] @ rows[j]))) for j in range(count)])

    logits = np.array([[scale * float(image[n] @ text[j]) for j in range(count)] for n in range(count)])
    across, within = [], []
    for n in range(count):
        by_image = np.exp(logits[n, n]) / sum(np.exp(logits[n, j]) for j in range(count))
        by_text = np.exp(logits[n, n]) / sum(np.exp(logits[j, n]) for j in range(count))
        across.append((by_image + by_text) / 2)
        by_image, by_text = place(image, n), place(text, n)
        within.append(by_image @ by_text / np.sqrt((by_image @ by_image) * (by_text @ by_text)))
    scaled = (np.array(within) - min(within)) / (max(within) - min(within))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled[:, None])
    mean, variance = mixture.means_.ravel(), mixture.covariances_.ravel()
    expected = []
    for n in range(count):
        density = mixture.weights_ * np.exp(-((scaled[n] - mean) ** 2) / (2 * variance)) / np.sqrt(variance)
        expected.append(-min(across[n], density[mean.argmax()] / density.sum()))
    found = structure_consistency(image, text, scale, rounds=1, batch_size=count)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_clip_logits_is_one_minus_the_softmax_of_the_label(labelled):
    image, _, centres, labels, _ = labelled
    found = clip_logits(image, centres, labels, temperature=0.1)
    for n in range(len(image)):
        weights = [np.exp(float(image[n] @ centre) / 0.1) for centre in centres]
        assert found[n] == pytest.approx(1 - weights[labels[n]] / sum(weights), abs=1e-4)


def test_clip_logits_is_as_sharp_as_pretrained_clip(labelled):
    image, _, centres, labels, _ = labelled
    assert (clip_logits(image, centres, labels) == clip_logits(image, centres, labels, temperature=0.01)).all()


def test_deep_knn_counts_the_ten_nearest_images(labelled):
    image, _, _, labels, _ = labelled
    expected = [1 - np.mean([labels[j] == labels[n] for j in nearest_others(image, n, 10)]) for n in range(len(image))]
    np.testing.assert_allclose(deep_knn(image, labels), expected, atol=1e-9)


def test_texts_that_say_the_same_share_a_cluster(labelled):
    _, text, _, labels, _ = labelled
    clusters = text_clusters(text, clusters=4)
    assert len(set(zip(clusters, labels))) == 4
    assert len(set(text_clusters(np.repeat(text[:3], 5, axis=0)))) == 3, "no more clusters than distinct texts"


def test_confident_learning_judges_a_label_by_a_classifier_that_did_not_see_it(labelled):
    image, _, _, labels, wrong = labelled
    found = confident_learning(image, labels)
    assert roc_auc_score(wrong, found) > 0.95
    assert ((found >= 0) & (found <= 1)).all()
    # A classifier that has seen the noise has no reason to doubt it: in fold, the images' own labels win.
    rng = np.random.default_rng(0)
    noise = confident_learning(rng.standard_normal((120, 100)).astype(np.float32), labels)
    assert noise.mean() > 0.6


def test_labels_with_gaps_between_them_are_labels_too(labelled):
    image, _, _, labels, _ = labelled
    np.testing.assert_allclose(confident_learning(image, labels * 3 + 1), confident_learning(image, labels))


def test_every_baseline_ranks_wrong_pairs_above_right_ones(labelled):
    image, text, centres, labels, wrong = labelled
    aligned = unit(centres[labels] + 0.01 * text).astype(np.float32)
    for score in (
        clip_score(image, aligned),
        lemon(image, aligned),
        structure_consistency(image, aligned, logit_scale=5.0),
        clip_logits(image, centres, labels),
        deep_knn(image, labels),
    ):
        assert roc_auc_score(wrong, score) > 0.9
