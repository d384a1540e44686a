"""Photographs of ink on paper, simulated: the paper, what is printed on it, the light, the lens, the sensor, the file.

Knows arrays and Pillow only. A page is the light it throws back, float32 [H, W, 3], 0 black to 1 white; all lengths are
pixels or shares of the page's shorter side. Made to judge a classifier with, not to train it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from model_export.judging.strokes import Coverage, Pixels, draw

Page = npt.NDArray[np.float32]
Range = tuple[float, float]
Colour = tuple[float, float, float]

WHITE_PAPER = ((0.96, 0.95, 0.93), (0.92, 0.92, 0.92), (0.97, 0.94, 0.86), (0.88, 0.91, 0.95))
COLOURED_PAPER = ((0.98, 0.90, 0.45), (0.98, 0.70, 0.75), (0.65, 0.88, 0.65), (0.60, 0.80, 0.95), (0.76, 0.62, 0.45))
DARK_PAPER = ((0.10, 0.11, 0.10), (0.12, 0.25, 0.19), (0.10, 0.13, 0.28), (0.22, 0.22, 0.22))
DARK_INK = ((0.08, 0.08, 0.10), (0.10, 0.16, 0.50), (0.15, 0.15, 0.18))
COLOURED_INK = ((0.75, 0.10, 0.12), (0.10, 0.18, 0.65), (0.05, 0.38, 0.15), (0.40, 0.10, 0.50), (0.08, 0.08, 0.10))
PENCIL = ((0.42, 0.42, 0.43), (0.50, 0.50, 0.50), (0.35, 0.35, 0.36))
CHALK = ((0.95, 0.95, 0.93), (0.95, 0.88, 0.50), (0.85, 0.92, 0.97))


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a kind of photograph looks; a pair is a range of which each picture draws its own value.

    Attributes:
        side: The page's longer side, pixels.
        digit: The digit's longer side, as a share of the page's shorter one.
        pen: Stroke width as a share of the digit's longer side; None keeps the digit's own.
        papers: Colours of the paper, one of which is drawn.
        inks: Colours of the ink, likewise.
        grain: How unevenly the ink covers, 0 (a felt pen) to 1 (chalk).
        ruling: "ruled", "squared" or "" for plain paper.
        light: How much darker the dim end of the page is than the bright one, 0 to 1.
        shadow: How much light a cast shadow takes, 0 to 1; (0, 0) for none.
        glare: How far a reflection washes out the ink in its middle, 0 to 1; (0, 0) for none.
        vignette: How much darker the corners are, 0 to 1.
        tilt: How far the corners of the view stray, as a share of the shorter side.
        exposure: Factor of all light.
        noise: The sensor's, standard deviation.
        blur: The lens's, sigma in pixels.
        quality: Of the JPEG file, 1 to 95.
    """

    side: tuple[int, int] = (260, 560)
    digit: Range = (0.35, 0.7)
    pen: Range | None = None
    papers: tuple[Colour, ...] = WHITE_PAPER
    inks: tuple[Colour, ...] = DARK_INK
    grain: Range = (0.0, 0.15)
    ruling: str = ""
    light: Range = (0.05, 0.25)
    shadow: Range = (0.0, 0.0)
    glare: Range = (0.0, 0.0)
    vignette: Range = (0.0, 0.15)
    tilt: Range = (0.0, 0.03)
    exposure: Range = (0.75, 1.0)
    noise: Range = (0.004, 0.02)
    blur: Range = (0.4, 1.0)
    quality: tuple[int, int] = (60, 95)


def photograph(digit: Pixels, rng: np.random.Generator, look: Look) -> bytes:
    """Photograph a digit, uint8 [28, 28], written on a page; the content of a JPEG file."""
    longer = int(rng.integers(look.side[0], look.side[1] + 1))
    shape = _page_shape(longer, rng)
    size = rng.uniform(*look.digit) * min(shape)
    return photograph_of(draw(digit, size, None if look.pen is None else rng.uniform(*look.pen)), shape, rng, look)


def photograph_of(ink: Coverage, shape: tuple[int, int], rng: np.random.Generator, look: Look) -> bytes:
    """Photograph any drawing, float32 [h, w], on a page of `shape` that it fits on; the content of a JPEG file."""
    tilt = rng.uniform(*look.tilt)
    page = blank_page(shape, look.papers[rng.integers(len(look.papers))], rng)
    if look.ruling:
        page = ruled(page, spacing=max(ink.shape) / rng.uniform(1.3, 3.5), squared=look.ruling == "squared", rng=rng)
    page = written(page, ink, look.inks[rng.integers(len(look.inks))], rng.uniform(*look.grain), tilt, rng)
    page = seen_from_aside(page, tilt, rng)
    page *= lamp_light(shape, rng.uniform(*look.light), rng) * rng.uniform(*look.exposure)
    page *= 1 - rng.uniform(*look.shadow) * cast_shadow(shape, rng)
    page += (1 - page) * rng.uniform(*look.glare) * reflection(shape, rng)
    page *= 1 - rng.uniform(*look.vignette) * corner_distance(shape)
    return as_jpeg(
        sensed(page, rng.uniform(*look.blur), rng.uniform(*look.noise), rng),
        quality=int(rng.integers(look.quality[0], look.quality[1] + 1)),
    )


def blank_page(shape: tuple[int, int], colour: Colour, rng: np.random.Generator) -> Page:
    """Paper of one colour with fibres: fine grain, and a little cloudiness."""
    fibres = 0.012 * rng.standard_normal(shape, np.float32) + 0.02 * clouds(shape, rng, cells=6)
    return np.asarray(np.array(colour) * (1 + fibres[..., None]), np.float32)


def ruled(page: Page, *, spacing: float, squared: bool, rng: np.random.Generator) -> Page:
    """Print lines, `spacing` pixels apart, across a page, and down too where it is squared."""
    height, width = page.shape[:2]
    thickness = max(0.8, min(height, width) * rng.uniform(0.002, 0.004))
    strength = rng.uniform(0.25, 0.55)
    colour = np.array([(0.45, 0.60, 0.85), (0.55, 0.55, 0.58), (0.60, 0.75, 0.90)][rng.integers(3)], np.float32)

    def lines(length: int) -> Coverage:
        position = (np.arange(length) + rng.uniform(0, spacing)) % spacing
        return np.asarray(np.clip(thickness / 2 + 0.5 - np.minimum(position, spacing - position), 0, 1), np.float32)

    printed = np.repeat(lines(height)[:, None], width, axis=1)
    if squared:
        printed = np.maximum(printed, lines(width)[None])
    return page + (page * colour - page) * (strength * printed[..., None])


def written(page: Page, ink: Coverage, colour: Colour, grain: float, margin: float, rng: np.random.Generator) -> Page:
    """Lay ink on a page, anywhere but within `margin` (a share of the shorter side) and a little of its edges."""
    height, width = page.shape[:2]
    edge = round((margin + 0.03) * min(height, width))

    def somewhere(free: int) -> int:
        return int(rng.integers(edge, free - edge)) if free > 2 * edge else free // 2

    top, left = somewhere(height - ink.shape[0]), somewhere(width - ink.shape[1])
    roughness = ndimage.gaussian_filter(rng.random(ink.shape, np.float32), 0.8)
    cover = ink * np.clip(1 - grain * (0.4 + 3 * np.abs(roughness - 0.5)), 0, 1)
    under = page[top : top + ink.shape[0], left : left + ink.shape[1]]
    under += (np.array(colour, np.float32) - under) * cover[..., None]
    return page


def seen_from_aside(page: Page, tilt: float, rng: np.random.Generator) -> Page:
    """View a page through four corners that stray inwards by up to `tilt` of the shorter side."""
    if tilt == 0:
        return page
    height, width = page.shape[:2]
    stray = rng.uniform(0, tilt * min(height, width), 8)
    corners = (0, 0, 0, height, width, height, width, 0) + stray * (1, 1, 1, -1, -1, -1, -1, 1)
    channels = [
        Image.fromarray(np.ascontiguousarray(page[..., channel])).transform(
            (width, height), Image.Transform.QUAD, tuple(corners), Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def lamp_light(shape: tuple[int, int], fall: float, rng: np.random.Generator) -> Page:
    """Light that falls off by `fall` from one side of the page to the other, [H, W, 1]; a little warm or cold."""
    rows, columns = _coordinates(shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * rows + np.sin(angle) * columns) / 2 + 0.5
    tint = 1 + rng.uniform(-0.05, 0.05) * np.array([1, 0, -1], np.float32)
    return np.asarray((1 - fall * np.clip(along, 0, 1))[..., None] * tint, np.float32)


def cast_shadow(shape: tuple[int, int], rng: np.random.Generator) -> Coverage:
    """The shadow of a hand or a phone: a wavy, soft edge across the page, [H, W, 1], 0 lit to 1 in shadow."""
    rows, columns = _coordinates(shape)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    across = np.cos(angle) * rows + np.sin(angle) * columns
    along = np.cos(angle) * columns - np.sin(angle) * rows
    edge = rng.uniform(-0.5, 0.5) + rng.uniform(0, 0.25) * np.sin(rng.uniform(1, 4) * along + phase)
    softness = rng.uniform(0.02, 0.12)
    return np.asarray(0.5 + 0.5 * np.tanh((across - edge) / softness), np.float32)[..., None]


def reflection(shape: tuple[int, int], rng: np.random.Generator) -> Coverage:
    """The reflection of a lamp: a soft oval, [H, W, 1], 1 in its middle to 0."""
    rows, columns = _coordinates(shape)
    middle, radius = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.25, 0.6, 2)
    distance = ((rows - middle[0]) / radius[0]) ** 2 + ((columns - middle[1]) / radius[1]) ** 2
    return np.asarray(np.exp(-distance), np.float32)[..., None]


def corner_distance(shape: tuple[int, int]) -> Coverage:
    """The square of the distance from the middle, [H, W, 1], 0 there to 1 in the corners."""
    rows, columns = _coordinates(shape)
    return np.asarray((rows**2 + columns**2) / 2, np.float32)[..., None]


def sensed(page: Page, blur: float, noise: float, rng: np.random.Generator) -> Pixels:
    """What a sensor makes of the light: uint8 [H, W, 3], blurred by the lens, with noise that is mostly grey."""
    page = ndimage.gaussian_filter(page, (blur, blur, 0))
    grey = rng.standard_normal((*page.shape[:2], 1), np.float32)
    colour = rng.standard_normal(page.shape, np.float32)
    page += noise * (0.85 * grey + 0.5 * colour)
    return (page.clip(0, 1) * 255).round().astype(np.uint8)


def clouds(shape: tuple[int, int], rng: np.random.Generator, *, cells: int) -> Coverage:
    """Smooth random values, float32 [H, W], about -1 to 1, that change over a `cells`-th of the picture."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def as_jpeg(pixels: Pixels, quality: int) -> bytes:
    """The content of a JPEG file of an array, uint8 [H, W] or [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _page_shape(longer: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a picture: upright, square or lying, as people hold their phones."""
    shorter = round(longer * rng.choice((0.5625, 0.75, 1.0)))
    return (longer, shorter) if rng.random() < 0.6 else (shorter, longer)


def _coordinates(shape: tuple[int, int]) -> tuple[Coverage, Coverage]:
    """Rows, [H, 1], and columns, [1, W], from -1 to 1."""
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape)
    return rows[:, None], columns[None]
