"""A LLaVA of 14,000 parameters with its processor, made here: it knows some words and has seen nothing."""

import pytest

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
WORDS = (
    *("USER:", "ASSISTANT:", "describe", "the", "image", "what", "is", "this", "a", "an", "one", "two", "three"),
    *("drawing", "of", "on", "red", "green", "blue", "yellow", "circle", "square", "triangle", "gray"),
)
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }} "
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)


def tiny_processor(template: str | None = TEMPLATE):
    """Its processor: pictures of 16 × 16 pixels in four patches, and a token for each word."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            **dict(pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"),
            additional_special_tokens=["<image>"],
        ),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def tiny_llava(spread: float = 0.02):
    """The model; the larger ``spread`` of its weights is, the more its answers depend on the image."""
    transformers = pytest.importorskip("transformers")
    import torch

    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlavaForConditionalGeneration(
            transformers.LlavaConfig(
                vision_config=transformers.CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=16),
                text_config=transformers.LlamaConfig(
                    **size, vocab_size=len(SPECIAL) + len(WORDS), pad_token_id=0, bos_token_id=2, eos_token_id=3
                ),
                image_token_index=SPECIAL.index("<image>"),
            )
        )
        if spread != 0.02:
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=spread)
    return model.eval()
