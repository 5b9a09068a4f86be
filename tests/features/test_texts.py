import torch

from fiftyone_ecif.features.reading import PairRow
from fiftyone_ecif.features.texts import embed_texts


class Counting:
    """Lengths of texts; remembers what it was asked for."""

    title, fingerprint, dim = "lengths", "ab" * 32, 2

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        rows = {"zero": [0.0, 0.0], "nan": [float("nan"), 1.0]}
        return torch.tensor([rows.get(text, [float(len(text)), 1.0]) for text in texts])


def rows(*texts):
    return [PairRow(str(number), "", text) for number, text in enumerate(texts)]


def test_each_text_is_read_once_and_what_cannot_serve_is_skipped_with_its_reason(tmp_path):
    encoder = Counting()
    found = embed_texts(encoder, rows("one", "three", "one", None, " ", "zero", "nan"), tmp_path)
    assert sorted(encoder.asked) == ["nan", "one", "three", "zero"]
    assert found.ids == ["0", "1", "2"]
    assert found.gather(torch.arange(3))[1].tolist() == [[3.0, 1.0], [5.0, 1.0], [3.0, 1.0]]
    assert found.skipped == {
        "3": "caption is missing",
        "4": "caption is empty",
        "5": "text embedding is all zeros",
        "6": "text embedding is not finite",
    }
    embed_texts(encoder, rows("one", "new"), tmp_path)
    assert encoder.asked[-1] == "new" and len(encoder.asked) == 5
    embed_texts(encoder, rows("one"), tmp_path, refresh=True)
    assert encoder.asked[-1] == "one"


def test_progress_is_told(tmp_path):
    seen = []
    embed_texts(Counting(), rows("a", "b"), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (2, 2)]
