"""What was measured: per set and per kind the answers of every image, the figures that follow from them, and tables.

Knows arrays only: not where images come from, nor how the answers were got.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model_export.calibrate import expected_calibration_error
from model_export.judging.asking import Answer, Sample

SYNTHETIC = "synthetic"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SetResult:
    """The answers to one set of digits.

    Attributes:
        name: Of the set or category.
        group: "mnist", "load_digits", "synthetic" or "folder".
        labels: int64 [N], 0 to 9.
        digits: int64 [N], -1 where the service refused the image.
        probabilities: float32 [N, 10], zeros where it did.
        digit_scores: float32 [N], NaN where it did.
        reasons: N of them: "blank", "not a digit", "ambiguous", "refused", or "" for an answer to trust.
        worst: Some that were read wrongly, the surest first, then some that were read rightly but rejected.
    """

    name: str
    group: str
    labels: npt.NDArray[np.int64]
    digits: npt.NDArray[np.int64]
    probabilities: Floats
    digit_scores: Floats
    reasons: tuple[str, ...]
    worst: tuple[tuple[Sample, Answer], ...]

    @property
    def accuracy(self) -> float:
        """Share read rightly, rejected or not, 0 to 1."""
        return float((self.digits == self.labels).mean())

    @property
    def rejected(self) -> float:
        """Share rejected or refused, 0 to 1."""
        return float(np.mean([reason != "" for reason in self.reasons]))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 bins, 0 to 1, of those that were not refused; NaN without any."""
        answered = self.digits >= 0
        if not answered.any():
            return float("nan")
        return expected_calibration_error(
            torch.from_numpy(self.probabilities[answered]), torch.from_numpy(self.labels[answered])
        )

    @property
    def accuracy_by_digit(self) -> tuple[float, ...]:
        """Share read rightly of each digit, 0 to 9; NaN for a digit that the set lacks."""
        right = self.digits == self.labels
        return tuple(
            float(right[self.labels == digit].mean()) if (self.labels == digit).any() else float("nan")
            for digit in range(10)
        )


@dataclass(frozen=True)
class KindResult:
    """The answers to one kind of images that are no digits.

    Attributes:
        name: Of the kind.
        form: "raw", 28x28 in MNIST's convention, or "picture", a file.
        digit_scores: float32 [N], NaN where the service refused the image.
        reasons: As in SetResult.
        auroc: Probability that a digit scores higher than one of these, 0 to 1; NaN where no digits of that form were
            judged with them, and for blank images, which are told by their pixels.
        worst: Some that were not rejected, the most digit-like first.
    """

    name: str
    form: str
    digit_scores: Floats
    reasons: tuple[str, ...]
    auroc: float
    worst: tuple[tuple[Sample, Answer], ...]

    @property
    def rejected(self) -> float:
        """Share rejected or refused, 0 to 1."""
        return float(np.mean([reason != "" for reason in self.reasons]))


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured, and what could not be.

    Attributes:
        model: "name/version" of the model that answered.
        sha256: Of its file, in hexadecimal.
        sets: The digits.
        non_digits: The rest.
        remarks: A line for each set or file that could not be judged, and for each image the service refused: why.
        commit: Of the code of the service that answered, as from `current_commit`; "unknown" for one that ran already.
    """

    model: str
    sha256: str
    sets: tuple[SetResult, ...]
    non_digits: tuple[KindResult, ...]
    remarks: tuple[str, ...]
    commit: str = "unknown"

    def summary(self) -> tuple[SetResult, ...]:
        """The sets, with all categories of the synthetic set as one more, first among them."""
        categories = [result for result in self.sets if result.group == SYNTHETIC]
        if len(categories) < 2:
            return self.sets
        others = [result for result in self.sets if result.group != SYNTHETIC]
        return (*others, pooled(f"{SYNTHETIC}, all", categories), *categories)

    def as_json(self) -> dict[str, Any]:
        """All figures, as plain values; NaN becomes None. Shares are 0 to 1."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "commit": self.commit,
            "remarks": list(self.remarks),
            "sets": [
                {
                    "name": result.name,
                    "group": result.group,
                    "images": len(result.labels),
                    "accuracy": result.accuracy,
                    "rejected": result.rejected,
                    "calibration_error": _or_none(result.calibration_error),
                    "accuracy_by_digit": [_or_none(share) for share in result.accuracy_by_digit],
                    "reasons": dict(Counter(filter(None, result.reasons))),
                }
                for result in self.summary()
            ],
            "non_digits": [
                {
                    "name": result.name,
                    "form": result.form,
                    "images": len(result.reasons),
                    "auroc": _or_none(result.auroc),
                    "rejected": result.rejected,
                    "reasons": dict(Counter(filter(None, result.reasons))),
                    "digit_scores": [_or_none(round(float(score), 3)) for score in result.digit_scores],
                }
                for result in self.non_digits
            ],
        }

    def table(self) -> str:
        """Write the figures down for a human reader."""
        lines = [f"{self.model}, sha256 {self.sha256}, served by commit {self.commit}"]
        if self.sets:
            lines += ["", f"{'digits':<34}{'images':>8}{'right':>10}{'rejected':>10}{'ECE':>9}"]
            lines += [
                f"{result.name:<34}{len(result.labels):>8,}{result.accuracy:>10.2%}{result.rejected:>10.2%}"
                f"{result.calibration_error:>9.2%}"
                for result in self.summary()
            ]
            lines += ["", f"{'right, by digit':<28}" + "".join(f"{digit:>7}" for digit in range(10))]
            lines += [
                f"{result.name:<28}" + "".join(map(_percent, result.accuracy_by_digit))
                for result in self.summary()
                if result.group != SYNTHETIC or result.name.endswith(", all")
            ]
        if self.non_digits:
            lines += ["", f"{'not digits':<24}{'form':<10}{'images':>8}{'AUROC':>9}{'rejected':>10}  mostly as"]
            lines += [_kind_line(result) for result in self.non_digits]
        return "\n".join([*lines, *self.remarks])


def pooled(name: str, results: list[SetResult]) -> SetResult:
    """All images of several sets as one set, without the worst of them."""
    return SetResult(
        name,
        results[0].group,
        labels=np.concatenate([result.labels for result in results]),
        digits=np.concatenate([result.digits for result in results]),
        probabilities=np.concatenate([result.probabilities for result in results]),
        digit_scores=np.concatenate([result.digit_scores for result in results]),
        reasons=tuple(reason for result in results for reason in result.reasons),
        worst=(),
    )


def auroc(digits: Floats, others: Floats) -> float:
    """Return the area under the ROC curve: the probability that a digit scores higher than another image, 0 to 1.

    From the ranks of the digits' scores among the others' (Mann and Whitney 1947), ties counted half. NaN scores, of
    refused images, are left out; NaN where nothing remains of one of the two.
    """
    digits, others = digits[~np.isnan(digits)], others[~np.isnan(others)]
    if not len(digits) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below = np.searchsorted(ordered, digits, side="left")
    not_above = np.searchsorted(ordered, digits, side="right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def _kind_line(result: KindResult) -> str:
    area = "-" if np.isnan(result.auroc) else f"{result.auroc:.4f}"
    reasons = Counter(filter(None, result.reasons)).most_common(1)
    mostly = reasons[0][0] if reasons else "-"
    return f"{result.name:<24}{result.form:<10}{len(result.reasons):>8,}{area:>9}{result.rejected:>10.2%}  {mostly}"


def _percent(share: float) -> str:
    return f"{'-':>7}" if np.isnan(share) else f"{share:>7.1%}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
