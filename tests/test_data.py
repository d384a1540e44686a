"""MNIST's files: read strictly, found, downloaded from the next mirror, refused by name."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from model_export import data
from model_export.data import (
    DataError,
    default_folder,
    download,
    load_test_images,
    load_training_images,
    parse_images,
    parse_labels,
    validation_split,
)
from tests.mnist_files import TEST_DIGITS, small_digits, write_idx, write_small_mnist

LABELS = "t10k-labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small set in MNIST's files."""
    return write_small_mnist(tmp_path / "data")


def test_the_small_set_is_read_back(folder: Path) -> None:
    for part, load in (("train", load_training_images), ("t10k", load_test_images)):
        found = load(folder)
        images, labels = small_digits(part)
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, labels)
        assert not found.is_mnist
    assert len(load_test_images(folder).labels) == TEST_DIGITS


def test_unpacked_files_are_read_too_and_have_the_same_checksum(folder: Path) -> None:
    packed = load_training_images(folder)
    for path in list(folder.glob("train-*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_training_images(folder).sha256 == packed.sha256


def test_mnist_is_recognised(mnist: Path) -> None:
    train, test = load_training_images(mnist), load_test_images(mnist)
    assert train.is_mnist and test.is_mnist
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_as_many_images_as_mnist_has_must_be_mnist(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((10_000, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(10_000, np.uint8))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is not MNIST's: the sha256 of .* is \w{64}, not"):
        load_test_images(tmp_path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither train-images-idx3-ubyte\.gz nor train-images-idx3-ubyte"):
        load_training_images(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_training_images(tmp_path / "missing")


def test_more_images_than_labels(folder: Path) -> None:
    write_idx(folder / f"{LABELS}.gz", small_digits("t10k")[1][:-1])
    with pytest.raises(DataError, match=r"has 397 images but t10k-labels-idx1-ubyte\.gz has 396 labels"):
        load_test_images(folder)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-20], lambda packed: b"hello", lambda packed: b""])
def test_a_truncated_or_foreign_file_is_refused_by_name(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / f"{LABELS}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz"):
        load_test_images(folder)


def images_file(magic: int = 2051, count: int = 1, height: int = 28, width: int = 28, pixels: int = 784) -> bytes:
    return struct.pack(">4i", magic, count, height, width) + bytes(pixels)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "has 0 bytes, less than its header of 16"),
        (images_file(magic=2049), "begins with the magic number 2049, expected 2051"),
        (images_file(height=20), "holds images of 20x28 pixels, expected 28x28"),
        (images_file(count=2), "has 800 bytes uncompressed, but 2 items need 1584"),
        (images_file(pixels=785), "has 801 bytes uncompressed, but 1 items need 800"),
        (images_file(count=-1), "says that it holds -1 items, expected at least 1"),
    ],
)
def test_a_wrong_images_file_is_refused_with_the_reason(content: bytes, text: str) -> None:
    with pytest.raises(DataError) as error:
        parse_images(content, "the-file.gz")
    assert str(error.value) == f"the-file.gz {text}"


def test_a_label_that_is_no_digit() -> None:
    with pytest.raises(DataError, match="holds the label 10, expected 0 to 9"):
        parse_labels(struct.pack(">2i", 2049, 2) + bytes([9, 10]), "labels")


def test_the_validation_part_is_one_in_twelve_and_always_the_same() -> None:
    train, validation = validation_split(60_000)
    assert (len(train), len(validation)) == (55_000, 5_000)
    assert set(train) | set(validation) == set(range(60_000))
    np.testing.assert_array_equal(validation, validation_split(60_000)[1])
    with pytest.raises(DataError, match="the training set holds 11 images; at least 12 are needed"):
        validation_split(11)


def test_where_mnist_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIGITSERVE_DATA", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("DIGITSERVE_DATA")
    monkeypatch.setattr(data, "__file__", str(tmp_path / "clone" / "model_export" / "data.py"))
    assert default_folder() is None
    (tmp_path / "shared" / "data" / "mnist").mkdir(parents=True)
    assert default_folder() == tmp_path / "shared" / "data" / "mnist"


class Mirrors:
    """Folders served over HTTP, as mirrors are."""

    def __init__(self, root: Path):
        handler = functools.partial(QuietHandler, directory=str(root))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.root = root

    def put(self, name: str, content: bytes | None) -> str:
        """Make a mirror with this labels file, or with none; returns its address."""
        (self.root / name).mkdir()
        if content is not None:
            (self.root / name / f"{LABELS}.gz").write_bytes(content)
        return f"http://127.0.0.1:{self._server.server_port}/{name}/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[Mirrors]:
    (tmp_path / "mirrors").mkdir()
    served = Mirrors(tmp_path / "mirrors")
    yield served
    served.close()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file that counts as MNIST's, by its checksum."""
    content = gzip.compress(b"the labels" * 1000, mtime=0)
    monkeypatch.setitem(data.GZIP_SHA256, LABELS, hashlib.sha256(content).hexdigest())
    return content


def test_the_next_mirror_is_tried_and_the_file_is_kept(
    mirrors: Mirrors, published: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = (
        mirrors.put("without", None),
        mirrors.put("truncated", published[:-1]),
        "http://127.0.0.1:1/",
        mirrors.put("good", published),
    )
    path = download(LABELS, addresses, tmp_path / "cache")
    assert path.read_bytes() == published
    assert "100%" in capsys.readouterr().err
    (mirrors.root / "good" / path.name).unlink()
    assert download(LABELS, addresses, tmp_path / "cache") == path


def test_no_mirror_with_the_right_file_is_refused_with_every_answer(
    mirrors: Mirrors, published: bytes, tmp_path: Path
) -> None:
    addresses = (mirrors.put("without", None), mirrors.put("wrong", b"something else"))
    with pytest.raises(DataError) as error:
        download(LABELS, addresses, tmp_path / "cache")
    assert f"{LABELS}.gz" in str(error.value)
    assert "404" in str(error.value) and data.GZIP_SHA256[LABELS] in str(error.value)
    assert not list((tmp_path / "cache").glob("*.gz"))


def test_without_a_folder_the_files_are_downloaded(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(data, "default_folder", lambda: None)
    monkeypatch.setattr(data, "download", lambda name: folder / f"{name}.gz")
    assert len(load_test_images(None).labels) == TEST_DIGITS
    assert len(data.MIRRORS) >= 2
