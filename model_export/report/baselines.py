"""What else one could do with the same data: simple classifiers and variants of our network, trained and measured.

All have the same training part, schedule and optimizer, and nothing is chosen: no epoch, no setting. Their result goes
into a JSON file beside the model card, so that the card can be written again without training them again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from model_export.augment import distort
from model_export.data import DataError, LabelledImages, validation_split
from model_export.learner import predict
from model_export.network import CLASSES, IMAGE_SIZE, build_network, describe, fold_batch_norm, to_input
from model_export.report.speed import BATCH_SIZE, microseconds_per_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EPOCHS, SEED = 12, 1
TRAINING_BATCH = 128
PEAK_LEARNING_RATE = 3e-3  # of AdamW, on one cycle
TIMED_STEPS = 5
ORIENTATIONS, CELL_PIXELS, BLOCK_CELLS = 9, 4, 2


@dataclass(frozen=True)
class Method:
    """One thing to do with the data.

    Attributes:
        name: What it is, for a human reader.
        build: Makes the untrained classifier: float32 [N, 1, 28, 28] -> logits [N, 10 or more].
        distorted: Whether it trains on distorted images, as our network does.
    """

    name: str
    build: Callable[[], nn.Sequential]
    distorted: bool


@dataclass(frozen=True)
class Result:
    """How a method did: accuracy on the test set, 0 to 1, and what an answer takes in PyTorch on one thread."""

    name: str
    distorted: bool
    accuracy: float
    parameters: int
    microseconds: float


@dataclass(frozen=True)
class Baselines:
    """The results and what they hold for.

    Attributes:
        network: Our network in words, from which the variants were made.
        epochs: Length of each training.
        seed: Of everything random.
        images: How many were trained on.
        torch: The version of torch.
        results: One a method.
    """

    network: str
    epochs: int
    seed: int
    images: int
    torch: str
    results: tuple[Result, ...]


class Hog(nn.Module):
    """Histograms of oriented gradients: float32 [N, 1, 28, 28] -> [N, 1296]. Nothing in it is learnt.

    N. Dalal, B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005: gradients by [-1, 0, 1],
    nine unsigned orientations, each pixel voting with its gradient's length for the two nearest; cells of 4x4 pixels
    (theirs: 8x8, in larger pictures), overlapping blocks of 2x2 cells, normalised, clipped at 0.2, normalised again.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        place = torch.atan2(down, across) * (ORIENTATIONS / math.pi)  # in steps of 20 degrees; half a turn is 9
        orientation = torch.arange(ORIENTATIONS).reshape(1, -1, 1, 1)
        distance = (place - orientation).remainder(ORIENTATIONS)
        distance = torch.minimum(distance, ORIENTATIONS - distance)
        votes = F.relu(1 - distance) * torch.hypot(across, down)
        cells = F.avg_pool2d(votes, CELL_PIXELS)
        blocks = cells.unfold(2, BLOCK_CELLS, 1).unfold(3, BLOCK_CELLS, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
        clipped = F.normalize(blocks, dim=3).clamp(max=0.2)
        return F.normalize(clipped, dim=3).flatten(1)


def build_linear() -> nn.Sequential:
    """Build multinomial logistic regression on the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(IMAGE_SIZE**2, CLASSES))


def build_hog_linear() -> nn.Sequential:
    """Build multinomial logistic regression on HOG features."""
    blocks = IMAGE_SIZE // CELL_PIXELS - BLOCK_CELLS + 1
    return nn.Sequential(Hog(), nn.Linear(blocks**2 * BLOCK_CELLS**2 * ORIENTATIONS, CLASSES))


def build_fully_connected() -> nn.Sequential:
    """Build a fully connected network, 784-256-128-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(IMAGE_SIZE**2, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, CLASSES)
    )


def build_average_pooled() -> nn.Sequential:
    """Build our network with the mean of each window where it takes the largest."""
    return nn.Sequential(
        *(
            nn.AvgPool2d(layer.kernel_size, layer.stride) if isinstance(layer, nn.MaxPool2d) else layer
            for layer in build_network()
        )
    )


METHODS = (
    Method("linear classifier on pixels", build_linear, distorted=False),
    Method("linear classifier on HOG features", build_hog_linear, distorted=False),
    Method("fully connected network 784-256-128-10", build_fully_connected, distorted=False),
    Method("our network without distortion", build_network, distorted=False),
    Method("our network, average pooling", build_average_pooled, distorted=True),
    Method("our network", build_network, distorted=True),
)


def measure_baselines(
    training: LabelledImages, test: LabelledImages, *, epochs: int, methods: tuple[Method, ...] = METHODS
) -> Baselines:
    """Train each method on the training part, then measure it on the test set; says beforehand how long that takes.

    All on one CPU thread: as fast beside other work as alone, and the same result whatever the number of cores.
    """
    torch.set_num_threads(1)
    chosen, _ = validation_split(len(training.labels))
    images, labels = torch.tensor(training.images[chosen]), torch.tensor(training.labels[chosen]).long()
    seconds = sum(_seconds_per_step(method, images, labels) for method in methods)
    minutes = seconds * epochs * math.ceil(len(labels) / TRAINING_BATCH) / 60
    print(f"training {len(methods)} baselines for {epochs} epochs each: about {minutes:.1f} minutes", flush=True)
    results = []
    for method in methods:
        classifier = fit(method, images, labels, epochs=epochs)
        results.append(_measure(method, classifier, test))
        print(f"{method.name}: {results[-1].accuracy:.2%} of the test images read rightly", flush=True)
    return Baselines(describe(build_network()), epochs, SEED, len(labels), str(torch.__version__), tuple(results))


def fit(method: Method, images: torch.Tensor, labels: torch.Tensor, *, epochs: int) -> nn.Sequential:
    """Train a method on uint8 images [N, 28, 28] and labels int64 [N].

    The same arguments and number of CPU threads give the same classifier on the same kind of CPU.
    """
    torch.manual_seed(SEED)  # the weights' start and dropout
    generator = torch.Generator().manual_seed(SEED)
    classifier = _start(method)
    optimizer = torch.optim.AdamW(classifier.parameters())
    steps = math.ceil(len(labels) / TRAINING_BATCH) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for chosen in tqdm(_batches(len(labels), epochs, generator), method.name, steps, leave=False, disable=None):
        optimizer.zero_grad()
        _loss(method, classifier, images[chosen], labels[chosen], generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return classifier.eval()


def _start(method: Method) -> nn.Sequential:
    classifier: nn.Sequential = method.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return classifier.train()


def _batches(count: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        yield from torch.split(torch.randperm(count, generator=generator), TRAINING_BATCH)


def _loss(
    method: Method, classifier: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    inputs = to_input(images)
    if method.distorted:
        inputs = distort(inputs, generator)
    with torch.autocast("cpu", torch.bfloat16):  # halves the time where the CPU knows it
        logits = classifier(inputs.contiguous(memory_format=torch.channels_last))
    return F.cross_entropy(logits.float(), labels)


def _seconds_per_step(method: Method, images: torch.Tensor, labels: torch.Tensor) -> float:
    classifier, generator = _start(method), torch.Generator()
    batch = (images[:TRAINING_BATCH], labels[:TRAINING_BATCH])
    _loss(method, classifier, *batch, generator).backward()  # type: ignore[no-untyped-call]  # the first is slower
    start = time.perf_counter()
    for _ in range(TIMED_STEPS):
        _loss(method, classifier, *batch, generator).backward()  # type: ignore[no-untyped-call]
    return (time.perf_counter() - start) / TIMED_STEPS


def _measure(method: Method, classifier: nn.Sequential, test: LabelledImages) -> Result:
    classifier = fold_batch_norm(classifier)
    digits = predict(classifier, torch.tensor(test.images))[:, :CLASSES].argmax(dim=1)
    return Result(
        method.name,
        method.distorted,
        accuracy=(digits == torch.tensor(test.labels).long()).double().mean().item(),
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        microseconds=_microseconds(classifier, test),
    )


@torch.inference_mode()
def _microseconds(classifier: nn.Sequential, test: LabelledImages) -> float:
    batch = to_input(torch.tensor(test.images[:BATCH_SIZE])).contiguous(memory_format=torch.channels_last)
    return microseconds_per_image(lambda: classifier(batch))


def to_json(baselines: Baselines) -> bytes:
    """Write the results as JSON."""
    return (json.dumps(dataclasses.asdict(baselines), indent=2) + "\n").encode()


def read_baselines(path: Path) -> Baselines | None:
    """Read what `to_json` wrote; None where there is no file.

    Raises:
        DataError: The file holds something else.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        results = tuple(Result(**result) for result in content.pop("results"))
        return Baselines(**content, results=results)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no file of `report --baselines`: {error}; that command writes it anew") from None
