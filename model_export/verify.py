"""Proves an ONNX file on the test images, or says why it must not be published.

Knows nothing of how the model was trained: it compares the file with the checkpoint it was made from.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from model_export.augment import distort
from model_export.calibrate import digit_score, expected_calibration_error
from model_export.network import CLASSES, to_input
from model_export.scribbles import draw_scribbles

if TYPE_CHECKING:
    import onnxruntime

    from model_export.checkpoint import Checkpoint
    from model_export.data import LabelledImages

BATCH_SIZES = (1, 7, 32, 512)
DISTORTED = "distorted"
SEED = 2  # of the distortion and the scribbles; the training's is another
SCRIBBLES = 1_000
GOLDEN_DIGITS, GOLDEN_SCRIBBLES = 24, 8
MAX_PROBABILITY_DIFFERENCE = 1e-5
MAX_SCORE_DIFFERENCE = 1e-3  # scores are around 10, where float32 has steps of 1e-6


Images = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


class RefusedError(Exception):
    """The model must not be published; the text says which figure is out of which bound."""


@dataclass(frozen=True)
class Golden:
    """A few images and what the model says about them, by which whoever loads it can tell that it is the same.

    Attributes:
        images: uint8 [N, 28, 28].
        probabilities: float32 [N, 10].
        digit_scores: float32 [N].
    """

    images: Images
    probabilities: npt.NDArray[np.float32]
    digit_scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bounds:
    """What a model must keep on the test set to be published, shares from 0 to 1.

    Attributes:
        accuracy: Least share of the digits read rightly.
        calibration_error: Largest expected calibration error.
        digits_rejected: Largest share of the digits with a digit_score below the threshold.
        scribbles_rejected: Least share of scribbles, which are no digits, below it.
    """

    accuracy: float
    calibration_error: float = 1.0
    digits_rejected: float = 1.0
    scribbles_rejected: float = 0.0


MNIST_BOUNDS = Bounds(accuracy=0.997, calibration_error=0.003, digits_rejected=0.02, scribbles_rejected=0.9)


@dataclass(frozen=True)
class Parity:
    """How far PyTorch and ONNX Runtime are apart on the test images, or on the distorted ones, at one batch size."""

    images: str
    batch_size: int
    probability_difference: float
    score_difference: float
    different_digits: int


@dataclass(frozen=True)
class Verification:
    """What was measured: the parities, shares from 0 to 1 of the test images and of scribbles, and golden samples."""

    images: int
    tested_on: str
    parities: tuple[Parity, ...]
    accuracy: float
    rejected: float
    calibration_error: float
    scribbles_rejected: float
    golden: Golden

    def table(self) -> str:
        """Write it down for a human reader."""
        lines = ["images     batch size   largest difference of   probabilities   digit_score   other digit"]
        for parity in self.parities:
            lines.append(
                f"{parity.images:<10}{parity.batch_size:>11}{parity.probability_difference:>39.1e}"
                f"{parity.score_difference:>14.1e}{parity.different_digits:>14}"
            )
        wrong = round(self.images * (1 - self.accuracy))
        lines += [
            f"accuracy {self.accuracy:.2%} ({wrong} of {self.images:,} test images wrong)",
            f"rejected {self.rejected:.2%} of the test images",
            f"rejected {self.scribbles_rejected:.2%} of {SCRIBBLES:,} scribbles",
            f"expected calibration error {self.calibration_error:.4f}",
        ]
        return "\n".join(lines)


def verify(
    checkpoint: Checkpoint, model: bytes, test: LabelledImages, *, accuracy_floor: float | None = None
) -> Verification:
    """Compare the ONNX file with its checkpoint on the test images and on distorted ones, and hold it to its bounds.

    Args:
        checkpoint: What the file was exported from.
        model: The ONNX file's content.
        test: The test set.
        accuracy_floor: The only bound, 0 to 1, of a set that is not MNIST; for MNIST it replaces that of MNIST_BOUNDS.

    Raises:
        RefusedError: The file cannot be run, has other inputs or outputs, differs from PyTorch or breaks a bound.
    """
    bounds = _bounds(test, accuracy_floor)
    session = open_model(model)
    _check_names(session)
    network = checkpoint.network()
    threshold = checkpoint.facts.reject_threshold
    distorted = _distorted(test.images)
    parities = []
    for name, images, batch_size in [
        *(("test", test.images, batch_size) for batch_size in BATCH_SIZES),
        (DISTORTED, distorted, 32),
    ]:
        expected = run_torch(network, checkpoint.facts.temperature, images, batch_size)
        parities.append(_compare(name, batch_size, expected, run_onnx(session, images, batch_size)))
        _refuse_if_apart(parities[-1])
    probabilities, scores = (torch.from_numpy(values) for values in run_onnx(session, test.images, 512))
    labels = torch.tensor(test.labels).long()
    scribbles = draw_scribbles(SCRIBBLES, test.images, test.labels, SEED)
    golden = np.concatenate([distorted[:GOLDEN_DIGITS], scribbles[:GOLDEN_SCRIBBLES]])
    result = Verification(
        images=len(labels),
        tested_on=f"{'MNIST test set' if test.is_mnist else 'a test set in MNIST format'}, {len(labels):,} images",
        parities=tuple(parities),
        accuracy=(probabilities.argmax(dim=1) == labels).double().mean().item(),
        rejected=(scores < threshold).double().mean().item(),
        calibration_error=expected_calibration_error(probabilities, labels),
        scribbles_rejected=float((run_onnx(session, scribbles, 512)[1] < threshold).mean()),
        golden=Golden(golden, *run_onnx(session, golden, 32)),
    )
    check_bounds(result, bounds)
    return result


def _bounds(test: LabelledImages, accuracy_floor: float | None) -> Bounds:
    if test.is_mnist:
        return MNIST_BOUNDS if accuracy_floor is None else dataclasses.replace(MNIST_BOUNDS, accuracy=accuracy_floor)
    if accuracy_floor is None:
        raise RefusedError(
            f"these {len(test.labels):,} images are not MNIST's test set: give them a --floor of their own"
        )
    return Bounds(accuracy_floor)


def _distorted(images: Images) -> Images:
    """Distort images as in training, with a seed of its own."""
    values = distort(to_input(torch.tensor(images)), torch.Generator().manual_seed(SEED))
    pixels: Images = (values[:, 0] * 255).round().byte().numpy()
    return pixels


def check_bounds(result: Verification, bounds: Bounds) -> None:
    """Compare what was measured with what must be kept.

    Raises:
        RefusedError: A bound is broken; names it and the figure.
    """
    # Written so that a NaN is refused too.
    if not result.accuracy >= bounds.accuracy:
        raise RefusedError(
            f"accuracy {result.accuracy:.2%} on {result.images:,} test images is below the floor {bounds.accuracy:.2%}"
        )
    if not result.calibration_error <= bounds.calibration_error:
        raise RefusedError(
            f"expected calibration error {result.calibration_error:.4f} is above {bounds.calibration_error:.4f}"
        )
    if not result.rejected <= bounds.digits_rejected:
        raise RefusedError(
            f"{result.rejected:.2%} of the test digits are rejected, more than {bounds.digits_rejected:.2%}"
        )
    if not result.scribbles_rejected >= bounds.scribbles_rejected:
        raise RefusedError(
            f"{result.scribbles_rejected:.2%} of {SCRIBBLES:,} scribbles are rejected, "
            f"fewer than {bounds.scribbles_rejected:.2%}"
        )


@torch.inference_mode()
def run_torch(
    network: torch.nn.Module,
    temperature: float,
    images: Images,
    batch_size: int,
) -> Outputs:
    """Return PyTorch's probabilities, float32 [N, 10], and scores, float32 [N], of uint8 images [N, 28, 28]."""
    logits = torch.cat([network(to_input(batch)) for batch in torch.split(torch.tensor(images), batch_size)])
    return torch.softmax(logits[:, :CLASSES] / temperature, dim=1).numpy(), digit_score(logits).numpy()


def run_onnx(session: onnxruntime.InferenceSession, images: Images, batch_size: int) -> Outputs:
    """Return what ONNX Runtime gives the same images."""
    starts = range(0, len(images), batch_size)
    outputs = [
        session.run(["probabilities", "digit_score"], {"image": images[start : start + batch_size, None]})
        for start in starts
    ]
    return np.concatenate([output[0] for output in outputs]), np.concatenate([output[1] for output in outputs])


def open_model(model: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load an ONNX file into ONNX Runtime, on the CPU with so many threads, 0 for as many as it likes.

    Raises:
        RefusedError: It cannot be loaded.
    """
    # From 1.29 on, official builds report models and machine to their maker unless this is set before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise RefusedError(f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}") from None


def _check_names(session: onnxruntime.InferenceSession) -> None:
    found = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    if found != ["image", "probabilities", "digit_score"]:
        raise RefusedError(
            f"the model's input and outputs are {', '.join(found)}; expected image, probabilities, digit_score"
        )


def _compare(images: str, batch_size: int, expected: Outputs, found: Outputs) -> Parity:
    return Parity(
        images,
        batch_size,
        probability_difference=float(np.abs(expected[0] - found[0]).max()),
        score_difference=float(np.abs(expected[1] - found[1]).max()),
        different_digits=int((expected[0].argmax(axis=1) != found[0].argmax(axis=1)).sum()),
    )


def _refuse_if_apart(parity: Parity) -> None:
    where = f"on the {parity.images} images at batch size {parity.batch_size} PyTorch and ONNX Runtime"
    if parity.different_digits:
        raise RefusedError(f"{where} read {parity.different_digits} images as different digits")
    # Written so that a NaN is refused too.
    if not parity.probability_difference <= MAX_PROBABILITY_DIFFERENCE:
        raise RefusedError(
            f"{where} differ by {parity.probability_difference:.1e} in a probability, "
            f"more than {MAX_PROBABILITY_DIFFERENCE:.0e}"
        )
    if not parity.score_difference <= MAX_SCORE_DIFFERENCE:
        raise RefusedError(
            f"{where} differ by {parity.score_difference:.1e} in a digit_score, more than {MAX_SCORE_DIFFERENCE:.0e}"
        )
