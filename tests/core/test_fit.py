"""The fit that influence takes for granted."""


def test_it_comes_to_rest(fitted):
    objective, _, scope, _ = fitted
    assert objective.value_and_gradient(scope)[1].norm() < 1e-7
