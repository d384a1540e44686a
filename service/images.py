"""Image files -> 28x28 pixels as the network was taught to see them.

MNIST's convention: light ink (255) on dark paper (0), the digit scaled so
that its longer side is 20 pixels, its centre of mass in the middle of 28x28
(LeCun et al., "The MNIST database"). An image that already follows it passes
unchanged, bit for bit. The only file of the server that knows Pillow; it
knows nothing of the model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import InvalidImage

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SIDE = 28
DIGIT_SIDE = 20
# Pixels beyond this are averaged away before anything else: a digit that fills a tenth of it is still five times 20.
LARGEST_SIDE = 1024
# Contrast, out of 255, below which a picture holds no ink worth enlarging.
FAINTEST_INK = 24


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads image files within limits.

    Attributes:
        max_bytes: Most bytes a file may have.
        max_pixels: Most pixels (width times height) an image may have.
    """

    max_bytes: int
    max_pixels: int

    def read(self, data: bytes) -> Pixels:
        """What the network sees of an image file.

        Args:
            data: A PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF file.

        Returns:
            uint8 of shape (28, 28), 0 paper to 255 ink. All zeros when the
            image shows no ink.

        Raises:
            InvalidImage: The file is empty, over a limit, of another format
                or damaged.
        """
        self.check_size(data)
        return normalise(self._grey(data))

    def check_size(self, data: bytes) -> None:
        """Refuse a file that is empty or has too many bytes.

        Raises:
            InvalidImage: It is one of the two.
        """
        if not data:
            raise InvalidImage("the image is empty: 0 bytes")
        if len(data) > self.max_bytes:
            raise InvalidImage(f"the image has {len(data)} bytes, the limit is {self.max_bytes} (--max-image-bytes)")

    def _grey(self, data: bytes) -> Pixels:
        """Decode to one grey channel, after looking at the size the header claims."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_pixels(image.width, image.height)
                return _to_grey(image)
        except InvalidImage:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InvalidImage(
                f"the image claims far more pixels than the limit of {self.max_pixels} (--max-image-pixels)"
            ) from None
        except UnidentifiedImageError:
            raise InvalidImage(
                f"the {len(data)} bytes are no image the server can read; it reads {', '.join(FORMATS)} files, "
                "and 784 raw bytes as IMAGE_FORMAT_RAW_28X28"
            ) from None
        # Pillow's plug-ins raise almost any type on damaged files.
        except Exception:
            raise InvalidImage(
                f"the image file of {len(data)} bytes is damaged, incomplete or of an unusual kind"
            ) from None

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise InvalidImage(
                f"the image has {width} x {height} = {width * height} pixels, "
                f"the limit is {self.max_pixels} (--max-image-pixels)"
            )


def _to_grey(image: Image.Image) -> Pixels:
    """One grey channel, upright, without transparency, its longer side at most `LARGEST_SIDE`."""
    # A JPEG is decoded at a fraction of its size, which saves most of the work and of the memory.
    image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bits(np.asarray(image, np.float32)))
    image = image.convert("LA" if image.has_transparency_data else "L")
    if (longer_side := max(image.size)) > LARGEST_SIDE:
        image = image.reduce(-(-longer_side // LARGEST_SIDE))
    return _on_paper(image) if image.mode == "LA" else np.array(image)


def _to_8_bits(wide: npt.NDArray[np.float32]) -> Pixels:
    """Scale grey values to 0 to 255 by the smallest usual range that holds them; convert("L") would clamp them."""
    wide = np.nan_to_num(wide, posinf=0, neginf=0)
    brightest = float(wide.max())
    full = next((full for full in (1, 255, 4095, 65535) if brightest <= full), brightest)
    return (wide * (255 / full)).clip(0, 255).astype(np.uint8)


def _on_paper(image: Image.Image) -> Pixels:
    """Lay a partly transparent picture on paper: its own if most of it is opaque, else one its ink stands out from."""
    grey, alpha = np.moveaxis(np.asarray(image, np.float32), -1, 0)
    opaque = alpha > 127
    if opaque.mean() > 0.5:
        paper = np.median(grey[opaque])
    else:
        ink = (grey * alpha).sum() / max(alpha.sum(), 1)
        paper = np.float32(0 if ink > 127 else 255)
    laid: Pixels = (paper + (grey - paper) * (alpha / 255)).round().astype(np.uint8)
    return laid


def normalise(grey: Pixels) -> Pixels:
    """Bring a grey picture of one digit into MNIST's convention.

    Args:
        grey: uint8 of shape (height, width), either polarity.

    Returns:
        uint8 of shape (28, 28), 0 paper to 255 ink.

    Examples:
        >>> normalise(np.full((100, 60), 255, np.uint8)).max()
        np.uint8(0)
    """
    if follows_convention(grey):
        return grey
    ink = _ink(grey)
    if ink is None:
        return np.zeros((SIDE, SIDE), np.uint8)
    return _centre(_fit(_crop(ink)))


def follows_convention(grey: Pixels) -> bool:
    """Whether a picture already looks as MNIST's do.

    True for all 70,000 images of MNIST: 28x28, paper exactly 0, the ink's
    longer side 19 or 20 pixels, its strongest pixel at least 254, its centre
    of mass within half a pixel of (14, 14).
    """
    if grey.shape != (SIDE, SIDE) or grey.max() < 254:
        return False
    rows, columns = np.nonzero(grey)
    longer_side = max(np.ptp(rows), np.ptp(columns)) + 1
    if longer_side not in (DIGIT_SIDE - 1, DIGIT_SIDE):
        return False
    return all(13.4 < centre < 14.6 for centre in _centre_of_mass(grey))


def _ink(grey: Pixels) -> npt.NDArray[np.float32] | None:
    """Ink as 0 to 255 on paper of 0, whichever of the two was dark; None without any."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = float(np.median(border))
    difference = grey.astype(np.float32) - paper
    # The farther end of the range is ink: dark ink on light paper, or the reverse.
    ink = -difference if -difference.min() > difference.max() else difference
    strongest = float(ink.max())
    if strongest < FAINTEST_INK:
        return None
    # Below a quarter of the strongest ink lie paper grain, shadows and JPEG rings.
    floor = strongest / 4
    return ((ink - floor) * (255 / (strongest - floor))).clip(0, 255).astype(np.float32)


def _crop(ink: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rows, columns = np.nonzero(ink)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _fit(ink: npt.NDArray[np.float32]) -> Pixels:
    """Scale so that the longer side is 20 pixels, keeping the shape."""
    height, width = ink.shape
    scale = DIGIT_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    # In float32: a speck that 8 bits would round away must not leave an empty picture.
    small = np.asarray(Image.fromarray(ink).resize(size, resample)).clip(0)
    # Thin strokes grow faint when averaged; MNIST's are white in the middle.
    whitened: Pixels = (small * (255 / small.max())).round().astype(np.uint8)
    return whitened


def _centre(digit: Pixels) -> Pixels:
    """Place a digit of at most 20x20 in 28x28 with its centre of mass in the middle."""
    height, width = digit.shape
    row, column = _centre_of_mass(digit)
    top = min(max(round(SIDE / 2 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - column), 0), SIDE - width)
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + height, left : left + width] = digit
    return field


def _centre_of_mass(ink: Pixels) -> tuple[float, float]:
    """Row and column of the centre of mass, in pixels from the top left pixel's middle."""
    weights = ink.astype(np.float64)
    total = weights.sum()
    rows, columns = ink.shape
    return float(weights.sum(1) @ np.arange(rows) / total), float(weights.sum(0) @ np.arange(columns) / total)
