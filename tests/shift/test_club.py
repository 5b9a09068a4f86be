"""CLUB against its definition by loops, the ideal estimator of Gaussians, and the authors' published values."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fiftyone_ecif.shift import Club, TensorVectors, club_estimate, club_pass, load_club, save_club
from fiftyone_ecif.shift import vectors as reading


def made_club(inputs=4, outputs=3, bounded=True, seed=0):
    torch.manual_seed(seed)
    return Club(inputs, outputs, hidden=5, bounded=bounded).requires_grad_(False)


def rows(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def by_definition(club, z, y):
    """Every row against every other, in float64."""
    mean, log_variance = (part.double() for part in club(z))
    found = []
    for i in range(len(z)):
        variance = 2 * log_variance[i].exp()
        positive = -((mean[i] - y[i].double()).square() / variance).sum()
        negative = sum(-((mean[i] - other.double()).square() / variance).sum() for other in y) / len(y)
        found.append(float(positive - negative))
    return torch.tensor(found)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("together", [3, 8192])
def test_the_estimate_is_its_definition(monkeypatch, bounded, together):
    monkeypatch.setattr(reading, "TOGETHER", together)
    club, z, y = made_club(bounded=bounded), rows(11, 4, 1), rows(11, 3, 2)
    expected = by_definition(club, z, y)
    found = club_pass(club, TensorVectors(z), [TensorVectors(y)])[0].rows
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-4)
    assert club_estimate(club, TensorVectors(z), TensorVectors(y)) == pytest.approx(float(expected.mean()), abs=1e-5)


def test_any_weights_of_groups_give_the_estimate_of_the_rows_repeated():
    club, z, y = made_club(), rows(12, 4, 1), rows(12, 3, 2)
    group = torch.tensor([0, 1, 2, -1] * 3)
    terms = club_pass(club, TensorVectors(z), [TensorVectors(y)], group, 3)[0].terms
    weights = torch.tensor([[1, 1, 1], [2, 0, 3]])
    for times, found in zip(weights, terms.estimate(weights), strict=True):
        chosen = torch.cat([(group == number).nonzero().squeeze(1).repeat(int(times[number])) for number in range(3)])
        expected = club_estimate(club, TensorVectors(z[chosen]), TensorVectors(y[chosen]))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def ideal(correlation, dim):
    """q(y|z) = N(ρ z, 1 − ρ²): a tanh so near its origin that it is straight, and a constant log-variance."""
    club = Club(dim, dim, hidden=dim).requires_grad_(False)
    for part in club.parameters():
        part.zero_()
    small = 1e-3
    club.p_mu[0].weight.copy_(small * torch.eye(dim))
    club.p_mu[2].weight.copy_(correlation / small * torch.eye(dim))
    club.p_logvar[2].bias.fill_(math.atanh(math.log(1 - correlation**2)))
    return club


@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.79])
def test_the_ideal_estimator_on_gaussians_gives_an_upper_bound_of_mutual_information(correlation):
    dim, generator = 4, torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 100_000, dim, generator=generator)
    y = correlation * z + math.sqrt(1 - correlation**2) * noise
    found = club_estimate(ideal(correlation, dim), TensorVectors(z), TensorVectors(y)) / dim
    assert found == pytest.approx(correlation**2 / (1 - correlation**2), rel=0.05)
    assert found > -0.5 * math.log(1 - correlation**2)


@pytest.mark.parametrize(
    ("count", "other", "same"),
    [(30, -0.0165029, 0.119793), (60, 0.0080436, 0.118703), (90, 0.0017006, 0.126008)],
)
def test_the_published_estimator_gives_the_published_values(published, count, other, same):
    club = load_club(published / "CLUB_global.pt")
    draws = np.random.RandomState(0)
    x, y = (torch.from_numpy(draws.randn(count, 768)) for _ in range(2))
    x, y = (TensorVectors(part / part.norm(dim=1, keepdim=True)) for part in (x, y))
    assert club_estimate(club, x, y) == pytest.approx(other, abs=1e-6)
    assert club_estimate(club, x, x) == pytest.approx(same, abs=1e-6)


@pytest.mark.parametrize("bounded", [True, False])
def test_an_estimator_is_stored_with_what_it_is(tmp_path, bounded):
    club, z = made_club(bounded=bounded), rows(5, 4, 1)
    save_club(club, tmp_path / "own.safetensors")
    again = load_club(tmp_path / "own.safetensors")
    assert again.bounded is bounded and torch.equal(again(z)[1], club(z)[1])
    torch.save(club.state_dict(), tmp_path / "theirs.pt")
    assert load_club(tmp_path / "theirs.pt").bounded
    with pytest.raises(ValueError, match="safetensors"):
        save_club(club, tmp_path / "own.pt")


class Unsafe:
    """What would run a program if it were unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_what_is_no_estimator_is_refused_and_never_unpickled(tmp_path, capsys):
    torch.save({"p_mu": Unsafe()}, tmp_path / "unsafe.pt")
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    for name, reason in {
        "unsafe.pt": "is no estimator",
        "other.safetensors": "is no estimator",
        "damaged.safetensors": "cannot be read",
        "none.pt": "There is no estimator",
    }.items():
        with pytest.raises(ValueError, match=reason):
            load_club(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out


def test_widths_and_counts_must_agree():
    club = made_club()
    with pytest.raises(ValueError, match="4 and 3 numbers, and the encoders give 5 and 3"):
        club_estimate(club, TensorVectors(rows(4, 5, 0)), TensorVectors(rows(4, 3, 0)))
    with pytest.raises(ValueError, match="4 questions and 5 answers"):
        club_estimate(club, TensorVectors(rows(4, 4, 0)), TensorVectors(rows(5, 3, 0)))
