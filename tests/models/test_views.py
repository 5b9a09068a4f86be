import torch

from fiftyone_ecif.models.views import VIEWS, ViewAveraged, shifted, shrunk


def test_views_keep_size_and_content_and_mirror_nothing():
    images = torch.zeros(2, 3, 32, 32)
    images[:, :, 8:12, 20:26] = 1.0
    for view in VIEWS:
        seen = view(images)
        assert seen.shape == images.shape and seen.dtype == images.dtype
        rows, columns = seen[0, 0].sum(1).argmax().item(), seen[0, 0].sum(0).argmax().item()
        assert 7 <= rows <= 14 and 18 <= columns <= 26
    assert torch.equal(shifted(images, 1)[..., :-1, :-1], images[..., 1:, 1:])
    assert torch.equal(shifted(images, -1)[..., 1:, 1:], images[..., :-1, :-1])
    assert shrunk(images)[0, 0].sum() < images[0, 0].sum()


def test_features_are_the_mean_over_views_and_the_store_is_another(make_model, images):
    base = make_model("vit")
    averaged = ViewAveraged(base)
    batch = images(base)
    with torch.no_grad():
        expected = sum(base.image_features(view(batch)) for view in VIEWS) / len(VIEWS)
        torch.testing.assert_close(averaged.image_features(batch), expected)
        tokens = base.tokenize(["a red circle"])
        assert torch.equal(averaged.text_features(tokens), base.text_features(tokens))
    assert averaged.fingerprint != base.fingerprint and averaged.fingerprint == ViewAveraged(base).fingerprint
