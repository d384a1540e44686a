"""Trains the network: training images and a seed in, a checkpoint out. Never sees the test set, knows no ONNX.

The same seed, data, batch size, number of epochs and of CPU threads give the same checkpoint, byte for byte, on the
same kind of CPU with the same torch (cuDNN rounds as it likes). So they do if the training was interrupted and resumed,
because everything random in an epoch follows from the seed and the epoch's number alone.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from model_export.augment import distort
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
from model_export.data import LabelledImages, validation_split
from model_export.network import build_network, to_input

PEAK_LEARNING_RATE = 0.08
WARM_UP_SHARE = 0.15  # of all steps
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
AVERAGE_DECAY = 0.999  # of the weights' moving average, a step
EVALUATION_BATCH = 500
TIMED_STEPS = 10


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the result, apart from the data. The defaults are those of the released model."""

    epochs: int = 70
    batch_size: int = 128
    seed: int = 1
    threads: int = 2
    device: str = "cpu"


@dataclass
class Progress:
    """A training between two epochs: all that is needed to go on with it.

    Attributes:
        epochs_done: How many epochs are behind it.
        network: The weights being trained.
        average: Their moving average, which is what gets validated and exported.
        optimizer: Holds the momentum.
        best: Weights, validation accuracy, validation loss and epoch of the best average so far; empty at first.
    """

    epochs_done: int
    network: nn.Sequential
    average: nn.Sequential
    optimizer: torch.optim.SGD
    best: dict[str, Any]


def train(data: LabelledImages, options: TrainingOptions, folder: Path, *, resume: bool) -> Checkpoint:
    """Train, printing a line an epoch, and write `folder`/checkpoint.pt.

    After each epoch `folder`/training.pt holds all that is needed to go on; it is removed at the end.

    Args:
        data: The training set, of which one image in twelve is held out to validate on.
        options: See there.
        folder: Where both files go.
        resume: Go on with `folder`/training.pt instead of starting.

    Raises:
        CheckpointError: `resume` without an unfinished training of the same options and data, or the reverse.
        KeyboardInterrupt: Passed on; what was reached by the last whole epoch is on disk, in both files.
    """
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(device.type == "cpu")  # cuDNN's fast kernels are not
    train_part, validation_part = _split(data, device)
    path = folder / "training.pt"
    commit = current_commit()  # now: the files may change while this code runs
    made_with = {**dataclasses.asdict(options), "data": data.sha256, "commit": commit}
    progress = _start(options, device)
    if resume:
        _restore(progress, path, made_with)
    elif path.exists():
        raise CheckpointError(f"{path} holds an unfinished training: add --resume to go on with it, or remove the file")
    _announce(options, progress, train_part)
    try:
        while progress.epochs_done < options.epochs:
            line = _run_epoch(progress, options, train_part, validation_part)
            _store(progress, path, made_with)
            print(line, flush=True)  # last, so that an epoch that was announced is on disk
    except KeyboardInterrupt:
        if progress.best:
            _finish(progress, options, data, validation_part, folder, commit)
        raise
    checkpoint = _finish(progress, options, data, validation_part, folder, commit)
    path.unlink(missing_ok=True)
    return checkpoint


def learning_rate(step: int, total_steps: int) -> float:
    """Return the rate of a step, counted from 0: up to the peak on a straight line, then down to 0 on half a cosine.

    One cycle, after L. Smith, N. Topin, "Super-convergence", 2018. A function of the step alone, so nothing to store.
    """
    warm_up = max(1, int(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return PEAK_LEARNING_RATE * (step + 1) / warm_up
    return PEAK_LEARNING_RATE * (1 + math.cos(math.pi * (step - warm_up) / (total_steps - warm_up))) / 2


def epoch_seed(seed: int, epoch: int) -> int:
    """Mix the training's seed and the epoch's number, from 0, into one 63-bit seed."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


Part = tuple[torch.Tensor, torch.Tensor]  # images uint8 [N, 28, 28], labels int64 [N]


def _split(data: LabelledImages, device: torch.device) -> tuple[Part, Part]:
    images, labels = torch.tensor(data.images, device=device), torch.tensor(data.labels, device=device).long()
    train_part, validation_part = (torch.tensor(part, device=device) for part in validation_split(len(labels)))
    return (images[train_part], labels[train_part]), (images[validation_part], labels[validation_part])


def _start(options: TrainingOptions, device: torch.device) -> Progress:
    torch.manual_seed(options.seed)
    # Channels last: the same numbers in the order that oneDNN and cuDNN convolve twice as fast.
    network = build_network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    return Progress(0, network, copy.deepcopy(network).eval(), optimizer, {})


def _announce(options: TrainingOptions, progress: Progress, part: Part) -> None:
    """Time a few steps on a copy of the network, to leave the training as it was, and say how long all will take."""
    network = copy.deepcopy(progress.network)
    generator = torch.Generator().manual_seed(options.seed)
    steps = math.ceil(len(part[1]) / options.batch_size)
    batch = (part[0][: options.batch_size], part[1][: options.batch_size])
    _loss(network, batch, generator).backward()  # type: ignore[no-untyped-call]  # the first step is slower
    start = time.perf_counter()
    for _ in range(TIMED_STEPS):
        _loss(network, batch, generator).backward()  # type: ignore[no-untyped-call]
    seconds = (time.perf_counter() - start) / TIMED_STEPS * steps
    left = options.epochs - progress.epochs_done
    print(
        f"{len(part[1]):,} images, {left} epochs of about {seconds:.1f} s on {options.device} with {options.threads} "
        f"threads: about {seconds * left / 60:.1f} minutes",
        flush=True,
    )


def _loss(network: nn.Sequential, batch: Part, generator: torch.Generator) -> torch.Tensor:
    images = distort(to_input(batch[0]), generator).contiguous(memory_format=torch.channels_last)
    return F.cross_entropy(network(images), batch[1])


def _run_epoch(progress: Progress, options: TrainingOptions, train_part: Part, validation_part: Part) -> str:
    """Train once through the images and validate; return the line that says how it went."""
    start = time.perf_counter()
    epoch = progress.epochs_done
    seed = epoch_seed(options.seed, epoch)
    torch.manual_seed(seed)  # dropout's, which takes no generator
    generator = torch.Generator().manual_seed(seed)
    batches = list(_batches(train_part, options.batch_size, generator))
    losses = []
    progress.network.train()
    for index, batch in enumerate(tqdm(batches, f"epoch {epoch + 1}", leave=False, disable=None, unit="step")):
        step = epoch * len(batches) + index
        progress.optimizer.param_groups[0]["lr"] = learning_rate(step, options.epochs * len(batches))
        progress.optimizer.zero_grad()
        loss = _loss(progress.network, batch, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        progress.optimizer.step()
        _update_average(progress.average, progress.network, step)
        losses.append(loss.item())
    progress.epochs_done += 1
    accuracy = _keep_if_best(progress, validation_part)
    return (
        f"epoch {progress.epochs_done}/{options.epochs}  loss {sum(losses) / len(losses):.4f}  "
        f"validation accuracy {accuracy:.2%}  {time.perf_counter() - start:.1f} s"
    )


def _batches(part: Part, batch_size: int, generator: torch.Generator) -> Iterator[Part]:
    images, labels = part
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for chosen in torch.split(order, batch_size):
        yield images[chosen], labels[chosen]


@torch.no_grad()
def _update_average(average: nn.Sequential, network: nn.Sequential, step: int) -> None:
    """Move the average a little towards the network, running statistics included; faster in the first steps."""
    share = 1 - min(AVERAGE_DECAY, (1 + step) / (10 + step))
    now = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(now[name], share)
        else:
            value.copy_(now[name])


def _keep_if_best(progress: Progress, validation_part: Part) -> float:
    logits, labels = predict(progress.average, validation_part[0]), validation_part[1].cpu()
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    loss = F.cross_entropy(logits, labels).item()
    best = progress.best
    if not best or loss < best["loss"]:  # finer than counting a handful of errors among 5,000
        weights = {name: value.cpu().clone() for name, value in progress.average.state_dict().items()}
        progress.best = {"weights": weights, "accuracy": accuracy, "loss": loss, "epoch": progress.epochs_done}
    return accuracy


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits, float32 [N, 10] on the CPU, of uint8 images [N, 28, 28]."""
    return torch.cat([network(to_input(batch)).cpu() for batch in torch.split(images, EVALUATION_BATCH)]).clone()


def _finish(
    progress: Progress, options: TrainingOptions, data: LabelledImages, validation_part: Part, folder: Path, commit: str
) -> Checkpoint:
    """Calibrate the best weights on the validation part and write them with their facts."""
    best = progress.best
    network = build_network().to(options.device)
    network.load_state_dict(best["weights"])
    logits, labels = predict(network.eval(), validation_part[0]), validation_part[1].cpu()
    name = "MNIST training set" if data.is_mnist else "a training set in MNIST's format"
    facts = Facts(
        **dataclasses.asdict(options),
        chosen_epoch=best["epoch"],
        torch=str(torch.__version__),  # a class of its own, which weights_only refuses to load
        commit=commit,
        trained_on=f"{name}, {len(data.labels) - len(labels):,} of {len(data.labels):,} images",
        training_data_sha256=data.sha256,
        validation_accuracy=best["accuracy"],
        temperature=fit_temperature(logits, labels),
        reject_threshold=reject_threshold(digit_score(logits)),
    )
    checkpoint = Checkpoint({key: value.contiguous() for key, value in best["weights"].items()}, facts)
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    return checkpoint


def _store(progress: Progress, path: Path, made_with: dict[str, Any]) -> None:
    content = {
        "made_with": made_with,
        "epochs_done": progress.epochs_done,
        "network": progress.network.state_dict(),
        "average": progress.average.state_dict(),
        "optimizer": progress.optimizer.state_dict(),
        "best": progress.best,
    }
    write_atomically(path, to_bytes(content))


def _restore(progress: Progress, path: Path, made_with: dict[str, Any]) -> None:
    if not path.exists():
        raise CheckpointError(f"there is no unfinished training to resume: no file {path}; leave --resume out to start")
    stored = load_tensors(path)
    if "made_with" not in stored:
        raise CheckpointError(f"{path} is not an unfinished training; remove it and leave --resume out to start")
    for name, value in made_with.items():
        if stored["made_with"].get(name) != value:
            raise CheckpointError(
                f"{path} was begun with {name} {stored['made_with'].get(name)}, not {value}: resume with the same"
            )
    try:
        progress.network.load_state_dict(stored["network"])
        progress.average.load_state_dict(stored["average"])
        progress.optimizer.load_state_dict(stored["optimizer"])
        progress.best = stored["best"]
        progress.epochs_done = stored["epochs_done"]
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise CheckpointError(f"{path} is damaged; remove it and leave --resume out to start") from None
