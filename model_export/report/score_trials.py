"""What else could tell digits from the rest, tried on the same network: the reason why the digit score is what it is.

Knows no Markdown and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from model_export.calibrate import digit_score
from model_export.data import LabelledImages
from model_export.judging.judged import auroc
from model_export.judging.non_digits import KINDS, non_digits
from model_export.learner import predict
from model_export.network import CLASSES

IMAGES, SEED = 60, 1  # of each kind; drawing them takes most of the time
Score = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """One way to score images, and how well it tells each kind of non-digits from digits.

    Attributes:
        name: For a human reader.
        auroc: Area under the ROC curve by kind, 0 to 1, all in raw form.
    """

    name: str
    auroc: dict[str, float]


def try_scores(network: nn.Sequential, test: LabelledImages, validation: LabelledImages) -> tuple[Trial, ...]:
    """Score the test digits against each kind of non-digits that has a raw form.

    The candidates, higher for digits: the largest softmax probability (D. Hendrycks, K. Gimpel, ICLR 2017), the
    negative energy (W. Liu et al., NeurIPS 2020), the negative distance to the nearest mean of a class in the layer
    before the last (after K. Lee et al., NeurIPS 2018, the covariance taken for the identity), and the digit score.

    Args:
        network: As trained, its last layer giving eleven logits.
        test: Digits to tell from the rest.
        validation: Digits that the class means, two digits and half digits are made of.
    """
    features = network[:-1]
    labels = torch.tensor(validation.labels).long()
    inner = predict(features, torch.tensor(validation.images))
    means = torch.stack([inner[labels == digit].mean(dim=0) for digit in range(CLASSES)])
    candidates: dict[str, Score] = {
        "largest probability": lambda images: torch.softmax(_logits(network, images), dim=1).amax(dim=1),
        "energy": lambda images: torch.logsumexp(_logits(network, images), dim=1),
        "distance to class means": lambda images: -torch.cdist(predict(features, images), means).amin(dim=1),
        "digit score": lambda images: digit_score(predict(network, images)),
    }
    rest = {kind: _raw(kind, validation) for kind in KINDS}
    digits = torch.tensor(test.images)
    return tuple(
        Trial(
            name,
            {
                kind: auroc(score(digits).numpy(), score(images).numpy())
                for kind, images in rest.items()
                if images is not None
            },
        )
        for name, score in candidates.items()
    )


def _logits(network: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    return predict(network, images)[:, :CLASSES]


def _raw(kind: str, digits: LabelledImages) -> torch.Tensor | None:
    drawn = [each.raw for each in non_digits(kind, digits, IMAGES, seed=SEED) if each.raw is not None]
    return torch.tensor(np.stack(drawn)) if drawn else None
