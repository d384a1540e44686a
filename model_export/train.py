"""Trains the network: training images and a seed in, a checkpoint out. Never sees the test set, knows no ONNX.

First come the teachers, large networks that learn from the labels, each from a start of its own; then the student, the
network that is served, which learns from what they say; and for a few epochs it goes on as the finisher, from the
labels and hardly distorted images, since that is what it will be shown. `learner` does the steps, `lessons` says what
is learnt.

The same options, data and number of CPU threads give the same checkpoint, byte for byte, on the same kind of CPU with
the same torch (cuDNN rounds as it likes). So they do if the training was interrupted and resumed, because everything
random in an epoch follows from the seed and the numbers of the learner and the epoch alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model_export.calibrate import digit_score, fit_temperature, reject_threshold
from model_export.checkpoint import (
    Checkpoint,
    CheckpointError,
    Facts,
    current_commit,
    load_tensors,
    save_checkpoint,
    to_bytes,
    write_atomically,
)
from model_export.data import DataError, LabelledImages, validation_split
from model_export.learner import Learner, Loss, Part, epoch_seed, predict
from model_export.lessons import FromLabels, FromTeachers
from model_export.network import CLASSES, build_network, build_teacher
from model_export.scribbles import draw_scribbles

PEAK_RATE, FINISHING_RATE = 0.1, 0.01
FINISHING_STRENGTH = 0.4  # of the distortion
DIGITS_A_SCRIBBLE = 3  # as many images are in the store of scribbles as a third of the digits


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the result, apart from the data. The defaults are those of the released model.

    Attributes:
        epochs: How often the student sees the training images.
        teachers: How many networks teach it; with 0 it learns from the labels alone.
        teacher_epochs: How often each teacher sees the training images.
        finishing_epochs: How often the student sees them in the end, little distorted.
        batch_size: Images a step.
        seed: Of everything random.
        threads: CPU threads; another number rounds differently.
        device: "cpu" or "cuda".
        precision: "bfloat16" or "float32", what convolutions and products are computed in.
    """

    epochs: int = 70
    teachers: int = 4
    teacher_epochs: int = 24
    finishing_epochs: int = 8
    batch_size: int = 128
    seed: int = 1
    threads: int = 1
    device: str = "cpu"
    precision: str = "bfloat16"


def train(data: LabelledImages, options: TrainingOptions, folder: Path, *, resume: bool) -> Checkpoint:
    """Train, printing a line an epoch, and write `folder`/checkpoint.pt and, about the epochs, `folder`/training.json.

    After each epoch `folder`/training.pt holds all that is needed to go on; it is removed at the end.

    Args:
        data: The training set, of which one image in twelve is held out to validate on.
        options: See there.
        folder: Where the files go.
        resume: Go on with `folder`/training.pt instead of starting.

    Raises:
        DataError: A digit is missing from the training set.
        CheckpointError: `resume` without an unfinished training of the same options and data, or the reverse.
        KeyboardInterrupt: Passed on; what was reached by the last whole epoch is on disk.
    """
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(options.device == "cpu")  # cuDNN's fast kernels are not
    path = folder / "training.pt"
    if not resume and path.exists():
        raise CheckpointError(f"{path} holds an unfinished training: add --resume to go on with it, or remove the file")
    training = Training(data, options, current_commit())  # the commit now: files may change while this code runs
    if resume:
        training.restore(path)
    training.announce()
    try:
        for number, learner in enumerate(training.learners):
            while not learner.is_done:
                training.run_epoch(number)
                write_atomically(path, to_bytes(training.state()))
                print(training.line(number), flush=True)  # last, so that an epoch that was announced is on disk
    except KeyboardInterrupt:
        if training.best_learner():
            training.write(folder)
        raise
    checkpoint = training.write(folder)
    path.unlink(missing_ok=True)
    return checkpoint


class Training:
    """The teachers, the student and the finisher, in the order in which they learn, and what they learn from."""

    def __init__(self, data: LabelledImages, options: TrainingOptions, commit: str):
        """Build the networks and draw the scribbles."""
        self._data, self._options = data, options
        self._made_with = {**dataclasses.asdict(options), "data": data.sha256, "commit": commit}
        self._train_part, self._validation_part = _split(data, torch.device(options.device))
        precision = {"bfloat16": torch.bfloat16, "float32": torch.float32}[options.precision]
        scribbles = _scribbles(self._train_part, options.seed)
        teachers = [
            self._learner(f"teacher {number + 1}", number, options.teacher_epochs, build_teacher, FromLabels(precision))
            for number in range(options.teachers)
        ]
        taught = FromTeachers(tuple(teacher.average for teacher in teachers), scribbles, precision)
        alone = FromTeachers((), scribbles, precision, FINISHING_STRENGTH)
        last = options.teachers + 1
        self.student = self._learner("student", last - 1, options.epochs, build_network, taught)
        self.finisher = self._learner("finisher", last, options.finishing_epochs, build_network, alone, FINISHING_RATE)
        self.learners = (*teachers, self.student, self.finisher)

    def _learner(
        self,
        name: str,
        number: int,
        epochs: int,
        build: Callable[[], nn.Sequential],
        loss: Loss,
        peak_rate: float = PEAK_RATE,
    ) -> Learner:
        torch.manual_seed(epoch_seed(self._options.seed, number, epochs))
        # Channels last: the same numbers in the order that oneDNN and cuDNN convolve twice as fast.
        network = build().to(self._options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Learner(name, epochs, peak_rate, network, loss)

    def best_learner(self) -> Learner | None:
        """The last of student and finisher that has learnt anything."""
        return next((learner for learner in (self.finisher, self.student) if learner.best), None)

    def announce(self) -> None:
        """Time a few steps on copies of the networks, to leave them as they are, and say how long all will take."""
        images, labels = self._train_part
        steps = math.ceil(len(labels) / self._options.batch_size)
        minutes = 0.0
        for learner in self.learners:
            seconds = learner.seconds_a_step(images[: self._options.batch_size], labels[: self._options.batch_size])
            minutes += seconds * steps * (learner.epochs - len(learner.history)) / 60
        options = self._options
        print(
            f"{len(labels):,} images; {options.teachers} teachers of {options.teacher_epochs} epochs, a student of "
            f"{options.epochs} and {options.finishing_epochs}; on {options.device} with {options.threads} threads: "
            f"about {minutes:.0f} minutes",
            flush=True,
        )

    def run_epoch(self, number: int) -> None:
        """Teach one learner, by its place in `learners`, for one epoch more."""
        learner = self.learners[number]
        if learner is self.finisher and not learner.history:
            learner.start_from(self.student.best_network())
        seed = epoch_seed(self._options.seed, number, len(learner.history))
        learner.run_epoch(self._train_part, self._validation_part, self._options.batch_size, seed)

    def line(self, number: int) -> str:
        """Say how the last epoch of a learner went."""
        learner = self.learners[number]
        last = learner.history[-1]
        return (
            f"{learner.name}, epoch {len(learner.history)}/{learner.epochs}  loss {last['loss']:.4f}  validation loss "
            f"{last['validation_loss']:.4f}, accuracy {last['validation_accuracy']:.2%}  {last['seconds']:.1f} s"
        )

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        return {"made_with": self._made_with, "learners": [learner.state() for learner in self.learners]}

    def restore(self, path: Path) -> None:
        """Become the training that was stored.

        Raises:
            CheckpointError: There is none, or one of other options, data or code, or a damaged one.
        """
        if not path.exists():
            raise CheckpointError(
                f"there is no unfinished training to resume: no file {path}; leave --resume out to start"
            )
        stored = load_tensors(path)
        if "made_with" not in stored:
            raise CheckpointError(f"{path} is not an unfinished training; remove it and leave --resume out to start")
        for name, value in self._made_with.items():
            if stored["made_with"].get(name) != value:
                raise CheckpointError(
                    f"{path} was begun with {name} {stored['made_with'].get(name)}, not {value}: resume with the same"
                )
        try:
            for learner, state in zip(self.learners, stored["learners"], strict=True):
                learner.restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise CheckpointError(f"{path} is damaged; remove it and leave --resume out to start") from None

    def write(self, folder: Path) -> Checkpoint:
        """Calibrate the last learner's best weights on the validation part; write them, and how the epochs went."""
        learner = self.best_learner() or self.student
        best = learner.best
        logits, labels = predict(learner.best_network(), self._validation_part[0]), self._validation_part[1].cpu()
        name = "MNIST training set" if self._data.is_mnist else "a training set in MNIST's format"
        facts = Facts(
            **dataclasses.asdict(self._options),
            chosen_epoch=best["epoch"] + (len(self.student.history) if learner is self.finisher else 0),
            torch=str(torch.__version__),  # a class of its own, which weights_only refuses to load
            commit=self._made_with["commit"],
            trained_on=f"{name}, {len(self._data.labels) - len(labels):,} of {len(self._data.labels):,} images",
            training_data_sha256=self._data.sha256,
            validation_accuracy=best["accuracy"],
            temperature=fit_temperature(logits[:, :CLASSES], labels),
            reject_threshold=reject_threshold(digit_score(logits)),
        )
        checkpoint = Checkpoint({key: value.contiguous() for key, value in best["weights"].items()}, facts)
        save_checkpoint(checkpoint, folder / "checkpoint.pt")
        log = {learner.name: learner.history for learner in self.learners}
        write_atomically(folder / "training.json", json.dumps(log, indent=1).encode())
        return checkpoint


def _split(data: LabelledImages, device: torch.device) -> tuple[Part, Part]:
    if missing := set(range(CLASSES)) - set(data.labels.tolist()):
        raise DataError(
            f"the training set holds no image of {', '.join(map(str, sorted(missing)))}; every digit is needed"
        )
    images, labels = torch.tensor(data.images, device=device), torch.tensor(data.labels, device=device).long()
    train_part, validation_part = (torch.tensor(part, device=device) for part in validation_split(len(labels)))
    return (images[train_part], labels[train_part]), (images[validation_part], labels[validation_part])


def _scribbles(train_part: Part, seed: int) -> torch.Tensor:
    images, labels = (values.cpu().numpy() for values in train_part)
    drawn = draw_scribbles(max(1, len(labels) // DIGITS_A_SCRIBBLE), images, labels.astype(np.uint8), seed)
    return torch.tensor(drawn, device=train_part[0].device)
