"""What a version of the model did since it was loaded, as plain numbers; times are in seconds.

A request that brings pixels is counted under `pixels`; one that brings image
files under `files`, and under `pixels` as well when they have been read: the
model `digits_image` is a reader of files in front of the model `digits`. One
that brings files and wants layers is counted under `layers` besides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.runs import batching


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """It happened once more."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True, eq=False)
class Requests:
    """Requests of one kind.

    Attributes:
        images: Images answered.
        executions: Runs that held some of them.
        last: When the last request was answered, in seconds since 1970; 0 if none was.
        success: Requests answered.
        fail: Requests that were refused, failed, or whose callers left.
        queue: Their waiting for the model.
        input: What was done before that.
        infer: The runs that held their images.
        output: What was done after that.
        batches: Runs by how many of them they held.
    """

    images: int = 0
    executions: int = 0
    last: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)

    def answered(
        self, images: int, *, input: float, queue: float, infer: float, output: float = 0.0, total: float
    ) -> None:
        """A request was answered; `total` is at least the sum of the phases."""
        self.images += images
        self.last = time.time()
        self.success.add(total)
        self.input.add(input)
        self.queue.add(queue)
        self.infer.add(infer)
        self.output.add(output)

    def ran(self, images: int, seconds: float) -> None:
        """One run held this many images of these requests."""
        self.executions += 1
        self.batches.setdefault(images, Duration()).add(seconds)


class Statistics:
    """Of one version: stands between its batcher and whoever watches all of them.

    Attributes:
        pixels: All requests, once there are pixels, and all runs.
        files: Requests that bring image files, and the runs that held images of theirs.
        layers: Requests that want what comes out of layers, and the runs that showed it.
    """

    def __init__(self, observer: batching.Observer):
        """Begin to count; what the batcher tells is passed on to the observer."""
        self._observer = observer
        self.pixels = Requests()
        self.files = Requests()
        self.layers = Requests()

    def queue_changed(self, images: int) -> None:
        """This many more images wait for the model, or fewer."""
        self._observer.queue_changed(images)

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> object:
        """The model ran once, on groups of images that had waited this long; returns what the observer does."""
        self.pixels.ran(images, seconds)
        return self._observer.model_ran(images, seconds, waits)
