"""A model's answers to weakened images are those to the weakened image alone, and its likelihoods are its own."""

import pytest
import torch
from PIL import Image

from fiftyone_ecif.preference import CannotAnswer, VisionLanguageModel, load_vision_language, weakened
from tests.support.tiny_llava import tiny_llava, tiny_processor

PROMPT = "describe the image"


@pytest.fixture(scope="module")
def model():
    return VisionLanguageModel(tiny_llava(spread=0.5), tiny_processor(), temperature=0.0, longest=6)


@pytest.fixture(scope="module")
def images(pair_rows):
    return [Image.open(path).convert("RGB") for path, _, _ in pair_rows[::8]]


def tokens_without_a_cache(model, image, step, seed):
    """The likeliest tokens when every one of them is computed anew from the weakened image."""
    asked = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    given = model.processor(images=[image], text=[asked], return_tensors="pt")
    pixels, tokens = weakened(given["pixel_values"], step, seed), given["input_ids"]
    start = tokens.shape[1]
    for _ in range(model.longest):
        with torch.no_grad():
            logits = model.model(input_ids=tokens, pixel_values=pixels, use_cache=False).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(2)], dim=1)
        if tokens[0, -1] == 3:
            break
    return tokens[0, start:]


def said(model, tokens):
    return model.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


@pytest.mark.parametrize("step", [0, 700])
def test_answers_are_those_to_the_weakened_image_alone(model, images, step):
    expected = [said(model, tokens_without_a_cache(model, image, step, 3)) for image in images]
    for image, text in zip(images, expected, strict=True):
        assert model.answer([image], [PROMPT], [step], [3]) == [text]


def test_noise_changes_tokens_after_the_first(model, images):
    """In the published script, the second token on comes from a cache of the clean image."""
    changed = 0
    for image in images:
        clean, noised = (model.answer([image], [PROMPT], [step], [3])[0].split() for step in (0, 900))
        changed += clean[1:] != noised[1:]
    assert changed >= len(images) / 2


def test_a_batch_is_answered_as_each_alone(model, images):
    prompts = [PROMPT, "what is this", "a"]
    steps, seeds = [0, 500, 900], [1, 2, 3]
    alone = [model.answer(*[[each] for each in row])[0] for row in zip(images[:3], prompts, steps, seeds, strict=True)]
    assert model.answer(images[:3], prompts, steps, seeds) == alone


def test_the_fit_is_the_mean_log_likelihood_of_the_answer(model, images):
    tokens = tokens_without_a_cache(model, images[0], 0, 0)
    text = said(model, tokens)
    likeliest, other = (model.fit(images[:1], [PROMPT], [each], [0], [0])[0] for each in (text, "yellow circle two"))
    assert other < likeliest < 0
    again = model.fit(images[:2], [PROMPT] * 2, [text] * 2, [900, 0], [0, 0])
    assert again[0] != likeliest and model.fit(images[:1], [PROMPT], [text], [900], [0])[0] == again[0]


def test_a_model_without_a_chat_template_cannot_be_asked(images):
    plain = VisionLanguageModel(tiny_llava(), tiny_processor(template=None))
    with pytest.raises(CannotAnswer, match="no chat template"):
        plain.answer(images[:1], [PROMPT], [0], [0])


def test_a_model_is_loaded_from_its_folder_and_known_by_its_weights(model, images, tmp_path):
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    loaded = load_vision_language(str(tmp_path), "cpu", 0.0, 6)
    assert loaded.fingerprint == model.fingerprint and "<image>" in loaded.markers
    assert loaded.answer(images[:2], [PROMPT] * 2, [0, 900], [0, 1]) == model.answer(
        images[:2], [PROMPT] * 2, [0, 900], [0, 1]
    )
    assert VisionLanguageModel(tiny_llava(), tiny_processor()).fingerprint != model.fingerprint
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_vision_language(str(tmp_path / "none"), "cpu", 0.0, 6)
