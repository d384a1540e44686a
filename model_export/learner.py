"""One network being taught: steps of SGD on one cycle of the learning rate, their moving average, and the best of it.

Knows no data set and no file: batches, a loss and validation images are handed in.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from model_export.network import CLASSES, to_input

WARM_UP_SHARE = 0.15  # of all steps
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
AVERAGE_DECAY = 0.999  # of the weights' moving average, a step
EVALUATION_BATCH = 500
TIMED_STEPS = 5

Part = tuple[torch.Tensor, torch.Tensor]  # images uint8 [N, 28, 28], labels int64 [N]
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


@dataclass
class Learner:
    """A network between two epochs: all that is needed to go on with it.

    Attributes:
        name: For the lines it prints.
        epochs: How many it is to be taught.
        network: The weights being trained.
        peak_rate: The highest learning rate.
        loss: Makes one number to lower of network, images uint8 [B, 28, 28], labels int64 [B] and a generator.
        optimizer: Holds the momentum.
        average: The weights' moving average, which is what gets validated and exported.
        history: For each epoch done its losses, validation accuracy and seconds.
        best: Weights, accuracy, loss and epoch of the average with the lowest validation loss so far; empty at first.
    """

    name: str
    epochs: int
    peak_rate: float
    network: nn.Sequential
    loss: Loss
    optimizer: torch.optim.SGD = field(init=False)
    average: nn.Sequential = field(init=False)
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the optimizer and the average of the network's weights as they are."""
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )

    @property
    def is_done(self) -> bool:
        """Whether all epochs are behind it."""
        return len(self.history) == self.epochs

    def best_network(self) -> nn.Sequential:
        """Return a copy with the best weights, ready to predict."""
        network = copy.deepcopy(self.average)
        network.load_state_dict(self.best["weights"])
        return network.eval().requires_grad_(False)

    def start_from(self, network: nn.Sequential) -> None:
        """Take over another network's weights, before the first epoch."""
        self.network.load_state_dict(network.state_dict())
        self.average.load_state_dict(network.state_dict())

    def run_epoch(self, train_part: Part, validation_part: Part, batch_size: int, seed: int) -> None:
        """Train once through the images and validate.

        Args:
            train_part: What to learn from.
            validation_part: What to compare epochs on.
            batch_size: Images a step.
            seed: Everything random in this epoch follows from it.
        """
        start = time.perf_counter()
        torch.manual_seed(seed)  # dropout's, which takes no generator
        generator = torch.Generator().manual_seed(seed)
        batches = list(batches_of(train_part, batch_size, generator))
        total = 0.0
        self.network.train()
        title = f"{self.name}, epoch {len(self.history) + 1}"
        for index, batch in enumerate(tqdm(batches, title, leave=False, disable=None, unit="step")):
            total += self._step(len(self.history) * len(batches) + index, len(batches), batch, generator)
        loss, accuracy = validate(self.average, validation_part)
        seconds = time.perf_counter() - start
        figures = {"loss": total / len(batches), "validation_loss": loss, "validation_accuracy": accuracy}
        self.history.append(figures | {"seconds": seconds})
        if not self.best or loss < self.best["loss"]:  # finer than counting a handful of errors among 5,000
            weights = {name: value.cpu().clone() for name, value in self.average.state_dict().items()}
            self.best = {"weights": weights, "accuracy": accuracy, "loss": loss, "epoch": len(self.history)}

    def _step(self, step: int, steps_an_epoch: int, batch: Part, generator: torch.Generator) -> float:
        self.optimizer.param_groups[0]["lr"] = learning_rate(step, self.epochs * steps_an_epoch, self.peak_rate)
        self.optimizer.zero_grad()
        loss = self.loss(self.network, *batch, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        _update_average(self.average, self.network, step)
        return loss.item()

    def seconds_a_step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Time steps on this batch with a copy of the network, which leaves the learner as it was."""
        network, generator = copy.deepcopy(self.network).train(), torch.Generator().manual_seed(0)
        times = []
        for _ in range(1 + TIMED_STEPS):  # the first one is slower
            start = time.perf_counter()
            self.loss(network, images, labels, generator).backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - start)
        return sum(times[1:]) / TIMED_STEPS

    def state(self) -> dict[str, Any]:
        """Return all that changes, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was taken of.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: It was taken of another network, or is damaged.
        """
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best = list(state["history"]), dict(state["best"])


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """Return the rate of a step, counted from 0: up to the peak on a straight line, then down to 0 on half a cosine.

    One cycle, after L. Smith, N. Topin, "Super-convergence", 2018. A function of the step alone, so nothing to store.
    """
    warm_up = max(1, int(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(math.pi * (step - warm_up) / (total_steps - warm_up))) / 2


def epoch_seed(seed: int, learner: int, epoch: int) -> int:
    """Mix the training's seed with the numbers of the learner and the epoch, both from 0, into one 63-bit seed."""
    state = np.random.SeedSequence([seed, learner, epoch]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def batches_of(part: Part, batch_size: int, generator: torch.Generator) -> Iterable[Part]:
    """Deal the images out in a random order."""
    images, labels = part
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for chosen in torch.split(order, batch_size):
        yield images[chosen], labels[chosen]


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits, float32 on the CPU and a row an image, of uint8 images [N, 28, 28]."""
    return torch.cat([network(to_input(batch)).cpu() for batch in torch.split(images, EVALUATION_BATCH)]).clone()


def validate(network: nn.Module, part: Part) -> tuple[float, float]:
    """Return the mean cross entropy over the ten digits, and the share that is read rightly, 0 to 1."""
    logits, labels = predict(network, part[0])[:, :CLASSES], part[1].cpu()
    return F.cross_entropy(logits, labels).item(), (logits.argmax(dim=1) == labels).double().mean().item()


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
