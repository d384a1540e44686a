"""What a network is to learn from a batch, as one number to lower: a teacher the labels, the student its teachers.

The student has an eleventh output, "no digit", which it learns from scribbles. Knows no data set and no schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model_export.augment import distort
from model_export.calibrate import digit_score
from model_export.network import CLASSES, to_input

LABELS_SHARE = 0.1  # of the student's loss on digits; the rest is the teachers'
SOFTENING = 2.0  # what logits are divided by when student and teachers are compared
SCRIBBLES_SHARE = 1 / 8  # scribbles for each digit of a batch


@dataclass(frozen=True)
class FromLabels:
    """The cross entropy with the labels, on distorted images: how a teacher learns.

    Attributes:
        precision: What convolutions and products are computed in; sums, losses and weights stay float32.
    """

    precision: torch.dtype

    def __call__(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of images uint8 [B, 28, 28] with labels int64 [B], both on the network's device."""
        logits = _forward(network, _distorted(images, generator, 1.0), self.precision)
        return F.cross_entropy(logits, labels)


@dataclass(frozen=True)
class FromTeachers:
    """How the student learns: from what its teachers say of the same distorted image, and to tell scribbles apart.

    The teachers' part is distillation (G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network",
    2015): the cross entropy between the mean of the teachers' softened probabilities and the student's, times the
    square of the softening, which keeps the gradients' size. Scribbles are outlier exposure (D. Hendrycks, M. Mazeika,
    T. Dietterich, "Deep anomaly detection with outlier exposure", 2019): the digit score is the log odds of "digit"
    against "no digit", taught by the logistic loss.

    Attributes:
        teachers: Networks with ten logits; without any, the labels teach alone.
        scribbles: uint8 [M, 28, 28], images that are no digits, on the network's device.
        precision: As of `FromLabels`.
        strength: Of the distortion, 0 to 1.
    """

    teachers: tuple[nn.Module, ...]
    scribbles: torch.Tensor
    precision: torch.dtype
    strength: float = 1.0

    def __call__(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of images uint8 [B, 28, 28] with labels int64 [B], both on the network's device."""
        digits = len(labels)
        count = max(1, round(digits * SCRIBBLES_SHARE))
        chosen = torch.randint(len(self.scribbles), (count,), generator=generator).to(images.device)
        inputs = _distorted(torch.cat([images, self.scribbles[chosen]]), generator, self.strength)
        logits = _forward(network, inputs, self.precision)
        scores = digit_score(logits)
        known = F.softplus(-scores[:digits]).mean() + F.softplus(scores[digits:]).mean() * SCRIBBLES_SHARE
        return known + self._reading(logits[:digits, :CLASSES], inputs[:digits], labels)

    def _reading(self, logits: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        by_labels = F.cross_entropy(logits, labels)
        if not self.teachers:
            return by_labels
        with torch.no_grad():
            opinions = [
                torch.softmax(_forward(teacher, inputs, self.precision) / SOFTENING, dim=1) for teacher in self.teachers
            ]
        by_teachers = F.cross_entropy(logits / SOFTENING, torch.stack(opinions).mean(dim=0)) * SOFTENING**2
        return LABELS_SHARE * by_labels + (1 - LABELS_SHARE) * by_teachers


def _distorted(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    return distort(to_input(images), generator, strength).contiguous(memory_format=torch.channels_last)


def _forward(network: nn.Module, inputs: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    with torch.autocast(inputs.device.type, precision, enabled=precision != torch.float32):
        logits: torch.Tensor = network(inputs)
    return logits.float()
