import pytest
import torch
from sklearn.metrics import average_precision_score

from fiftyone_ecif.detect.labels import estimate, is_class_conditional, label_misalignment, neighbour_votes
from fiftyone_ecif.detect.transition import (
    LEAST_BELIEF,
    expectation_maximisation,
    posterior,
    symmetric_rate,
    symmetric_transition,
)


def labelled(pairs=1500, classes=6, shift=None, rate=0.2, noise=0.9, seed=0):
    """Images around class centres, their beliefs by the true likelihoods, and labels of which a share is wrong.

    Wrong labels are any other label, or the label of the class ``shift`` places on.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(classes, 8, generator=generator), dim=1)
    true = torch.randint(classes, (pairs,), generator=generator)
    image = centres[true] + noise * torch.randn(pairs, 8, generator=generator) / 8**0.5 * 2
    beliefs = (-torch.cdist(image, centres).square() / (2 * (noise / 8**0.5 * 2) ** 2)).softmax(1)
    wrong = torch.rand(pairs, generator=generator) < rate
    places = torch.randint(1, classes, (pairs,), generator=generator) if shift is None else shift
    label = torch.where(wrong, (true + places) % classes, true)
    return torch.nn.functional.normalize(image, dim=1), beliefs, label, wrong.numpy(), true


def nobody(pairs):
    return torch.zeros(pairs, dtype=torch.bool)


def test_the_transition_matrix_and_the_weights_of_the_annotators_are_found():
    _, beliefs, label, _, _ = labelled(6_000, shift=1, noise=0.4)
    useless = (5 * torch.randn(6_000, 6, generator=torch.Generator().manual_seed(1))).softmax(1)
    # An annotator whose log probabilities are twice too large gets half the weight.
    logarithms = {"head": 2 * beliefs.clamp_min(1e-9).log(), "useless": useless.clamp_min(1e-9).log()}
    weights, transition = estimate(logarithms, label, nobody(6_000))
    assert weights["head"] == pytest.approx(0.5, abs=0.2) and weights["useless"] < 0.2
    expected = 0.8 * torch.eye(6) + 0.2 * torch.eye(6).roll(1, dims=1)
    torch.testing.assert_close(transition, expected.double(), atol=0.08, rtol=0)
    torch.testing.assert_close(transition.sum(1), torch.ones(6, dtype=torch.float64))


def test_truth_is_bayes_rule():
    _, beliefs, label, _, _ = labelled(40)
    transition = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    found = posterior(beliefs, transition, label)
    for n, given in enumerate(label.tolist()):
        joint = [(float(beliefs[n, c]) + LEAST_BELIEF) * float(transition[c, given]) for c in range(6)]
        assert found[n].tolist() == pytest.approx([part / sum(joint) for part in joint])


def test_a_step_counts_what_is_believed_and_trusted_pairs_count_as_they_are():
    _, beliefs, label, _, _ = labelled(50)
    start = 0.8 * torch.eye(6, dtype=torch.float64) + 0.2 / 6
    trusted = torch.arange(50) < 25
    believed = posterior(beliefs, start, label)
    counts = torch.zeros(6, 6, dtype=torch.float64)
    for n, given in enumerate(label.tolist()):
        for c in range(6):
            counts[c, given] += float(c == given) if trusted[n] else believed[n, c]
    for c in range(6):
        counts[c, torch.arange(6) != c] += 0.05 * counts[c].sum() / 5
    expected = (counts + LEAST_BELIEF) / (counts + LEAST_BELIEF).sum(1, keepdim=True)
    torch.testing.assert_close(expectation_maximisation(start, beliefs, label, trusted, 1), expected)


def test_class_conditional_noise_is_found_better_and_symmetric_noise_as_well_as_by_beliefs_alone():
    for shift, gain in ((1, 0.003), (None, -0.003)):
        image, beliefs, label, wrong, _ = labelled(shift=shift, noise=0.4)
        plain = average_precision_score(wrong, -beliefs.gather(1, label[:, None]).squeeze(1))
        found = label_misalignment(image, label, beliefs, 0.0, nobody(1500))
        assert average_precision_score(wrong, found.probability) > plain + gain
        assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.03)
        suspected = found.probability > 0.5
        assert found.probability[suspected].mean() == pytest.approx(wrong[suspected].mean(), abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_class_conditional_noise_is_told_from_chance_by_held_out_labels(seed):
    for rate, pairs in ((0.05, 1500), (0.2, 300)):
        for shift in (1, None):
            _, beliefs, label, _, _ = labelled(pairs, shift=shift, rate=rate, noise=0.4, seed=seed)
            assert is_class_conditional(beliefs, label, nobody(pairs), seed) == (shift == 1)


def test_trusted_pairs_say_nothing_about_the_kind_of_noise():
    _, beliefs, label, _, _ = labelled(shift=1, noise=0.4)
    assert not is_class_conditional(beliefs, label, ~nobody(1500))


def test_the_rate_of_symmetric_noise_is_the_likeliest():
    _, beliefs, label, wrong, _ = labelled(4_000, rate=0.05, noise=0.4)
    found = symmetric_rate(beliefs, label, nobody(4_000), 50)
    assert found == pytest.approx(wrong.mean(), abs=0.01)

    def surprise(rate):
        return -(((beliefs.double() + LEAST_BELIEF) * symmetric_transition(rate, 6)[:, label].T).sum(1).log().sum())

    assert surprise(found) < min(surprise(found - 0.005), surprise(found + 0.005))
    trusted = torch.arange(4_000) < 2_000
    assert symmetric_rate(beliefs, label, trusted, 50) == pytest.approx(found / 2, rel=0.2)


def test_few_wrong_labels_of_any_kind_are_not_taken_for_class_conditional_noise():
    image, beliefs, label, wrong, _ = labelled(pairs=600, classes=12, rate=0.05, noise=0.5)
    plain = average_precision_score(wrong, -beliefs.gather(1, label[:, None]).squeeze(1))
    found = label_misalignment(image, label, beliefs, 0.0, nobody(600))
    assert average_precision_score(wrong, found.probability) > plain - 0.01
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.02)


def test_trusted_pairs_are_not_suspected():
    image, beliefs, label, wrong, _ = labelled(shift=1)
    misled = beliefs.roll(1, dims=1)  # takes every right label for wrong
    trusted = torch.from_numpy(~wrong) & (torch.arange(1500) < 60)
    found = label_misalignment(image, label, misled, 0.0, trusted)
    assert (found.probability[trusted.numpy()] == 0).all()
    assert found.probability[~trusted.numpy()].min() > 0


def test_a_few_trusted_pairs_decide_between_annotators_who_explain_the_labels_equally_well():
    _, beliefs, label, wrong, _ = labelled(shift=1, rate=0.5, seed=2)
    annotators = {"right": (beliefs + 1e-4).log(), "misled": (beliefs.roll(1, dims=1) + 1e-4).log()}
    trusted = torch.from_numpy(~wrong) & (torch.arange(1500) < 60)
    plain, trusting = (estimate(annotators, label, mask)[0] for mask in (nobody(1500), trusted))
    assert plain["misled"] > 0.8 * plain["right"]
    assert trusting["misled"] < 0.3 * trusting["right"]


def test_on_hard_labels_the_estimate_is_that_of_dawid_and_skene():
    """Other annotators' hard labels become beliefs, and the given labels are those of one more annotator."""
    pandas = pytest.importorskip("pandas")
    crowdkit = pytest.importorskip("crowdkit.aggregation", reason="the peer of this cross-check is not installed")
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(4, (800,), generator=generator)

    def annotated(rate, shift):
        wrong = torch.rand(800, generator=generator) < rate
        return torch.where(wrong, (true + shift) % 4, true)

    labels = {"given": annotated(0.3, 1), "first": annotated(0.2, 2), "second": annotated(0.35, 3)}
    answers = pandas.concat(
        pandas.DataFrame({"task": range(800), "worker": name, "label": values.numpy()})
        for name, values in labels.items()
    )
    peer = crowdkit.DawidSkene(n_iter=2_000, tol=1e-14).fit(answers)

    def transition_of(name):
        errors = peer.errors_.loc[name].reindex(range(4), fill_value=0.0)[list(range(4))]
        return torch.from_numpy(errors.to_numpy().T.copy())  # rows are true labels here

    beliefs = torch.from_numpy(peer.priors_[list(range(4))].to_numpy().copy()).expand(800, 4)
    for name in ("first", "second"):
        beliefs = beliefs * transition_of(name)[:, labels[name]].T
    beliefs = beliefs / beliefs.sum(1, keepdim=True)
    start = symmetric_transition(0.2, 4)
    found = expectation_maximisation(start, beliefs, labels["given"], nobody(800), 1_000, background=0.0)
    torch.testing.assert_close(found, transition_of("given"), rtol=0, atol=1e-3)
    expected = torch.from_numpy(peer.probas_.loc[range(800), list(range(4))].to_numpy().copy())
    torch.testing.assert_close(posterior(beliefs, found, labels["given"]), expected, rtol=0, atol=1e-3)


def test_a_head_that_has_seen_the_labels_does_not_count_where_they_were_memorised():
    image, _, label, wrong, _ = labelled(noise=0.4)
    seen = 0.9 * torch.nn.functional.one_hot(label, 6).float() + 0.1 / 6
    fooled, asked_others = (label_misalignment(image, label, seen, m, nobody(1500)) for m in (0.0, 1.0))
    assert average_precision_score(wrong, asked_others.probability) > 0.9
    assert average_precision_score(wrong, fooled.probability) < average_precision_score(wrong, asked_others.probability)


def test_votes_are_what_the_neighbours_are_believed_to_be_with_a_little_of_all():
    beliefs = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0.5, 0.5]])
    votes = neighbour_votes(torch.tensor([[1, 2], [0, 2], [0, 1]]), beliefs)
    torch.testing.assert_close(votes[0], (torch.tensor([0.0, 0.75, 0.25]) + 0.05 * beliefs.mean(0)) / 1.05)
    torch.testing.assert_close(votes.sum(1), torch.ones(3))


@pytest.mark.parametrize("case", ["one label", "a label of one pair", "a label that nobody has", "all wrong"])
@pytest.mark.parametrize("memorised", [0.0, 0.9])
def test_hopeless_labels_stay_finite_and_in_range(case, memorised):
    image, beliefs, label, _, _ = labelled(200, rate=1.0 if case == "all wrong" else 0.2)
    if case == "one label":
        label, beliefs = torch.zeros_like(label), torch.ones(200, 1)
    elif case == "a label of one pair":
        label = torch.where(torch.arange(200) == 7, 5, label % 5)
    elif case == "a label that nobody has":
        label = label % 5
    found = label_misalignment(image, label, beliefs, memorised, nobody(200))
    assert ((found.probability >= 0) & (found.probability <= 1)).all() and 0 <= found.noise_rate <= 1
    if case == "one label":
        assert (found.probability == 0.5).all()
