"""Handwritten digits for the tests: MNIST where it is found, and a small set in its format where it is not.

The small set are the 1,797 digits of 8x8 pixels that come with scikit-learn
(E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI),
brought to MNIST's size: since a user's clone has no MNIST.
"""

from __future__ import annotations

import functools
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

Pixels = npt.NDArray[np.uint8]

TEST_DIGITS = 397


def find_mnist() -> Path | None:
    """The folder with MNIST's four files, or None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("DIGITSERVE_DATA", beside))
    return folder if (folder / "t10k-images-idx3-ubyte.gz").exists() else None


def read_images(folder: Path, part: str) -> Pixels:
    """The images of "train" or "t10k", uint8 (N, 28, 28)."""
    content = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def read_labels(folder: Path, part: str) -> Pixels:
    """The labels of "train" or "t10k", uint8 (N,)."""
    content = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=8)


@functools.cache
def small_digits(part: str) -> tuple[Pixels, Pixels]:
    """The small set's images, uint8 (N, 28, 28), and labels, uint8 (N,), of "train" (1,400) or "t10k" (397)."""
    data = load_digits()
    chosen = slice(TEST_DIGITS) if part == "t10k" else slice(TEST_DIGITS, None)
    images = np.stack([in_convention(image) for image in data.images[chosen]])
    return images, data.target[chosen].astype(np.uint8)


def in_convention(image: npt.NDArray[np.float64]) -> Pixels:
    """An 8x8 digit, 0 to 16, as MNIST has them: 20 pixels on the longer side, centred by mass in 28x28."""
    rows, columns = np.nonzero(image > 2)
    ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = 20 / max(ink.shape)
    size = round(ink.shape[1] * scale), round(ink.shape[0] * scale)
    large = Image.fromarray((ink * (255 / 16)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    digit = np.asarray(large, np.float64)
    # Edge rows that the enlargement left empty would make the digit smaller than it counts.
    digit = np.clip(digit, 1, None) * (255 / digit.max())
    weights = digit / digit.sum()
    row, column = weights.sum(1) @ np.arange(size[1]), weights.sum(0) @ np.arange(size[0])
    top, left = np.clip([round(14 - row), round(14 - column)], 0, [28 - size[1], 28 - size[0]])
    field = np.zeros((28, 28), np.uint8)
    field[top : top + size[1], left : left + size[0]] = digit.round()
    return field


def write_small_mnist(folder: Path) -> Path:
    """Write the small set as MNIST's four files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        images, labels = small_digits(part)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def write_idx(path: Path, values: Pixels) -> None:
    """Write an array of bytes as a gzip-compressed IDX file."""
    header = struct.pack(f">{values.ndim + 1}I", 0x800 + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))
