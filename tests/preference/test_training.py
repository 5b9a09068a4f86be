"""TRL's own trainers read what is exported and take a step on it, on a tiny LLaVA."""

import math

import pytest

from fiftyone_ecif.preference import PreferencePair, rows_of, write
from tests.support.tiny_llava import tiny_llava, tiny_processor

FORMS = [("jsonl", False), ("jsonl", True), ("parquet", False), ("parquet", True)]


@pytest.fixture
def pairs(pair_rows):
    return [
        PreferencePair(str(number), path, "describe the image", caption, "two blue triangle", "fixed")
        for number, (path, caption, _) in enumerate(pair_rows[:8])
    ]


@pytest.fixture
def training():
    """TRL with its parts, where it is installed."""
    return pytest.importorskip("trl", reason="trl is not installed: pip install 'fiftyone-ecif[preference]'")


def loaded(folder, container):
    import datasets

    name = {"jsonl": ("json", "train.jsonl"), "parquet": ("parquet", "train.parquet")}[container]
    return datasets.load_dataset(
        name[0], data_files=str(folder / name[1]), split="train", cache_dir=str(folder / "cache")
    )


def arguments(folder):
    return dict(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        max_steps=1,
        max_length=None,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
    )


@pytest.mark.parametrize(("container", "embedded"), FORMS)
def test_dpo_begins_at_ln_2_and_takes_a_step(training, pairs, tmp_path, container, embedded):
    assert write("dpo", container, embedded, pairs, tmp_path) == 8
    model = tiny_llava()
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = training.DPOTrainer(
        model=model,
        ref_model=tiny_llava(),
        args=training.DPOConfig(**arguments(tmp_path)),
        train_dataset=loaded(tmp_path, container),
        processing_class=tiny_processor(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].flatten(1).unique(dim=0).shape[0] == 4  # each of its four images, seen
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert any((value != before[name]).any() for name, value in trainer.model.named_parameters())


@pytest.mark.parametrize(("container", "embedded"), FORMS[::3])
def test_kto_takes_a_step(training, pairs, tmp_path, container, embedded):
    assert write("kto", container, embedded, pairs, tmp_path) == 16
    trainer = training.KTOTrainer(
        model=tiny_llava(),
        ref_model=tiny_llava(),
        args=training.KTOConfig(**arguments(tmp_path)),
        train_dataset=loaded(tmp_path, container),
        processing_class=tiny_processor(),
    )
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_an_answer_stands_once_in_rows_of_single_answers(pairs):
    again = [*pairs, PreferencePair("0", pairs[0].path, pairs[0].prompt, pairs[0].chosen, "other", "fixed")]
    labels = [row["label"] for row in rows_of("kto", again)]
    assert (labels.count(True), labels.count(False)) == (8, 9)
    conversations = rows_of("llava", again)
    assert len(conversations) == 8
    assert conversations[0] == {
        "id": pairs[0].key,
        "image": pairs[0].path,
        "conversations": [
            {"from": "human", "value": "<image>\ndescribe the image"},
            {"from": "gpt", "value": pairs[0].chosen},
        ],
    }


def test_texts_are_data_and_embedded_images_are_the_files(pairs, tmp_path):
    import base64
    import json
    from dataclasses import replace
    from pathlib import Path

    odd = [replace(pairs[0], prompt='{"a": "b"}\n{{ x }}', chosen="ä\u2028</script>", key="")]
    write("dpo", "jsonl", True, odd, tmp_path)
    (row,) = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().split("\n") if line]
    assert row["prompt"][0]["content"][1]["text"] == odd[0].prompt
    assert row["chosen"][0]["content"][0]["text"] == odd[0].chosen
    kind, _, data = row["images"][0].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == Path(odd[0].path).read_bytes()
    with pytest.raises(ValueError, match="JSON file"):
        write("llava", "parquet", True, odd, tmp_path)
