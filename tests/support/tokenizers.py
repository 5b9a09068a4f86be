"""Small word-level tokenizers as local folders, which mark and pad texts as those of well-known models do."""

from pathlib import Path

import pytest

WORDS = ("a", "photo", "of", "cat", "dog", "red", "blue", "old", "new", "tree", "car", "house")

KINDS = {
    # special tokens in the order of their numbers, the pattern of a text, and the names that transformers has for them
    "plain": (("<s>", "<pad>", "</s>", "<unk>"), None, dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>")),
    "siglip": (("<unk>", "</s>"), "$A </s>", dict(pad_token="</s>", eos_token="</s>")),
    "clipa": (("<pad>", "<unk>", "<cls>", "<sep>"), "<cls> $A <sep>", dict(pad_token="<pad>", sep_token="<sep>")),
    "roberta": (("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>", dict(pad_token="<pad>", eos_token="</s>")),
}


def write_tokenizer(folder: Path, kind: str) -> None:
    """Write the tokenizer of a kind into a folder.

    "siglip" ends each text and pads it with the same token; "clipa" has a separator, which open_clip strips, so that
    it looks like padding.
    """
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special, pattern, names = KINDS[kind]
    numbers = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if pattern is not None:
        used = [(word, numbers[word]) for word in pattern.split() if word != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=used)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names).save_pretrained(folder)
