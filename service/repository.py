"""Model files on disk: `models/<name>/<version>/model.onnx`, and `manifest.json` beside it.

Finds the newest version, reads the file once, checks it, and says what it is.
How a model is run is handed in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.errors import ModelUnusable
from service.manifest import Manifest

NAME = "digits"
LARGEST_FILE_BYTES = 512 * 1024 * 1024


class Session(Protocol):
    """What a loaded model file can do; `runtime.Session` is one."""

    metadata: Mapping[str, str]
    providers_asked: list[str]
    providers_got: list[str]

    def run(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Uint8 (N, 1, 28, 28) -> probabilities (N, 10) and digit scores (N,), float32."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can serve, and the facts about it.

    Attributes:
        name: "digits".
        version: A whole number, as text: the folder it was found in.
        sha256: Of the file, in hexadecimal.
        network: The network in words.
        accuracy: Share of its test images read right, 0 to 1.
        calibration_error: How far confidence and accuracy are apart on them, 0 to 1.
        tested_on: The test images in words.
        licence: Of the model and its data.
        commit: Of the code that trained it.
        trained_on: The training data in words.
        reject_threshold: Digit scores below this are "not a digit".
        providers_asked: Execution providers wanted, first choice first.
        providers_got: Execution providers in use, first choice first.
        run: Uint8 (N, 1, 28, 28) -> probabilities (N, 10) and digit scores (N,), float32.
    """

    name: str
    version: str
    sha256: str
    network: str
    accuracy: float
    calibration_error: float
    tested_on: str
    licence: str
    commit: str
    trained_on: str
    reject_threshold: float
    providers_asked: Sequence[str]
    providers_got: Sequence[str]
    run: Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


def load_newest(models_dir: Path, make_session: Callable[[bytes], Session]) -> Model:
    """Load the version of `digits` with the highest number.

    Args:
        models_dir: Folder that holds `digits/<version>/model.onnx` and its manifest.
        make_session: Turns the bytes of a model file into a session.

    Raises:
        ModelUnusable: There is no such file, its facts are missing or wrong,
            or it is not what its manifest says.
    """
    path = _newest(models_dir / NAME)
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ModelUnusable(f"{path} has {path.stat().st_size} bytes; at most {LARGEST_FILE_BYTES} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"cannot read {path}: {error.strerror}") from error
    manifest = Manifest.read(path.with_name("manifest.json"))
    try:
        manifest.check_file(data)
        model = _describe(data, path.parent.name, make_session(data))
        manifest.check_answers(model.run)
        return model
    except ModelUnusable as error:
        raise ModelUnusable(f"{path}: {error}") from error


def _newest(folder: Path) -> Path:
    versions = [p for p in folder.glob("*/model.onnx") if p.parent.name.isdecimal()]
    if not versions:
        raise ModelUnusable(
            f"no model found: {folder}/<version>/model.onnx does not exist; "
            "name the folder above 'digits' with --models-dir, or make a model with: make model"
        )
    return max(versions, key=lambda path: int(path.parent.name))


def _describe(data: bytes, version: str, session: Session) -> Model:
    facts = session.metadata
    return Model(
        name=NAME,
        version=version,
        sha256=hashlib.sha256(data).hexdigest(),
        network=_fact(facts, "network"),
        accuracy=_number(facts, "accuracy"),
        calibration_error=_number(facts, "calibration_error"),
        tested_on=_fact(facts, "tested_on"),
        licence=_fact(facts, "licence"),
        commit=_fact(facts, "commit"),
        trained_on=_fact(facts, "trained_on"),
        reject_threshold=_number(facts, "reject_threshold"),
        providers_asked=session.providers_asked,
        providers_got=session.providers_got,
        run=session.run,
    )


def _fact(facts: Mapping[str, str], key: str) -> str:
    try:
        return facts[key]
    except KeyError:
        raise ModelUnusable(f"its metadata lack {key!r}; export it with: python -m model_export export") from None


def _number(facts: Mapping[str, str], key: str) -> float:
    text = _fact(facts, key)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ModelUnusable(f"its metadata say {key}={text!r}; expected a finite number")
    return number
