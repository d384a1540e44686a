"""Image files -> 28x28 pixels as the network was taught to see them.

MNIST's convention: light ink (255) on dark paper (0), the digit scaled so
that its longer side is 20 pixels, its centre of mass in the middle of 28x28
(LeCun et al., "The MNIST database"). An image that already follows it passes
unchanged, bit for bit, and so does its negative. What this file does is
decode; how ink is told from paper is in `ink`. It knows nothing of the model.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading
import warnings
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from service.errors import InvalidImage
from service.pictures.convention import SIDE, follows_convention, to_convention
from service.pictures.envelope import LARGEST_EXIF_BYTES, is_read_by_rows, webp_size, without_ballast
from service.pictures.ink import find_ink
from service.pictures.steps import Note, unnoted

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Pixels beyond this are averaged away before anything else: a digit that fills a twentieth of it still has 25.
LARGEST_SIDE = 512
# A JPEG is decoded at the fraction that leaves at least this: an eighth of 4,000 pixels, as phones have them.
DRAFT_SIDE = 500
# Pictures with more pixels, unless they are decoded at a fraction, are decoded one at a time: up to 16 bytes a pixel.
LARGE_PIXELS = 4_000_000
# Where Pillow finds how a picture is to be turned, besides TIFF's own tags; looking there is a third of decoding 28x28.
ORIENTATIONS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
# A picture with less contrast than this, out of 255, shows nothing as it is.
FAINTEST_DRAWING = 24
# Pillow keeps 8 bytes for every row.
LONGEST_SIDE = 20_000


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads image files within limits.

    Attributes:
        max_bytes: Most bytes a file may have.
        max_pixels: Most pixels (width times height) an image may have.
    """

    max_bytes: int
    max_pixels: int
    _large: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # They say less than our errors do, and Python keeps each text that a file made up.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        # So does libtiff, on stderr and by itself: a thread that reads a file would wait for whoever reads that.
        with contextlib.suppress(AttributeError, OSError):  # of a Pillow without it
            ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

    def read(self, data: bytes, note: Note = unnoted) -> Pixels:
        """What the network sees of an image file.

        Args:
            data: A PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF file.
            note: Is shown the pictures on the way.

        Returns:
            uint8 of shape (28, 28), 0 paper to 255 ink. All zeros when the
            image shows no ink.

        Raises:
            InvalidImage: The file is empty, over a limit, of another format
                or damaged.
        """
        self.check_size(data)
        picture = self._decode(data)
        note("picture", picture)
        seen = _normalised(picture, note)
        note("seen", seen)
        return seen

    def check_size(self, data: bytes) -> None:
        """Refuse a file that is empty or has too many bytes.

        Raises:
            InvalidImage: It is one of the two.
        """
        if not data:
            raise InvalidImage("the image is empty: 0 bytes")
        if len(data) > self.max_bytes:
            raise InvalidImage(f"the image has {len(data)} bytes, the limit is {self.max_bytes} (--max-image-bytes)")

    def _decode(self, data: bytes) -> Pixels:
        """Decode to grey or colours, after looking at the size the header claims."""
        try:
            if size := webp_size(data):
                self._check_pixels(*size)
            picture = without_ballast(data)
            with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
                self._check_pixels(image.width, image.height)
                is_reduced = image.format == "JPEG" and is_read_by_rows(picture)
                is_large = image.width * image.height > LARGE_PIXELS and not is_reduced
                with self._large if is_large else contextlib.nullcontext():
                    return _to_picture(image)
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
        if max(width, height) > LONGEST_SIDE:
            raise InvalidImage(f"the image has {width} x {height} pixels; a side has at most {LONGEST_SIDE}")


def _normalised(picture: Pixels, note: Note) -> Pixels:
    """Grey or colours -> 28x28."""
    if follows_convention(picture):
        return picture
    if follows_convention(negative := 255 - picture):
        return negative
    ink = find_ink(picture, note)
    return np.zeros((SIDE, SIDE), np.uint8) if ink is None else to_convention(ink, note)


def _to_picture(image: Image.Image) -> Pixels:
    """Grey or colours, upright, without transparency, its longer side at most `LARGEST_SIDE`."""
    # A JPEG is decoded at a fraction of its size, which saves most of the work and of the memory.
    scale = DRAFT_SIDE / max(image.size)
    image.draft(None, (round(image.width * scale), round(image.height * scale)))
    if len(image.info.get("exif", b"")) > LARGEST_EXIF_BYTES:
        del image.info["exif"]
    image.load()
    if not ORIENTATIONS.isdisjoint(image.info) or image.format == "TIFF":
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    transparent = image.has_transparency_data
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if transparent else "L" if image.mode == "1" else "RGB")
    elif transparent and image.mode in ("L", "RGB"):
        image = image.convert("RGBA")
    if (longer_side := max(image.size)) > LARGEST_SIDE:
        image = image.reduce(-(-longer_side // LARGEST_SIDE))
    picture = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        picture = _on_paper(picture)
    is_grey = picture.ndim == 2 or all(np.array_equal(picture[..., 0], picture[..., other]) for other in (1, 2))
    return picture[..., 0] if is_grey and picture.ndim == 3 else picture


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey values to 0 to 255 by the smallest usual range that holds them; convert("L") would clamp them."""
    brightest = float(image.getextrema()[1])  # type: ignore[arg-type]
    if (longer_side := max(image.size)) > LARGEST_SIDE:
        image = (image if image.mode in ("I", "F") else image.convert("I")).reduce(-(-longer_side // LARGEST_SIDE))
    wide = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    if not np.isfinite(brightest):
        brightest = float(wide.max())
    full = next((full for full in (1, 255, 4095, 65535) if brightest <= full), brightest)
    darkest, lightest = np.quantile(wide, [0.001, 0.999])
    if 0 < (lightest - darkest) * (255 / full) < FAINTEST_DRAWING:
        # Eight bits of the whole range would leave little of it.
        wide, full = wide - np.float32(darkest), float(lightest - darkest)
    return Image.fromarray((wide * (255 / full)).clip(0, 255).astype(np.uint8))


def _on_paper(picture: Pixels) -> Pixels:
    """Lay a partly transparent picture on paper: its own if its opaque part has some, else one its ink stands out from.

    Args:
        picture: uint8 (height, width, 2 or 4), the last channel alpha.
    """
    if picture[..., -1].min() == 255:
        return picture[..., 0] if picture.shape[-1] == 2 else picture[..., :-1]
    colours, alpha = picture[..., :-1].astype(np.float32), picture[..., -1:].astype(np.float32) / 255
    opaque = picture[..., -1] > 200
    ink = (colours * alpha).sum((0, 1)) / max(float(alpha.sum()), 1e-6)
    paper = np.full(colours.shape[-1], 0 if ink.mean() > 127 else 255, np.float32)
    if opaque.any():
        most = np.median(colours[opaque], axis=0)
        edge = _edge(opaque)
        lighter = float((np.median(colours[edge], axis=0) - most).mean()) if edge.any() else 0.0
        if abs(lighter) > 30:
            # The strokes' edges were blended with the paper they stood on, before that was made transparent.
            paper[:] = 255 if lighter > 0 else 0
        elif colours[opaque].std(0).max() > 30 or opaque.mean() > 0.5:
            paper = most
    laid: Pixels = (paper + (colours - paper) * alpha).round().astype(np.uint8)
    if np.ptp(laid) < FAINTEST_DRAWING:
        # The drawing is what was cut out of a sheet.
        paper[:] = 0 if paper.mean() > 127 else 255
        laid = (paper + (colours - paper) * alpha).round().astype(np.uint8)
    return laid[..., 0] if laid.shape[-1] == 1 else laid


def _edge(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a mask that have a neighbour outside it; beyond the picture nothing is outside."""
    padded = np.pad(mask, 1, constant_values=True)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
