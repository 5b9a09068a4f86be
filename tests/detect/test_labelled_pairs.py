import torch
from sklearn.metrics import roc_auc_score

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import find_misaligned

SETTINGS = Settings(rounds=1, batch_size=64, anchor=0.1)


def templated_pairs(pairs=400, classes=5, templates=4, dim=12, seed=0):
    """Texts say their class in one half of their features and, louder, which template they are in the other."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    wording = 3 * torch.randn(templates, dim, generator=generator)
    label = torch.randint(classes, (pairs,), generator=generator)
    template = torch.randint(templates, (pairs,), generator=generator)
    wrong = torch.rand(pairs, generator=generator) < 0.2
    said = torch.where(wrong, (label + 1) % classes, label)
    image = torch.cat([centres[label] + 0.7 * torch.randn(pairs, dim, generator=generator), torch.zeros(pairs, dim)], 1)
    return TensorPairs(image, torch.cat([centres[said], wording[template]], 1)), said, wrong.numpy()


def test_a_label_says_the_mean_of_its_texts():
    pairs, said, _ = templated_pairs(60)
    labels = [f"class {number}" for number in said.tolist()]
    index = torch.tensor([5, 0, 59, 5])
    image, text = LabelledPairs(pairs, labels).gather(index)
    assert torch.equal(image, pairs.image[index])
    for row, pair in enumerate(index.tolist()):
        torch.testing.assert_close(text[row], pairs.text[said == said[pair]].mean(0))


def test_labels_find_what_the_wording_hides():
    pairs, said, wrong = templated_pairs()
    head = Head(torch.eye(24), torch.eye(24), torch.tensor(10.0).log())
    plain, labelled = (
        find_misaligned(given, None, head, "clip", SETTINGS)[0].probability
        for given in (pairs, LabelledPairs(pairs, said.tolist()))
    )
    assert roc_auc_score(wrong, labelled) > roc_auc_score(wrong, plain) + 0.01
