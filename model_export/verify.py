"""Proves an ONNX file on the test images, and publishes it only if it is right.

With `report`, which describes what was published, it is the only reader of the test set. Knows nothing of how
the model was trained: it compares the file with the checkpoint it was made from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from model_export.calibrate import digit_score, expected_calibration_error
from model_export.checkpoint import save_checkpoint, write_atomically
from model_export.export import NAME, VERSION, with_facts
from model_export.network import to_input

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

    from model_export.checkpoint import Checkpoint
    from model_export.data import LabelledImages

ACCURACY_FLOOR = 0.995
BATCH_SIZES = (1, 7, 32, 512)
MAX_PROBABILITY_DIFFERENCE = 1e-5
MAX_SCORE_DIFFERENCE = 1e-3  # scores are around 10, where float32 has steps of 1e-6


class RefusedError(Exception):
    """The model must not be published; the text says which figure is out of which bound."""


@dataclass(frozen=True)
class Parity:
    """How far PyTorch and ONNX Runtime are apart at one batch size."""

    batch_size: int
    probability_difference: float
    score_difference: float
    different_digits: int


@dataclass(frozen=True)
class Verification:
    """What was measured: the parity at each batch size, and on all test images together the shares 0 to 1."""

    images: int
    tested_on: str
    parities: tuple[Parity, ...]
    accuracy: float
    rejected: float
    calibration_error: float

    def table(self) -> str:
        """Write it down for a human reader."""
        lines = ["batch size   largest difference of   probabilities   digit_score   other digit"]
        for parity in self.parities:
            lines.append(
                f"{parity.batch_size:>10}{parity.probability_difference:>39.1e}{parity.score_difference:>14.1e}"
                f"{parity.different_digits:>14}"
            )
        wrong = round(self.images * (1 - self.accuracy))
        lines += [
            f"accuracy {self.accuracy:.2%} ({wrong} of {self.images:,} test images wrong)",
            f"rejected {self.rejected:.2%} of the test images",
            f"expected calibration error {self.calibration_error:.4f}",
        ]
        return "\n".join(lines)


def verify(checkpoint: Checkpoint, model: bytes, test: LabelledImages, *, floor: float | None = None) -> Verification:
    """Compare the ONNX file with its checkpoint on the test images, at each batch size, and measure the accuracy.

    Args:
        checkpoint: What the file was exported from.
        model: The ONNX file's content.
        test: The test set.
        floor: The least accuracy, 0 to 1; for MNIST it is 0.995 unless told otherwise.

    Raises:
        RefusedError: The file cannot be run, has other inputs or outputs, differs from PyTorch or reads too few test
            images rightly.
    """
    if floor is None:
        if not test.is_mnist:
            raise RefusedError(
                f"these {len(test.labels):,} images are not MNIST's test set: give them a --floor of their own"
            )
        floor = ACCURACY_FLOOR
    session = open_model(model)
    _check_names(session)
    network = checkpoint.network()
    parities = []
    for batch_size in BATCH_SIZES:
        expected = run_torch(network, checkpoint.facts.temperature, test.images, batch_size)
        found = run_onnx(session, test.images, batch_size)
        parities.append(_compare(batch_size, expected, found))
        _refuse_if_apart(parities[-1])
    probabilities, scores = (torch.from_numpy(values) for values in found)
    labels = torch.tensor(test.labels).long()
    result = Verification(
        images=len(labels),
        tested_on=f"{'MNIST test set' if test.is_mnist else 'a test set in MNIST format'}, {len(labels):,} images",
        parities=tuple(parities),
        accuracy=(probabilities.argmax(dim=1) == labels).double().mean().item(),
        rejected=(scores < checkpoint.facts.reject_threshold).double().mean().item(),
        calibration_error=expected_calibration_error(probabilities, labels),
    )
    if result.accuracy < floor:
        raise RefusedError(
            f"accuracy {result.accuracy:.2%} on {result.images:,} test images is below the floor {floor:.2%}"
        )
    return result


def publish(checkpoint: Checkpoint, model: bytes, result: Verification, models_dir: Path) -> Path:
    """Write models_dir/digits/<version>/model.onnx, its accuracy now in its metadata, and its checkpoint beside it.

    The graph is the very one that was verified. Exporting the published checkpoint gives the published file again, byte
    for byte. Each file is there whole or not at all; the model, which a server may be watching for, comes last.

    Returns:
        The path of the model.
    """
    folder = models_dir / NAME / VERSION
    published = checkpoint.tested(result.accuracy, result.tested_on)
    save_checkpoint(published, folder / "checkpoint.pt")
    write_atomically(folder / "model.onnx", with_facts(model, published))
    return folder / "model.onnx"


Outputs = tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]


@torch.inference_mode()
def run_torch(
    network: torch.nn.Module,
    temperature: float,
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    batch_size: int,
) -> Outputs:
    """Return PyTorch's probabilities, float32 [N, 10], and scores, float32 [N], of uint8 images [N, 28, 28]."""
    logits = torch.cat([network(to_input(batch)) for batch in torch.split(torch.tensor(images), batch_size)])
    return torch.softmax(logits / temperature, dim=1).numpy(), digit_score(logits).numpy()


def run_onnx(
    session: onnxruntime.InferenceSession, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], batch_size: int
) -> Outputs:
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


def _compare(batch_size: int, expected: Outputs, found: Outputs) -> Parity:
    return Parity(
        batch_size,
        probability_difference=float(np.abs(expected[0] - found[0]).max()),
        score_difference=float(np.abs(expected[1] - found[1]).max()),
        different_digits=int((expected[0].argmax(axis=1) != found[0].argmax(axis=1)).sum()),
    )


def _refuse_if_apart(parity: Parity) -> None:
    where = f"at batch size {parity.batch_size} PyTorch and ONNX Runtime"
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
