"""What callers pass becomes plain Python, or is refused in plain words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_ecif.dataset.arguments import (
    PROBABILITY,
    SHARE,
    Choice,
    Device,
    Flag,
    Number,
    Text,
    Texts,
    WholeNumber,
    at_most,
    checked,
)

CONVERTED = [
    (WholeNumber(), np.int64(3), 3),
    (WholeNumber(), torch.tensor(3), 3),
    (Number(), np.float32(0.5), 0.5),
    (Number(), torch.tensor(0.5), 0.5),
    (Number(), 2, 2.0),
    (Text(), Path("weights.pt"), "weights.pt"),
    (Text(), np.str_("caption"), "caption"),
    (Texts(), "a photo of a {}", ["a photo of a {}"]),
    (Texts(), ("a {}", np.str_("one {}")), ["a {}", "one {}"]),
    (Flag(), np.bool_(True), True),
    (Device(), torch.device("cuda", 1), "cuda:1"),
    (Choice({"a": "A"}), "a", "a"),
    (at_most, np.int64(4), 4),
    (at_most, None, None),
]


@pytest.mark.parametrize(("kind", "given", "expected"), CONVERTED)
def test_what_people_pass_becomes_plain_python(kind, given, expected):
    found = kind(given) if kind is at_most else kind("argument", given)
    assert found == expected and type(found) is type(expected)
    if isinstance(found, list):
        assert all(type(each) is str for each in found)


REFUSED = [
    (WholeNumber(), "2", "argument must be a whole number, not '2'"),
    (WholeNumber(), 2.0, "whole number"),
    (WholeNumber(), True, "whole number"),
    (WholeNumber(1), 0, "at least 1, not 0"),
    (WholeNumber(1, 10), 11, "at most 10, not 11"),
    (Number(), "0.5", "must be a number"),
    (Number(), False, "must be a number"),
    (Number(), float("nan"), "finite number of at least 0"),
    (Number(above=True), 0, "finite number above 0, not 0"),
    (PROBABILITY, 1.5, "between 0 and 1, not 1.5"),
    (SHARE, 0.0, "a share above 0 and up to 1, not 0"),
    (PROBABILITY, np.array([0.5]), "must be a number"),
    (Text(), 3, "must be a text, not 3"),
    (Text(10), "x" * 11, "11 characters long; at most 10"),
    (Text(), "caption\ud800", "cannot be stored"),
    (Text(), Path("caption\udcff"), "cannot be stored"),
    (Texts(), ["a {}", 3], "list of texts"),
    (Texts(), ["a {} \ud800"], "cannot be stored"),
    (Texts(), 5, "list of texts"),
    (Flag(), 1, "True or False"),
    (Flag(), "yes", "True or False"),
    (Device(), 0, "must be a device"),
    (Choice({"a": "A", "b": "B"}), "c", "one of a, b, not 'c'"),
    (Choice({"a": "A"}), None, "one of a"),
]


@pytest.mark.parametrize(("kind", "given", "message"), REFUSED)
def test_what_cannot_serve_is_refused_with_the_argument_s_name(kind, given, message):
    with pytest.raises(ValueError, match="argument") as error:
        kind("argument", given)
    assert message in str(error.value)


def test_a_function_says_which_of_its_arguments_cannot_serve():
    @checked(limit=WholeNumber(1), folder=Text())
    def function(folder, limit=None, *, other=None):
        return folder, limit, other

    assert function(Path("/here"), np.int64(3), other=object) == ("/here", 3, object)
    assert function("/here") == ("/here", None, None)
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        function("/here", limit=0)
    with pytest.raises(ValueError, match="folder must be a text, not None"):
        function(None)
