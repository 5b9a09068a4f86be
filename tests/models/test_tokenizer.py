"""Texts that a model's context cuts are counted, whatever its tokenizer ends and pads them with."""

import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer

from fiftyone_ecif.models import wrap_model
from fiftyone_ecif.models.tokenizer import load_tokenizer
from tests.support.tokenizers import KINDS, write_tokenizer

CONTEXT = 12
MARKS = {"plain": 0, "siglip": 1, "clipa": 2, "roberta": 2}
"""Tokens of a full context that are no words."""


@pytest.fixture
def tokenizer(tmp_path):
    """Makes a tokenizer of a kind, as open_clip uses those of that model."""

    def make(kind, **options):
        write_tokenizer(tmp_path / kind, kind)
        return HFTokenizer(str(tmp_path / kind), context_length=CONTEXT, strip_sep_token=kind == "clipa", **options)

    return make


def words(*counts):
    return [" ".join(["cat"] * count) for count in counts]


def cut(make_model, tokenizer, texts):
    model = make_model("vit")
    wrapped = wrap_model(model.model, model.preprocess, tokenizer, name="tiny-vit")
    return wrapped.truncated(texts, wrapped.tokenize(texts)).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_cut_texts_are_counted(make_model, tokenizer, kind):
    room = CONTEXT - MARKS[kind]
    assert (
        cut(make_model, tokenizer(kind), words(0, 1, room - 1, room, room + 1, room + 2, 60))
        == [False] * 4 + [True] * 3
    )


@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_the_last_token_alone_would_not_tell(tokenizer, kind):
    made = tokenizer(kind)
    short, full, long = made([*words(1, CONTEXT, 60)], CONTEXT + 1)[:, -1].tolist()
    assert short == full == long  # as one more token than the context showed it before


def test_cut_texts_are_counted_with_a_class_token_at_the_end(make_model, tokenizer):
    made = tokenizer("roberta", tokenizer_mode="clips")
    made.tokenizer.bos_token, made.tokenizer.cls_token = "<s>", "<s>"
    room = CONTEXT - 3
    assert cut(make_model, made, words(1, room, room + 1, 60)) == [False, False, True, True]


def test_cut_texts_are_counted_for_clips_own_tokenizer(make_model):
    made = open_clip.SimpleTokenizer(context_length=CONTEXT)
    room = CONTEXT - 2
    texts = [*words(0, 1, room, room + 1, 60), "!" * 8 + "cat", "cat " * (room - 1) + "!!!!!"]
    whole = [len(made.encode(text)) <= room for text in texts]
    assert [not found for found in cut(make_model, made, texts)] == whole
    assert sum(whole) > 3


@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_the_configurations_settings_reach_the_tokenizer(tmp_path, kind):
    write_tokenizer(tmp_path / kind, kind)
    text = {"context_length": 5, "hf_tokenizer_name": str(tmp_path / kind)}
    settings = {"siglip": {"clean": "canonicalize"}, "clipa": {"strip_sep_token": True}}[kind]
    made = load_tokenizer("a model", text | {"tokenizer_kwargs": settings})
    tokens = made(["A cat, a dog!"])
    assert tokens.shape == (1, 5)
    plain = load_tokenizer("a model", text)(["A cat, a dog!"])
    assert not tokens.equal(plain)
