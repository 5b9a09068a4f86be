"""Eigenvectors where LAPACK's quickest algorithm does not settle."""

import pytest
import torch

from fiftyone_ecif.core.eigenvectors import eigenvectors


def moments(rows=6, columns=40):
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return drawn.T @ drawn


def test_they_are_those_of_the_matrix():
    matrix = moments()
    values, vectors = eigenvectors(matrix)
    torch.testing.assert_close(vectors * values @ vectors.T, matrix, rtol=0, atol=1e-4)
    assert (values[1:] >= values[:-1]).all()


def test_a_matrix_on_which_float32_does_not_settle_is_taken_in_float64(monkeypatch):
    def settles_in_float64(matrix, eigh=torch.linalg.eigh):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return eigh(matrix)

    expected = eigenvectors(moments())
    monkeypatch.setattr(torch.linalg, "eigh", settles_in_float64)
    values, vectors = eigenvectors(moments())
    assert values.dtype == vectors.dtype == torch.float32
    torch.testing.assert_close(values, expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(vectors * values @ vectors.T, moments(), rtol=0, atol=1e-4)


def test_a_matrix_that_is_not_finite_is_said():
    matrix = moments()
    matrix[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        eigenvectors(matrix)
