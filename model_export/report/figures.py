"""The figures of a published model, for its card: what it does on the test set, and what `evaluate` has stored.

Knows no Markdown and no plots.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from model_export.calibrate import CALIBRATION_BINS, expected_calibration_error
from model_export.data import DataError, LabelledImages
from model_export.network import CLASSES
from model_export.report.speed import BATCH_SIZE, microseconds_per_image
from model_export.verify import open_model, run_onnx

if TYPE_CHECKING:
    from pathlib import Path

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """What a model answers on the test set.

    Attributes:
        test: The test set, N images.
        probabilities: float32 [N, 10].
        scores: float32 [N], the digit scores.
        microseconds: Per image, in batches of 32 on one thread of ONNX Runtime.
        runtime: The version of ONNX Runtime.
    """

    test: LabelledImages
    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    microseconds: float
    runtime: str

    @property
    def answers(self) -> Counts:
        """The digits answered, int64 [N]."""
        return np.array(self.probabilities.argmax(axis=1), np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right, bool [N]."""
        return np.equal(self.answers, self.test.labels)

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return float(self.right.mean())

    def accuracy_interval(self) -> tuple[float, float]:
        """Return the bounds between which the accuracy lies with 95 % confidence, each 0 to 1 (Wilson 1927)."""
        z, count = 1.96, len(self.right)
        centre = (self.accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z * math.sqrt(self.accuracy * (1 - self.accuracy) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
        return centre - half, centre + half

    def confusion(self) -> Counts:
        """Count the images by what they show (row) and what was answered (column), int64 [10, 10]."""
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        np.add.at(counts, (self.test.labels, self.answers), 1)
        return counts

    def misread(self) -> Counts:
        """Return the indices of the misread images, the surest mistake first, int64."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")]

    def reliability(self) -> tuple[Counts, Shares, Shares]:
        """Sort the answers into 15 equal bins of confidence: images, mean confidence and accuracy of each, 0 if empty.

        The bins of `calibrate.expected_calibration_error`.
        """
        confidence = self.probabilities.max(axis=1).astype(np.float64)
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        count = np.bincount(bins, minlength=CALIBRATION_BINS)
        filled = np.maximum(count, 1)
        sure = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS) / filled
        return count, sure, np.bincount(bins, weights=self.right, minlength=CALIBRATION_BINS) / filled

    def calibration_error(self) -> float:
        """Return the expected calibration error over 15 bins, 0 to 1."""
        return expected_calibration_error(torch.from_numpy(self.probabilities), torch.tensor(self.test.labels).long())

    def rejected(self, threshold: float) -> float:
        """Return the share of the test images whose digit score is below the threshold, 0 to 1."""
        return float((self.scores < threshold).mean())


def measure(model: bytes, test: LabelledImages) -> Figures:
    """Run the ONNX file on the test set, on one thread, and time it.

    Raises:
        RefusedError: ONNX Runtime cannot load the file.
    """
    session = open_model(model, threads=1)
    import onnxruntime  # not before open_model, which switches its telemetry off

    probabilities, scores = run_onnx(session, test.images, BATCH_SIZE)
    batch = {"image": test.images[:BATCH_SIZE, None]}
    microseconds = microseconds_per_image(lambda: session.run(None, batch))
    return Figures(test, probabilities, scores, microseconds, onnxruntime.__version__)


@dataclass(frozen=True)
class SetRow:
    """How the model does on one set of digits; shares from 0 to 1, the calibration error None where none was asked."""

    name: str
    images: int
    accuracy: float
    rejected: float
    calibration_error: float | None


@dataclass(frozen=True)
class KindRow:
    """How well digit scores tell one kind of non-digits from digits.

    Attributes:
        name: What the images show.
        form: "raw" or "picture".
        images: How many there are.
        auroc: Area under the ROC curve against the digits, 0 to 1; None for what is told otherwise.
        rejected: Share that is rejected, 0 to 1.
        scores: The digit scores, float32 [images].
    """

    name: str
    form: str
    images: int
    auroc: float | None
    rejected: float
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` has stored about the same model, and the commit of the service that answered."""

    sets: tuple[SetRow, ...] = ()
    non_digits: tuple[KindRow, ...] = ()
    commit: str = "unknown"


def read_evaluation(path: Path, sha256: str) -> Evaluation:
    """Read the JSON file that `evaluate` wrote about the model with this sha256; nothing where there is no file.

    Raises:
        DataError: It is about another model, is not JSON, or lacks a figure.
    """
    if not path.exists():
        return Evaluation()
    try:
        content = json.loads(path.read_bytes())
        found = str(content["sha256"])
        sets, kinds = map(_set_row, content["sets"]), map(_kind_row, content["non_digits"])
        evaluation = Evaluation(tuple(sets), tuple(kinds), str(content["commit"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no file of `evaluate`: {type(error).__name__} {error}") from None
    if found != sha256:
        raise DataError(
            f"{path} is about a model with the sha256 {found}, not {sha256}; run: "
            f"python -m model_export evaluate --json {path}"
        )
    return evaluation


def _set_row(entry: dict[str, Any]) -> SetRow:
    error = entry["calibration_error"]
    return SetRow(
        name=str(entry["name"]),
        images=int(entry["images"]),
        accuracy=float(entry["accuracy"]),
        rejected=float(entry["rejected"]),
        calibration_error=None if error is None else float(error),
    )


def _kind_row(entry: dict[str, Any]) -> KindRow:
    scores = [score for score in entry["digit_scores"] if score is not None]
    return KindRow(
        name=str(entry["name"]),
        form=str(entry["form"]),
        images=int(entry["images"]),
        auroc=None if entry["auroc"] is None else float(entry["auroc"]),
        rejected=float(entry["rejected"]),
        scores=np.asarray(scores, np.float32),
    )
