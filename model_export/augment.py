"""Distorts images of digits as hands and pens do, so that the network learns the digit and not the sample.

Knows images and a random generator only: no labels, no network, no files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

MAX_ROTATION_DEGREES = 15.0
MAX_SCALE_CHANGE = 0.15
MAX_SHEAR = 0.25
MAX_SHIFT_PIXELS = 2.0
ELASTIC_SIGMA_PIXELS = 4.0
ELASTIC_STRENGTH_PIXELS = 34.0  # Simard et al. 2003 use sigma 4 and alpha 34 on fields of 29x29
THICKNESS_SHARE = 0.3
EDGES_SHARE = 0.3
MOST_CONTRAST = 4.0
OCCLUSION_SHARE = 0.1
OCCLUSION_PIXELS = 6


def distort(images: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Return a distorted copy: moved, turned, scaled, sheared, bent; some thicker or thinner, blurred, hard, occluded.

    Args:
        images: float32 [N, 1, H, W], 0 paper to 1 ink, square.
        generator: a CPU generator; the same state gives the same distortion on every device.
        strength: 0 to 1, by which every movement, and the share of images that is changed otherwise, is multiplied.

    Returns:
        float32 [N, 1, H, W], still within 0 to 1.
    """
    count, _, size, _ = images.shape
    field = affine_field(count, size, generator, strength) + elastic_field(count, size, generator, strength)
    moved = F.grid_sample(images, field.to(images.device), mode="bilinear", padding_mode="zeros", align_corners=False)
    drawn = change_edges(change_thickness(moved, generator, strength), generator, strength)
    return occlude(drawn, generator, strength)


def affine_field(count: int, size: int, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Draw one affine map an image: where each pixel of the result is to be read, float32 [N, H, W, 2] in -1 to 1."""
    angle = _uniform(count, generator) * math.radians(MAX_ROTATION_DEGREES) * strength
    across = 1 + _uniform(count, generator) * MAX_SCALE_CHANGE * strength
    down = 1 + _uniform(count, generator) * MAX_SCALE_CHANGE * strength
    shear = _uniform(count, generator) * MAX_SHEAR * strength
    shift_x = _uniform(count, generator) * MAX_SHIFT_PIXELS * strength * 2 / size
    shift_y = _uniform(count, generator) * MAX_SHIFT_PIXELS * strength * 2 / size
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # Rotation times shear times scale, written out.
    row_x = torch.stack([across * cosine, down * (shear * cosine - sine), shift_x], dim=1)
    row_y = torch.stack([across * sine, down * (shear * sine + cosine), shift_y], dim=1)
    return F.affine_grid(torch.stack([row_x, row_y], dim=1), [count, 1, size, size], align_corners=False)


def elastic_field(count: int, size: int, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Draw a smooth random displacement an image, float32 [N, H, W, 2] in units of half the image.

    Uniform noise in -1 to 1 a pixel and direction, smoothed by a Gaussian, times a factor that is itself random from
    0 to the full: P. Simard, D. Steinkraus, J. Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003. The Gaussian is separable, hence two products with one banded matrix.
    """
    noise = torch.rand(count, 2, size, size, generator=generator) * 2 - 1
    smoothing = gaussian_matrix(size, ELASTIC_SIGMA_PIXELS)
    smooth = smoothing @ noise @ smoothing.T
    factor = torch.rand(count, 1, 1, 1, generator=generator) * ELASTIC_STRENGTH_PIXELS * strength
    return (smooth * factor * 2 / size).permute(0, 2, 3, 1)


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """Return the float32 [size, size] matrix that smooths a column of pixels, with zeros outside its borders."""
    position = torch.arange(size, dtype=torch.float32)
    distance = position[:, None] - position[None, :]
    return torch.exp(-(distance**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))


def change_thickness(images: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Thicken the strokes of some images [N, 1, H, W], thin those of others, by at most about half a pixel a side.

    A blend of the image with its dilation (largest of 3x3) or its erosion (smallest of 3x3).
    """
    count, share = len(images), THICKNESS_SHARE * strength
    amount = (torch.rand(count, 1, 1, 1, generator=generator) * 0.5).to(images.device)
    choice = torch.rand(count, 1, 1, 1, generator=generator).to(images.device)
    thicker = F.max_pool2d(images, 3, stride=1, padding=1) - images
    thinner = -F.max_pool2d(-images, 3, stride=1, padding=1) - images
    change = torch.where(choice < share / 2, thicker, thinner)
    return images + torch.where(choice < share, amount, torch.zeros_like(amount)) * change


def change_edges(images: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Blur some images [N, 1, H, W], as enlarged small pictures are, and harden the edges of others, as scans are.

    Blurred is a blend with the mean of 3x3, which is taken twice; hardened is stretching the contrast around one half.
    """
    count, share = len(images), EDGES_SHARE * strength
    amount = torch.rand(count, 1, 1, 1, generator=generator).to(images.device)
    choice = torch.rand(count, 1, 1, 1, generator=generator).to(images.device)
    mean = F.avg_pool2d(F.avg_pool2d(images, 3, stride=1, padding=1), 3, stride=1, padding=1)
    softer = images + amount * (mean - images)
    harder = ((images - 0.5) * (1 + amount * (MOST_CONTRAST - 1)) + 0.5).clamp(0, 1)
    changed = torch.where(choice < share / 2, softer, harder)
    return torch.where(choice < share, changed, images)


def occlude(images: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Blank a square of 6x6 pixels at a random place of some images [N, 1, H, W]."""
    count, _, size, _ = images.shape
    last_start = size - OCCLUSION_PIXELS + 1
    top = torch.randint(0, last_start, (count, 1, 1, 1), generator=generator)
    left = torch.randint(0, last_start, (count, 1, 1, 1), generator=generator)
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < OCCLUSION_SHARE * strength
    row = torch.arange(size).reshape(1, 1, size, 1)
    column = torch.arange(size).reshape(1, 1, 1, size)
    hit_rows = (row >= top) & (row < top + OCCLUSION_PIXELS)
    hit_columns = (column >= left) & (column < left + OCCLUSION_PIXELS)
    return images.masked_fill((hit_rows & hit_columns & chosen).to(images.device), 0.0)


def _uniform(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` float32 numbers from -1 to 1."""
    return torch.rand(count, generator=generator) * 2 - 1
