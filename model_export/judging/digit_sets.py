"""The sets of digits that a model is judged by, as samples to send: MNIST's test set, load_digits, synthetic, a folder.

Nothing that shapes a model may import this: only `evaluate` and `report` do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from model_export.data import DataError, LabelledImages
from model_export.judging.asking import Sample
from model_export.judging.picture_files import as_png
from model_export.judging.pictures import synthetic

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SINGLE_DIGIT = re.compile(r"(?<![0-9])[0-9](?![0-9])")
LABEL_RULE = (
    "the folder's name if that is a single digit (7/anna.jpg); else the single digit that the file's name begins with "
    "(7.png, 7_anna-2.jpg), or else the only one in it (img-7.png, IMG_2034_7.jpg)"
)


def mnist_raw(test: LabelledImages) -> Iterator[Sample]:
    """MNIST's images as they are, 784 bytes each."""
    for image, label in zip(test.images, test.labels, strict=True):
        yield Sample(image.tobytes(), int(label), raw=True)


def mnist_png(test: LabelledImages) -> Iterator[Sample]:
    """The same images as PNG files."""
    for image, label in zip(test.images, test.labels, strict=True):
        yield Sample(as_png(Image.fromarray(image)), int(label))


def load_digits() -> list[Sample]:
    """The 1,797 digits of 8x8 that come with scikit-learn, as PNG files of 8x8: 0 to 16 becomes 0 to 255, no more.

    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise DataError(
            "scikit-learn, which brings the images, is not installed; run: pip install scikit-learn"
        ) from None
    data = datasets.load_digits()
    grey = (data.images * (255 / 16)).round().astype(np.uint8)
    return [Sample(as_png(Image.fromarray(image)), int(label)) for image, label in zip(grey, data.target, strict=True)]


def pictures(category: str, digits: LabelledImages, count: int, seed: int) -> Iterator[Sample]:
    """A category of the synthetic set."""
    for picture, label in synthetic(category, digits, count, seed=seed):
        yield Sample(picture, label)


def folder_files(folder: Path) -> tuple[list[tuple[Path, int]], list[Path]]:
    """Find the pictures in a folder and the folders in it, and the digit each shows, by `LABEL_RULE`.

    Returns:
        Paths with their labels, and the paths of pictures whose names tell none.

    Raises:
        DataError: It is no folder, or no picture in it has a label.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with image files of digits")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    labels = {path: label_of(path) for path in found}
    labelled = [(path, label) for path, label in labels.items() if label is not None]
    if not labelled:
        raise DataError(
            f"{folder} holds no {', '.join(sorted(PICTURE_SUFFIXES))} file whose digit can be told; it is {LABEL_RULE}"
        )
    return labelled, [path for path, label in labels.items() if label is None]


def label_of(path: Path) -> int | None:
    """Tell the digit a picture shows from its path, by `LABEL_RULE`; None where it does not tell.

    Examples:
        >>> label_of(Path("7/img_3.png")), label_of(Path("scans/7_copy 2.png")), label_of(Path("scans/page 2 no 7.png"))
        (7, 7, None)
    """
    folder = path.absolute().parent.name
    if SINGLE_DIGIT.fullmatch(folder):
        return int(folder)
    found = SINGLE_DIGIT.findall(path.stem)
    # Of several, the first is as likely the number of the page.
    begins_with_it = SINGLE_DIGIT.match(path.stem) is not None
    return int(found[0]) if begins_with_it or len(set(found)) == 1 else None


def folder_samples(files: list[tuple[Path, int]]) -> Iterator[Sample]:
    """Read labelled files."""
    for path, label in files:
        yield Sample(path.read_bytes(), label, name=str(path))
