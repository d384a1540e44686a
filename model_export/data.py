"""MNIST as arrays: finds the four IDX files or fetches them, and refuses by name whatever is not what it should be.

Knows files and numpy only: no network, no training. Training and test images are read by separate calls, and only
what judges a finished model asks for the test images: `verify`, `evaluate` and `report`.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# sha256 of the published .gz files, checked after a download.
GZIP_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# sha256 of what is inside, checked wherever the files come from: it does not change when a file is packed anew.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_COUNTS = {"train": 60_000, "t10k": 10_000}
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
VALIDATION_SHARE = 12  # one image in twelve: 5,000 of MNIST's 60,000
VALIDATION_SEED = 5


class DataError(Exception):
    """The data cannot be used; the text says which file, what was found and what would be right."""


@dataclass(frozen=True)
class LabelledImages:
    """Images and what they show.

    Attributes:
        images: uint8 [N, 28, 28], 0 paper to 255 ink.
        labels: uint8 [N], 0 to 9.
        sha256: of the uncompressed images file followed by the uncompressed labels file.
        is_mnist: whether this is the published MNIST, by its checksums.
    """

    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    sha256: str
    is_mnist: bool


def load_training_images(folder: Path | None) -> LabelledImages:
    """Read the training set from `folder`, or, for None, from where `default_folder` says or a download.

    Raises:
        DataError: A file is missing, wrong, truncated or cannot be downloaded.
    """
    return _load("train", folder)


def load_test_images(folder: Path | None) -> LabelledImages:
    """Read the test set, likewise. Nothing that shapes a model may call this, only what judges one."""
    return _load("t10k", folder)


def validation_split(count: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], ...]:
    """Split `count` images into indices to train on and indices to validate on, int64 each, the same at every call.

    Raises:
        DataError: There are too few to split.
    """
    if count < VALIDATION_SHARE:
        raise DataError(f"the training set holds {count} images; at least {VALIDATION_SHARE} are needed")
    order = np.random.default_rng(VALIDATION_SEED).permutation(count)
    held_out = count // VALIDATION_SHARE
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def load_validation_images(folder: Path | None) -> LabelledImages:
    """Read the part of the training set that validates and is not learnt from."""
    training = load_training_images(folder)
    _, held_out = validation_split(len(training.labels))
    return dataclasses.replace(training, images=training.images[held_out], labels=training.labels[held_out])


def default_folder() -> Path | None:
    """Say where MNIST lies: $DIGITSERVE_DATA, else ../shared/data/mnist beside the repository, else None (download)."""
    if configured := os.environ.get("DIGITSERVE_DATA"):
        return Path(configured)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    return beside if beside.is_dir() else None


def _load(part: str, folder: Path | None) -> LabelledImages:
    folder = folder or default_folder()
    if folder is not None and not folder.is_dir():
        raise DataError(f"the data folder {folder} is not a folder; give one that holds the four MNIST files")
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [download(name) if folder is None else _find(folder, name) for name in names]
    contents = [_read(path) for path in paths]
    images = parse_images(contents[0], paths[0].name)
    labels = parse_labels(contents[1], paths[1].name)
    if len(images) != len(labels):
        raise DataError(f"{paths[0].name} has {len(images)} images but {paths[1].name} has {len(labels)} labels")
    is_mnist = len(images) == MNIST_COUNTS[part]
    if is_mnist:  # As many images as MNIST has: then it must be MNIST, to the last byte.
        for name, path, content in zip(names, paths, contents, strict=True):
            _check_content(path.name, content, CONTENT_SHA256[name])
    return LabelledImages(images, labels, hashlib.sha256(b"".join(contents)).hexdigest(), is_mnist)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(f"{folder} holds neither {name}.gz nor {name}")


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        found = hashlib.sha256(content).hexdigest()
        expected = GZIP_SHA256[path.stem]
        raise DataError(
            f"{path.name} is truncated or no gzip file ({error}): its sha256 is {found}, MNIST's is {expected}"
        ) from None


def _check_content(file_name: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{file_name} is not MNIST's: the sha256 of its uncompressed content is {found}, not {expected}"
        )


def parse_images(content: bytes, file_name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read an IDX file of images: big-endian int32 magic 2051, count, 28, 28, then a byte a pixel; uint8 [N, 28, 28].

    Raises:
        DataError: The magic number, the image size or the length is wrong; names `file_name`.
    """
    _check_header(content, file_name, IMAGES_MAGIC, 16)
    count, height, width = struct.unpack(">3i", content[4:16])
    if (height, width) != (28, 28):
        raise DataError(f"{file_name} holds images of {height}x{width} pixels, expected 28x28")
    _check_length(content, file_name, 16, count, 784)
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, 28, 28)


def parse_labels(content: bytes, file_name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read an IDX file of labels: big-endian int32 magic 2049, count, then a byte a label, 0 to 9; uint8 [N].

    Raises:
        DataError: The magic number, the length or a label is wrong; names `file_name`.
    """
    _check_header(content, file_name, LABELS_MAGIC, 8)
    (count,) = struct.unpack(">i", content[4:8])
    _check_length(content, file_name, 8, count, 1)
    labels = np.frombuffer(content, np.uint8, offset=8)
    if labels.max() > 9:
        raise DataError(f"{file_name} holds the label {labels.max()}, expected 0 to 9")
    return labels


def _check_header(content: bytes, file_name: str, magic: int, header_bytes: int) -> None:
    if len(content) < header_bytes:
        raise DataError(f"{file_name} has {len(content)} bytes, less than its header of {header_bytes}")
    (found,) = struct.unpack(">i", content[:4])
    if found != magic:
        raise DataError(f"{file_name} begins with the magic number {found}, expected {magic}")


def _check_length(content: bytes, file_name: str, header_bytes: int, count: int, item_bytes: int) -> None:
    if count < 1:
        raise DataError(f"{file_name} says that it holds {count} items, expected at least 1")
    expected = header_bytes + count * item_bytes
    if len(content) != expected:
        raise DataError(f"{file_name} has {len(content)} bytes uncompressed, but {count} items need {expected}")


def download(name: str, mirrors: tuple[str, ...] = MIRRORS, cache: Path | None = None) -> Path:
    """Fetch one MNIST file, say "t10k-labels-idx1-ubyte", unless it is in the cache already; show the progress.

    Args:
        name: The file's name without .gz.
        mirrors: Addresses to try one after another, each ending in a slash.
        cache: Where to keep it; None for the operating system's cache folder.

    Returns:
        The path of the .gz file, whose sha256 is right.

    Raises:
        DataError: No mirror had the right file; says what each one answered.
    """
    file_name = f"{name}.gz"
    pooch.get_logger().setLevel(logging.WARNING)  # the progress bar says enough
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=30)
    answers = []
    for mirror in mirrors:
        try:
            path = pooch.retrieve(
                mirror + file_name,
                known_hash=f"sha256:{GZIP_SHA256[name]}",
                fname=file_name,
                path=cache or pooch.os_cache("digitserve"),
                downloader=fetch,
            )
        except (OSError, ValueError) as error:  # not reachable or not found; wrong checksum
            answers.append(f"{mirror}: {' '.join(str(error).split())}")
        else:
            return Path(path)
    raise DataError(f"{file_name} could not be downloaded, expected sha256 {GZIP_SHA256[name]}: {'; '.join(answers)}")
