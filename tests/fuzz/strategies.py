"""Odd values: what people, forms, files and databases may hold in place of what is expected."""

from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from bson import ObjectId
from hypothesis import strategies as st

ODD_TEXTS = (
    "", " ", "\0", "\n", "$", "$where", "$filepath", "a.b", ".", "..", "../../outside", "_id", "id", "filepath", "tags",
    "first", "first_value", "caption", "{}", "{0}", "%s", "<b>bold</b>", "[link](javascript:1)", "# heading", "`",
    "null", "None", "nan", "-1", "1e400", "🙂", "‮reversed", "a\u0301", "\ud800", "ﬀ" * 40, "x" * 5_000,
    "cross_fitted", "tag:trusted", "view:none", "dataset:none", "lora", "full", "(", ".*", "cuda:99", "cpu", "csv",
)  # fmt: skip
ODD_NUMBERS = (0, 1, -1, 2, 10**6, 2**31, 2**63, 2**64, 10**400, 0.0, 0.5, 1.0, -0.5, 1e-320, 1e308)
ODD_FLOATS = (float("nan"), float("inf"), float("-inf"))
ODD_OBJECTS = (
    b"bytes", object(), int, ObjectId("0" * 24), datetime(2020, 1, 1), Path("here"), np.float64(0.5), np.int64(3),
    np.array([1.0, 2.0]), np.array(7), torch.tensor(0.5), torch.tensor([1, 2]), {1, 2}, (1, 2), 1 + 2j,
)  # fmt: skip

texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20), st.characters()).filter(
    lambda text: not text.startswith("/")
)
"""Any text but the paths of the machine: markup, names that mean something elsewhere, surrogates, very long ones."""

storable_texts = st.one_of(
    st.sampled_from([text for text in ODD_TEXTS if text != "\ud800"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
).filter(lambda text: not text.startswith("/"))
"""Any of them that can be encoded."""

numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(), st.floats(allow_nan=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(ODD_FLOATS), texts)

values = st.one_of(
    scalars,
    st.sampled_from(ODD_OBJECTS),
    st.lists(scalars, max_size=3),
    st.dictionaries(texts, scalars, max_size=2),
)
"""Anything that a script may pass."""

_plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    storable_texts.filter(lambda t: "\0" not in t),
)
_names = storable_texts.filter(lambda text: "\0" not in text)
stored = st.one_of(
    _plain,
    st.lists(_plain, max_size=3),
    st.dictionaries(_names, _plain, max_size=2),
    st.just(b"bytes"),
    st.just(ObjectId("0" * 24)),
    st.just(datetime(2020, 1, 1)),
)
"""Anything that the database can hold."""

sent = st.one_of(_plain, st.lists(_plain, max_size=3), st.dictionaries(_names, _plain, max_size=2))
"""Anything that a form or a page can send."""
