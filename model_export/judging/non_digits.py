"""Images that show no digit, in kinds, to judge with how well a model tells them from digits.

Each kind comes as 28x28 in MNIST's convention, as an image file, or as both made from one drawing. They judge only:
nothing that shapes a model, or chooses its threshold, may import this.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_export.data import LabelledImages
from model_export.judging.paper import Look, blank_page, clouds, photograph_of, sensed
from model_export.judging.picture_files import as_png
from model_export.judging.shapes import garment, letter, symbol
from model_export.judging.strokes import Coverage, Pixels, draw, in_convention

BLANK = "blank"
PHOTOGRAPH = Look()
Grey = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NonDigit:
    """One image in the forms its kind has.

    Attributes:
        raw: uint8 [28, 28], 0 paper to 255 ink, or None.
        picture: The content of an image file, or None.
    """

    raw: Pixels | None = None
    picture: bytes | None = None


Kind = Callable[[LabelledImages, np.random.Generator], NonDigit]


def non_digits(kind: str, digits: LabelledImages, count: int, *, seed: int) -> Iterator[NonDigit]:
    """Make `count` images of a kind; `digits` are what two digits and half digits are made from.

    Every kind has a seed of its own, so that taking one away changes no other.
    """
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode())))
    for _ in range(count):
        yield KINDS[kind](digits, rng)


def blank(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """White, black, one grey, or a photograph of empty paper."""
    shape = (int(rng.integers(28, 400)), int(rng.integers(28, 400)))
    choice = rng.integers(4)
    if choice < 3:
        grey = (255, 0, int(rng.integers(256)))[choice]
        return NonDigit(picture=as_png(Image.fromarray(np.full(shape, grey, np.uint8))))
    page = blank_page(shape, (0.93, 0.92, 0.9), rng) * rng.uniform(0.5, 1)
    return NonDigit(picture=as_png(Image.fromarray(sensed(page, 0.6, rng.uniform(0.004, 0.015), rng))))


def noise(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """Uniform, Gaussian, salt and pepper, or smooth noise with the spectrum 1/f."""
    kind = int(rng.integers(4))
    side = int(rng.integers(40, 200))
    return NonDigit(_as_pixels(_noise((28, 28), kind, rng)), as_png(_image(_noise((side, side), kind, rng))))


def texture(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """A checkerboard, stripes, a weave, wood, a gradient or clouds."""
    kind = int(rng.integers(6))
    side = int(rng.integers(80, 300))
    return NonDigit(_as_pixels(_texture((28, 28), kind, rng)), as_png(_image(_texture((side, side), kind, rng))))


def letters(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """A letter of any font, those shaped like digits aside."""
    return _drawn(letter(rng), rng)


def symbols(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """Punctuation, signs of mathematics, arrows, and simple shapes."""
    return _drawn(symbol(rng), rng)


def clothes(_: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """The outline of a piece of clothing, filled with a pattern."""
    return _drawn(garment(rng), rng)


def two_digits(digits: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """Two digits side by side, close to each other but apart."""
    left, right = (draw(digits.images[index], 150) for index in rng.integers(len(digits.labels), size=2))
    gap = int(rng.integers(8, 50))
    height = max(len(left), len(right))
    page = np.zeros((height, left.shape[1] + gap + right.shape[1]), np.float32)
    page[(height - len(left)) // 2 :][: len(left), : left.shape[1]] = left
    page[(height - len(right)) // 2 :][: len(right), left.shape[1] + gap :] = right
    return _drawn(page, rng)


def half_digit(digits: LabelledImages, rng: np.random.Generator) -> NonDigit:
    """A digit whose upper, lower, left or right half is blank, where it stood in its 28x28 frame.

    Some halves are digits themselves: the upper half of a 9 is a 0, and half of a 1 is a short 1.
    """
    image = digits.images[rng.integers(len(digits.labels))].copy()
    halves = (np.s_[:14], np.s_[14:], np.s_[:, :14], np.s_[:, 14:])
    image[halves[rng.integers(4)]] = 0
    return NonDigit(raw=image)


KINDS: Mapping[str, Kind] = {
    BLANK: blank,
    "noise": noise,
    "letters": letters,
    "symbols": symbols,
    "clothes": clothes,
    "two_digits": two_digits,
    "half_digits": half_digit,
    "textures": texture,
}


def _drawn(drawing: Coverage, rng: np.random.Generator) -> NonDigit:
    """A drawing in MNIST's convention, and a photograph of it on paper."""
    shape = tuple(int(length * rng.uniform(1.5, 2.2)) + 30 for length in drawing.shape)
    return NonDigit(in_convention(drawing), photograph_of(drawing, (shape[0], shape[1]), rng, PHOTOGRAPH))


def _noise(shape: tuple[int, int], kind: int, rng: np.random.Generator) -> Grey:
    """Noise, float32 [H, W], 0 to 1."""
    if kind == 0:
        return rng.random(shape, np.float32)
    if kind == 1:
        return (0.5 + 0.2 * rng.standard_normal(shape, np.float32)).clip(0, 1)
    if kind == 2:
        return (rng.random(shape) < rng.uniform(0.05, 0.5)).astype(np.float32)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[1]), np.fft.fftfreq(shape[0])))
    spectrum = np.fft.fft2(rng.standard_normal(shape)) / np.maximum(frequency, 1 / max(shape))
    return _stretched(np.fft.ifft2(spectrum).real)


def _texture(shape: tuple[int, int], kind: int, rng: np.random.Generator) -> Grey:
    """A texture, float32 [H, W], 0 to 1."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    angle, waves, phase = rng.uniform(0, np.pi), rng.uniform(2.5, 8), rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * rows + np.sin(angle) * columns
    along = np.cos(angle) * columns - np.sin(angle) * rows
    if kind == 0:
        return _stretched(
            np.sign(np.sin(2 * np.pi * waves * across + phase) * np.sin(2 * np.pi * waves * along + phase))
        )
    if kind == 1:
        return _stretched(np.sin(2 * np.pi * waves * across + phase))
    if kind == 2:
        return _stretched(np.maximum(np.sin(2 * np.pi * waves * across), np.sin(2 * np.pi * waves * along + phase)))
    if kind == 3:
        return _stretched(np.sin(2 * np.pi * waves * across + 2 * clouds(shape, rng, cells=4)))
    if kind == 4:
        return _stretched(across)
    return _stretched(clouds(shape, rng, cells=int(rng.integers(4, 9))))


def _stretched(values: npt.NDArray[np.floating]) -> Grey:
    return np.asarray((values - values.min()) / np.ptp(values), np.float32)


def _as_pixels(grey: Grey) -> Pixels:
    return (grey * 255).round().astype(np.uint8)


def _image(grey: Grey) -> Image.Image:
    return Image.fromarray(_as_pixels(grey))
