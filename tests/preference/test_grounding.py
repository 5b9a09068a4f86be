"""A text that needs its image loses more of its fit when the image is weakened than one that does not."""

from dataclasses import replace

import pytest
from PIL import Image

from fiftyone_ecif.preference import ClipFit, KeptAnswers, grounding
from tests.support.models import families, make_model, seeded  # noqa: F401


class Seen:
    """A judge to whom texts fit by the image or whatever the image."""

    fingerprint = "seen"
    asked = 0

    def fit(self, images, prompts, texts, steps, seeds):
        self.asked += 1
        return [-1.0 if text == "guessed" or step == 0 else -4.0 for text, step in zip(texts, steps, strict=True)]


def test_grounding_is_the_fall_and_is_judged_once(questions, tmp_path):
    judge, kept = Seen(), KeptAnswers(tmp_path)
    for _ in range(2):
        assert grounding(judge, questions[:2], ["seen", "guessed"], kept) == [3.0, 0.0]
    assert judge.asked == 2


def test_by_a_contrastive_model_it_is_the_fall_of_the_fit(questions, tmp_path, make_model):  # noqa: F811
    judge = ClipFit(make_model("vit"))
    image = Image.open(questions[0].path).convert("RGB")
    whole, blind = judge.fit([image] * 2, [""] * 2, ["a red circle"] * 2, [0, 900], [0, 0])
    (found,) = grounding(judge, questions[:1], ["a red circle"], KeptAnswers(tmp_path))
    assert found == whole - blind and found != 0
    assert judge.of(image, ["a red circle", "a cat"])[0] == pytest.approx(whole, abs=1e-5)


def test_what_cannot_be_seen_is_not_judged(questions, tmp_path):
    missing = replace(questions[0], path=str(tmp_path / "none.png"))
    assert grounding(Seen(), [missing], ["seen"], KeptAnswers(tmp_path)) == [None]
