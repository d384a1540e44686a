"""Distortion: what it may do to an image and what it may not."""

from __future__ import annotations

import torch

from model_export.augment import (
    affine_field,
    change_edges,
    change_thickness,
    distort,
    elastic_field,
    gaussian_matrix,
    occlude,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bars(count: int = 64) -> torch.Tensor:
    """Images of an upright bar in the middle, 4 pixels wide."""
    images = torch.zeros(count, 1, 28, 28)
    images[:, :, 6:22, 12:16] = 1
    return images


def test_the_same_state_gives_the_same_distortion_and_another_another() -> None:
    first = distort(bars(), generator(1))
    torch.testing.assert_close(first, distort(bars(), generator(1)), atol=0, rtol=0)
    assert not torch.equal(first, distort(bars(), generator(2)))


def test_shape_range_and_original_are_kept() -> None:
    images = bars()
    distorted = distort(images, generator())
    assert distorted.shape == images.shape and distorted.dtype == torch.float32
    assert distorted.min() >= 0 and distorted.max() <= 1
    assert torch.equal(images, bars())


def test_images_differ_from_each_other_and_keep_their_ink_roughly() -> None:
    distorted = distort(bars(), generator())
    assert len({tuple(image.flatten().tolist()) for image in distorted}) == 64
    ink = distorted.sum(dim=(1, 2, 3)) / bars().sum(dim=(1, 2, 3))
    assert 0.9 < ink.mean() < 1.1
    assert ink.min() > 0.3


def test_affine_fields_stay_within_their_bounds() -> None:
    size, count = 28, 500
    field = affine_field(count, size, generator())
    assert field.shape == (count, size, size, 2)
    middle = field[:, 13:15, 13:15].mean(dim=(1, 2)) * size / 2
    assert middle.abs().max() <= 2.0 + 1e-4
    assert middle.abs().max() > 1.5
    # Without shear the two axes of the grid would stay at right angles.
    across, down = field[:, 14, 20] - field[:, 14, 8], field[:, 20, 14] - field[:, 8, 14]
    cosine = torch.nn.functional.cosine_similarity(across, down, dim=1)
    assert 0.15 < cosine.abs().max() < 0.35


def test_elastic_fields_are_smooth_and_of_random_strength() -> None:
    field = elastic_field(200, 28, generator()) * 14  # in pixels
    step = (field[:, 1:] - field[:, :-1]).abs().max()
    assert step < 1.0
    strength = field.abs().amax(dim=(1, 2, 3))
    assert strength.min() < 0.3 and strength.max() > 1.5


def test_the_gaussian_keeps_the_mean_away_from_the_borders() -> None:
    torch.testing.assert_close(gaussian_matrix(60, 4.0)[30].sum(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_some_strokes_become_thicker_some_thinner_most_stay() -> None:
    ink = change_thickness(bars(1000), generator()).sum(dim=(1, 2, 3)) - bars(1000).sum(dim=(1, 2, 3))
    thicker, thinner = (ink > 1e-3).double().mean(), (ink < -1e-3).double().mean()
    assert 0.1 < thicker < 0.2
    assert 0.1 < thinner < 0.2


def test_occlusion_blanks_a_square_of_some_images() -> None:
    blanked = 1 - occlude(torch.ones(2000, 1, 28, 28), generator()).sum(dim=(1, 2, 3)) / 784
    hit = blanked > 0
    assert 0.07 < hit.double().mean() < 0.13
    torch.testing.assert_close(blanked[hit], torch.full_like(blanked[hit], 36 / 784))


def test_some_edges_become_softer_some_harder_most_stay() -> None:
    images = bars(1000)
    images[:, :, 6:22, 11] = 0.3
    changed = change_edges(images, generator())
    grey = ((changed > 0.01) & (changed < 0.99)).double().mean(dim=(1, 2, 3))
    same = (changed == images).all(dim=(1, 2, 3))
    before = ((images > 0.01) & (images < 0.99)).double().mean().item()
    assert 0.1 < (grey > before + 1e-9).double().mean() < 0.2
    assert 0.65 < same.double().mean() < 0.75
    assert ((changed[:, :, 6:22, 11] < 0.29).all(dim=(1, 2))).double().mean() > 0.1
    assert changed.min() >= 0 and changed.max() <= 1


def test_without_strength_an_image_stays_as_it_is() -> None:
    torch.testing.assert_close(distort(bars(), generator(), strength=0.0), bars(), atol=1e-5, rtol=0)
    moved = [(distort(bars(), generator(), strength) - bars()).abs().mean() for strength in (0.3, 1.0)]
    assert 0 < moved[0] < moved[1]
