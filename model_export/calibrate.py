"""Turns logits into honest numbers: a temperature, a score of how much an image is a digit, and where to reject.

Knows logits and labels only: no images, no files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from model_export.network import CLASSES

REJECTED_SHARE = 0.01  # of true digits, those that look least like one
CALIBRATION_BINS = 15


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the T > 0 for which softmax(logits / T) gives the labels the highest likelihood.

    C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017. The negative
    log-likelihood is convex in 1/T and so has one minimum over log T too, which a golden-section search brackets.

    Args:
        logits: float32 [N, 10], the digits', of images that were not trained on.
        labels: int64 [N].

    Returns:
        The temperature, between 0.1 and 10, to about six digits.
    """

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits.double() / math.exp(log_temperature), labels).item()

    shrink = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.1), math.log(10.0)
    while high - low > 1e-6:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def digit_score(logits: torch.Tensor) -> torch.Tensor:
    """Say how much each image looks like any digit: the log of the odds of "digit" against "no digit".

    With the softmax over all eleven logits these odds are sum(exp(z_0..z_9)) / exp(z_10), so that the score is the
    logsumexp of the digits' logits minus the logit of "no digit". The first part alone is the negative energy of
    W. Liu, X. Wang, J. Owens, Y. Li, "Energy-based out-of-distribution detection", NeurIPS 2020. Of the logits as the
    network gives them, since dividing them by the temperature first would blur the difference.

    Args:
        logits: float32 [N, 11], the digits' and last that of "no digit".

    Returns:
        float32 [N], higher is more like a digit; 0 is as likely a digit as not.
    """
    return torch.logsumexp(logits[:, :CLASSES], dim=1) - logits[:, CLASSES]


def reject_threshold(scores: torch.Tensor) -> float:
    """Return the digit_score that 99 % of these digits' scores, float32 [N], reach."""
    return torch.quantile(scores.double(), REJECTED_SHARE).item()


def expected_calibration_error(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence, 0 to 1 (Guo et al. 2017).

    Args:
        probabilities: float32 [N, 10].
        labels: int64 [N].
    """
    confidence, digits = probabilities.double().max(dim=1)
    right = (digits == labels).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gap = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, confidence - right)
    return gap.abs().sum().item() / len(labels)
