"""Model files on disk: `models/<name>/<version>/model.onnx`, and `manifest.json` beside it.

Finds the versions, reads a file once, checks it, and says what it is. How a
model is run is handed in.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.errors import ModelUnusable
from service.model.manifest import Manifest

NAME = "digits"
MANIFEST = "manifest.json"
# One way to write each number, and none that clients could not hold in 64 bits.
VERSION = re.compile("0|[1-9][0-9]{0,17}")
LARGEST_FILE_BYTES = 512 * 1024 * 1024


class Session(Protocol):
    """What a loaded model file can do; `runtime.Session` is one."""

    metadata: Mapping[str, str]
    providers_asked: list[str]
    providers_got: list[str]
    gpu: int | None
    runs_at_once: int

    def stop_runs(self) -> None:
        """Have the runs in progress end with an error."""

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
        file: What is in the file.
        gpu: The number of the GPU in use, if one is.
        runs_at_once: How many threads may call it with profit.
        stop_runs: Has the runs in progress end with an error, where the device can do that.
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
    file: bytes
    gpu: int | None = None
    runs_at_once: int = 1
    stop_runs: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was found; unequal to what is found after it was changed.

    Attributes:
        version: A whole number, as text.
        path: Where it is.
        stamp: Time of the last change (ns), size and inode, of the file and of its manifest.
    """

    version: str
    path: Path
    stamp: tuple[int, ...]


def find(models_dir: Path, name: str = NAME) -> list[ModelFile]:
    """The model files in a folder, by ascending version.

    They are `<name>/<version>/model.onnx`; or else `digits/<version>/model.onnx`;
    or else `<version>/model.onnx`, the folder of one model; or else
    `model.onnx`, which is version 1.

    Raises:
        ModelUnusable: There is none.
    """
    for folder in (models_dir / name, models_dir / NAME, models_dir):
        versions = [path for path in folder.glob("*/model.onnx") if VERSION.fullmatch(path.parent.name)]
        if versions:
            return [_file(path.parent.name, path) for path in sorted(versions, key=lambda path: int(path.parent.name))]
    if (models_dir / "model.onnx").exists():
        return [_file("1", models_dir / "model.onnx")]
    raise ModelUnusable(
        f"no model found: {models_dir / NAME}/<version>/model.onnx does not exist; "
        "name the folder above 'digits' with --models-dir, or make a model with: make model"
    )


def select(files: Sequence[ModelFile], policy: str) -> list[ModelFile]:
    """Those of the files that a policy wants.

    Args:
        files: By ascending version.
        policy: "all", "latest:N" for the N highest numbers, or numbers such as "1,3".
    """
    if policy == "all":
        return list(files)
    if policy.startswith("latest:"):
        return list(files[-int(policy.removeprefix("latest:")) :])
    wanted = {int(number) for number in policy.split(",")}
    return [file for file in files if int(file.version) in wanted]


def load(file: ModelFile, make_session: Callable[[bytes], Session]) -> Model:
    """Read a model file once, make a model of what was read, and hold it to its manifest.

    Args:
        file: As from `find`.
        make_session: Turns the bytes of a model file into a session.

    Raises:
        ModelUnusable: It cannot be read, its facts are missing or wrong, or
            it is not what its manifest says.
    """
    try:
        size = file.path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise ModelUnusable(f"the file has {size} bytes; at most {LARGEST_FILE_BYTES} are read")
        data = file.path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"cannot read the file: {error.strerror}") from error
    manifest = Manifest.read(file.path.with_name(MANIFEST))
    manifest.check_file(data)
    model = _describe(data, file.version, make_session(data))
    manifest.check_answers(model.run)
    return model


def _file(version: str, path: Path) -> ModelFile:
    # With the manifest's, since a model that came before its manifest is to be looked at again.
    return ModelFile(version, path, (*_stamp(path), *_stamp(path.with_name(MANIFEST))))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        # Reading it says what is wrong.
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


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
        file=data,
        gpu=session.gpu,
        runs_at_once=session.runs_at_once,
        stop_runs=session.stop_runs,
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
