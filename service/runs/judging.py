"""What the model's numbers mean: which digit, how sure, and whether to trust it; for all images of a run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# With less than half of the probability, the best guess is more likely wrong than right.
AMBIGUOUS_BELOW = 0.5
# Contrast, out of 255, below which 28x28 pixels hold no ink.
FAINTEST_INK = 24


@dataclass(frozen=True, slots=True)
class Judged:
    """What the model says about N images.

    Attributes:
        probabilities: Calibrated, float32 of shape (N, 10), each row with the sum 1.
        digit_scores: How much each image looks like any digit, float32 of shape (N,).
        digits: The most probable digit of each image.
        confidences: Its probability.
        ink: Mean of each image, 0 paper to 1 ink.
        rejection_reasons: "blank", "not a digit", "ambiguous", or empty for an answer to trust.
    """

    probabilities: Floats
    digit_scores: Floats
    digits: list[int]
    confidences: list[float]
    ink: list[float]
    rejection_reasons: list[str]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, part: slice) -> Judged:
        return Judged(
            self.probabilities[part],
            self.digit_scores[part],
            self.digits[part],
            self.confidences[part],
            self.ink[part],
            self.rejection_reasons[part],
        )

    def followed_by(self, others: Sequence[Judged]) -> Judged:
        """This and what the model says about further images, as one."""
        parts = (self, *others)
        return Judged(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.digit_scores for part in parts]),
            [digit for part in parts for digit in part.digits],
            [confidence for part in parts for confidence in part.confidences],
            [ink for part in parts for ink in part.ink],
            [reason for part in parts for reason in part.rejection_reasons],
        )


def judge(images: Images, probabilities: Floats, digit_scores: Floats, *, reject_threshold: float) -> Judged:
    """Judge what the model answered.

    Args:
        images: uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink.
        probabilities: The model's answer, float32 of shape (N, 10).
        digit_scores: Likewise, float32 of shape (N,).
        reject_threshold: Digit score below which an image is no digit.

    Raises:
        ValueError: The model did not answer every image.
    """
    if not len(probabilities) == len(digit_scores) == len(images):
        raise ValueError(f"the model answered {len(probabilities)} of {len(images)} images")
    pixels = images.reshape(len(images), -1)
    largest = probabilities.max(1)
    blank, strange, ambiguous = pixels.max(1) < FAINTEST_INK, digit_scores < reject_threshold, largest < AMBIGUOUS_BELOW
    reasons = [""] * len(images)
    # The strongest reason last.
    for doubtful, reason in ((ambiguous, "ambiguous"), (strange, "not a digit"), (blank, "blank")):
        if doubtful.any():
            for index in doubtful.nonzero()[0].tolist():
                reasons[index] = reason
    ink = pixels.sum(1, dtype=np.uint32) / (255 * pixels.shape[1])
    digits: list[int] = probabilities.argmax(1).tolist()
    return Judged(probabilities, digit_scores, digits, largest.tolist(), ink.tolist(), reasons)
