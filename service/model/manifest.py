"""What a model file must hash to and answer: `manifest.json` beside it, written when the model was published.

A file damaged on its way is told by its hash; a runtime, device or driver that computes something else by the golden
samples. Knows neither the runtime nor where models lie.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import ModelUnusable

LARGEST_FILE_BYTES = 1024 * 1024
# Devices round differently, a GPU with TF32 in the third digit; a wrong kernel or a damaged weight is further off.
PROBABILITY_TOLERANCE = 0.01
SCORE_TOLERANCE = 0.1

Run = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts that a model is held to.

    Attributes:
        sha256: Of the model file, in hexadecimal.
        images: Golden samples, uint8 of shape (N, 1, 28, 28).
        probabilities: What the model says about them, float32 of shape (N, 10).
        digit_scores: Likewise, float32 of shape (N,).
    """

    sha256: str
    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    digit_scores: npt.NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ModelUnusable: The file is missing, too large or not such a manifest.
        """
        try:
            if path.stat().st_size > LARGEST_FILE_BYTES:
                raise ModelUnusable(f"manifest.json has more than {LARGEST_FILE_BYTES} bytes")
            content = json.loads(path.read_bytes())
            return cls._parse(content["sha256"], content["golden"])
        except FileNotFoundError:
            raise ModelUnusable(
                "there is no manifest.json beside it; `python -m model_export verify` writes one"
            ) from None
        except OSError as error:
            raise ModelUnusable(f"cannot read manifest.json: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, binascii.Error):
            raise ModelUnusable(
                "manifest.json is damaged; expected what `python -m model_export verify` writes"
            ) from None

    @classmethod
    def _parse(cls, sha256: str, golden: dict[str, Any]) -> Manifest:
        probabilities = np.array(golden["probabilities"], np.float32).reshape(-1, 10)
        count = len(probabilities)
        if not count:
            raise ValueError("no golden samples")
        pixels = np.frombuffer(base64.b64decode(golden["images"], validate=True), np.uint8)
        scores = np.array(golden["digit_scores"], np.float32).reshape(count)
        return cls(sha256, pixels.reshape(count, 1, 28, 28), probabilities, scores)

    def check_file(self, data: bytes) -> None:
        """Compare the hash of a model file.

        Raises:
            ModelUnusable: It is another file, or a damaged one.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise ModelUnusable(
                f"its sha256 is {found}, manifest.json says {self.sha256}: the file is not the published one"
            )

    def check_answers(self, run: Run) -> None:
        """Run the golden samples.

        Raises:
            ModelUnusable: The answers are not those the model gave when it was published.
        """
        probabilities, scores = run(self.images)
        # Written so that a NaN is refused too.
        apart = float(np.abs(probabilities - self.probabilities).max())
        if not apart <= PROBABILITY_TOLERANCE:
            raise ModelUnusable(
                f"it answers the golden samples of manifest.json with probabilities {apart:.2g} away from those it was "
                f"published with; at most {PROBABILITY_TOLERANCE} is rounding"
            )
        apart = float(np.abs(scores - self.digit_scores).max())
        if not apart <= SCORE_TOLERANCE:
            raise ModelUnusable(
                f"it answers the golden samples of manifest.json with digit scores {apart:.2g} away from those it was "
                f"published with; at most {SCORE_TOLERANCE} is rounding"
            )
