"""The sets of digits as samples: labels from names, and pictures that are as they were."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from model_export.data import DataError
from model_export.judging import digit_sets
from tests.training import small_set


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("scans/7.png", 7),
        ("scans/7_anna.jpg", 7),
        ("scans/img-7.png", 7),
        ("scans/IMG_2034_7.jpg", 7),
        ("scans/digit3.png", 3),
        ("scans/4-2.png", 4),
        ("scans/page-2-4.png", None),
        ("scans/page-4-4.png", 4),
        ("7/anna.jpg", 7),
        ("7/3.jpg", 7),
        ("2024/5.jpg", 5),
        ("scans/seven.png", None),
        ("scans/img_2034.png", None),
        ("scans/٣.png", None),
    ],
)
def test_the_digit_is_told_by_the_folder_or_else_by_the_file_name(path: str, label: int | None) -> None:
    assert digit_sets.label_of(Path(path)) == label


def test_a_folder_is_searched_through_and_what_tells_no_digit_is_returned(tmp_path: Path) -> None:
    for name in ("7/anna.jpg", "b/2.PNG", "b/unknown.png", "notes_3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    files, unlabelled = digit_sets.folder_files(tmp_path)
    assert files == [(tmp_path / "7/anna.jpg", 7), (tmp_path / "b/2.PNG", 2)]
    assert unlabelled == [tmp_path / "b/unknown.png"]
    samples = list(digit_sets.folder_samples(files))
    assert [(sample.image, sample.label) for sample in samples] == [(b"7/anna.jpg", 7), (b"b/2.PNG", 2)]
    assert samples[0].name == str(tmp_path / "7/anna.jpg")


def test_a_folder_that_is_none_or_holds_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing is not a folder; give one with image files"):
        digit_sets.folder_files(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds no \.bmp, \.gif.* whose digit can be told; it is the folder's name"):
        digit_sets.folder_files(tmp_path)


def test_load_digits_are_all_there_as_they_are() -> None:
    samples = digit_sets.load_digits()
    data = datasets.load_digits()
    assert [sample.label for sample in samples] == data.target.tolist()
    for sample, image in zip(samples[:50], data.images[:50], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)))
        assert pixels.shape == (8, 8)
        assert np.abs(pixels - image * 255 / 16).max() <= 0.5


def test_without_scikit_learn_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match="scikit-learn, which brings the images, is not installed; run: pip install"):
        digit_sets.load_digits()


def test_mnist_is_sent_raw_and_as_files() -> None:
    test = small_set("t10k", 5)
    raw, files = list(digit_sets.mnist_raw(test)), list(digit_sets.mnist_png(test))
    for image, sample, file in zip(test.images, raw, files, strict=True):
        assert sample.raw and sample.image == image.tobytes()
        assert not file.raw and np.array_equal(np.asarray(Image.open(io.BytesIO(file.image))), image)
    assert [sample.label for sample in raw] == [sample.label for sample in files] == test.labels.tolist()
