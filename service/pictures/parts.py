"""Connected parts of the ink, and which of them are the digit.

Labelling works on runs (horizontal stretches of ink) instead of pixels
(He, Chao, Suzuki, "A run-based two-scan labeling algorithm", 2008): a picture
has few of them, and numpy handles them all at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Pixels of a picture in which whether the ink is all one part is quickly found out.
SMALL_PIXELS = 48 * 48
# Of the parts, only the largest are looked at.
MOST_PARTS = 64
# A part that touches the picture's border counts as this much of one that does not.
AT_BORDER = 0.15
# So does one that lies wholly within this share of the picture along its border: holes and edges of paper.
AT_MARGIN = 0.08
# A bar is this much longer than wide, and fills this share of the rectangle with the same moments.
BAR_LENGTH, BAR_FILLED = 5.0, 0.85
# A bar is no stroke beside something of this share of the picture, if it is this much longer and this far away from it.
SOMETHING, LONGER, AWAY = 0.12, 1.5, 0.1
# A frame is printed around the digit: nearly all of it is within the first share of its box along the box's sides, what
# it surrounds is at least the second share as long, and with its hole it fills the third of its box, an ellipse less.
FRAME_MARGIN, FRAMED, FRAME_FILLED = 0.12, 0.25, 0.85


@dataclass(frozen=True, slots=True)
class Runs:
    """Horizontal stretches of ink, in reading order: pixels `start` to `end` - 1 of `row`."""

    row: Indices
    start: Indices
    end: Indices

    def only(self, chosen: Mask) -> Runs:
        """Some of them."""
        return Runs(self.row[chosen], self.start[chosen], self.end[chosen])


def find_runs(mask: Mask) -> Runs:
    """The runs of a mask of shape (height, width)."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), np.int8)
    padded[:, :width] = mask
    edges = np.diff(padded.reshape(-1), prepend=0)
    starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
    row = starts // (width + 1)
    return Runs(row, starts - row * (width + 1), ends - row * (width + 1))


def label_runs(runs: Runs, width: int) -> Indices:
    """Number the connected parts: 0, 1, ... for each run; runs that touch, also by a corner, get the same."""
    above, below = _touching(runs, width)
    label = np.arange(len(runs.row))
    while True:
        lower = np.minimum(label[above], label[below])
        np.minimum.at(label, label[above], lower)
        np.minimum.at(label, label[below], lower)
        while not np.array_equal(label, follow := label[label]):
            label = follow
        if np.array_equal(label[above], label[below]):
            return np.asarray(np.unique(label, return_inverse=True)[1], np.int64)


def _touching(runs: Runs, width: int) -> tuple[Indices, Indices]:
    """Pairs of runs, each with one of the next row that it touches."""
    stride = width + 2
    first = np.searchsorted(runs.row * stride + runs.end, (runs.row + 1) * stride + runs.start, "left")
    last = np.searchsorted(runs.row * stride + runs.start, (runs.row + 1) * stride + runs.end, "right")
    count = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(runs.row)), count)
    below = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + np.repeat(first, count)
    return above, below


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a picture's ink above a threshold.

    Attributes:
        rise: float32 (height, width), the contrast they were found in.
        runs: All runs of ink.
        label: Part of each run.
        weight: Sum of the contrast of each part.
        box: int64 (parts, 4): top, left, bottom, right of each part, the last two exclusive.
    """

    rise: Field
    runs: Runs
    label: Indices
    weight: npt.NDArray[np.float64]
    box: Indices

    def any_ink(self) -> bool:
        """Whether there is any part."""
        return len(self.weight) > 0

    def extent(self) -> Indices:
        """Longer side of each part's box."""
        return np.asarray((self.box[:, 2:] - self.box[:, :2]).max(1))

    def digit(self) -> Indices:
        """Numbers of the parts that make up the digit: the main one, those as large, and those close to it."""
        height, width = self.rise.shape
        largest = np.argsort(-self.weight, kind="stable")[:MOST_PARTS]
        box = self.box[largest]
        margin = AT_MARGIN * max(height, width)
        at_border = (box[:, :2] == 0).any(1) | (box[:, 2] == height) | (box[:, 3] == width)
        at_margin = (box[:, 2:] < margin).any(1) | (box[:, 0] > height - margin) | (box[:, 1] > width - margin)
        middle = (box[:, :2] + box[:, 2:]) / 2 / (height, width) - 0.5
        score = self.weight[largest] * np.where(at_border | at_margin, AT_BORDER, 1.0) * (1 - np.hypot(*middle.T))
        extent = self.extent()[largest]
        foreign = np.zeros(len(largest), bool)
        if len(largest) > 1:
            foreign = self._foreign(largest, extent, at_border) | self._frames(largest, extent)
        score[foreign] = 0
        # Long things at the border are the edge of the page or the table, a finger or a neighbour cut off.
        main = int(score.argmax())
        chosen = np.zeros(len(largest), bool)
        chosen[main] = True
        while True:
            whole = np.concatenate([box[chosen, :2].min(0), box[chosen, 2:].max(0)])
            size = (whole[2:] - whole[:2]).max()
            gap = np.hypot(*np.maximum(0, np.maximum(box[:, :2] - whole[2:], whole[:2] - box[:, 2:])).T)
            belongs = extent >= size * np.minimum(0.12 + 1.2 * gap / size, 0.5)
            belongs &= (~at_border | at_border[main]) & ~foreign
            if not (belongs & ~chosen).any():
                return np.sort(largest[chosen])
            chosen |= belongs

    def _foreign(self, numbers: Indices, extent: Indices, at_border: Mask) -> Mask:
        """Which parts are a pen, or the band of a shadow, that lies beside what may be a digit."""
        height, width = self.rise.shape
        box = self.box[numbers]
        bar = self._bars()[numbers]
        other = ~bar & ~at_border & (extent >= SOMETHING * max(height, width))
        if not bar.any() or not other.any():
            return np.zeros(len(numbers), bool)
        largest = int(np.where(other, extent, 0).argmax())
        apart = np.maximum(0, np.maximum(box[:, :2] - box[largest, 2:], box[largest, :2] - box[:, 2:])).max(1)
        borders = (box[:, :2] == 0).sum(1) + (box[:, 2] == height) + (box[:, 3] == width)
        longer = (extent >= LONGER * extent[largest]) & (apart >= AWAY * extent[largest])
        return np.asarray(bar & ((borders >= 2) | longer))

    def _frames(self, numbers: Indices, extent: Indices) -> Mask:
        """Which parts are frames with something inside them, as around the fields of a form."""
        box, runs, label = self.box, self.runs, self.label
        margin = FRAME_MARGIN * (box[:, 2:] - box[:, :2])
        top, left, bottom, right = np.concatenate([box[:, :2] + margin, box[:, 2:] - margin], axis=1).T
        inside = (np.minimum(runs.end, right[label]) - np.maximum(runs.start, left[label])).clip(0)
        inside = np.where((runs.row >= top[label]) & (runs.row < bottom[label]), inside, 0)
        hollow = np.bincount(label, inside) <= 0.02 * np.bincount(label, runs.end - runs.start)
        frames = np.zeros(len(numbers), bool)
        for index in np.flatnonzero(hollow[numbers]):
            part = numbers[index]
            within = ((box[numbers, :2] > box[part, :2]) & (box[numbers, 2:] < box[part, 2:])).all(1)
            if (extent[within] >= FRAMED * extent[index]).any():
                place = np.s_[box[part, 0] : box[part, 2], box[part, 1] : box[part, 3]]
                frames[index] = filled(self.mask_of(numbers[[index]])[place]).mean() >= FRAME_FILLED
        return frames

    def _bars(self) -> Mask:
        """Which parts are straight, long and filled, by their second moments."""
        count, runs = len(self.weight), self.runs
        pixels = (runs.end - runs.start).astype(np.float64)
        middle, row = (runs.start + runs.end - 1) / 2, runs.row.astype(np.float64)

        def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.bincount(self.label, pixels * values, count) / area

        area = np.bincount(self.label, pixels, count)
        x, y = mean(middle), mean(row)
        xx = mean(middle**2 + (pixels**2 - 1) / 12) - x**2 + 1 / 12
        yy, xy = mean(row**2) - y**2 + 1 / 12, mean(row * middle) - x * y
        half, bent = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        length, width = np.sqrt(12 * (half + bent)), np.sqrt(12 * np.maximum(half - bent, 1 / 12))
        return np.asarray((length >= BAR_LENGTH * width) & (area >= BAR_FILLED * length * width))

    def mask_of(self, numbers: Indices) -> Mask:
        """Where some of the parts are: bool (height, width)."""
        wanted = np.zeros(len(self.weight), bool)
        wanted[numbers] = True
        return paint(self.runs.only(wanted[self.label]), self.rise.shape)


def paint(runs: Runs, shape: tuple[int, ...]) -> Mask:
    """The mask that has these runs."""
    edges = np.zeros((shape[0], shape[1] + 1), np.int8)
    edges[runs.row, runs.start] = 1
    edges[runs.row, runs.end] = -1
    return np.asarray(edges.cumsum(1, dtype=np.int8)[:, :-1].view(bool))


def filled(mask: Mask) -> Mask:
    """The mask and its holes: what cannot be reached from the border."""
    outside = np.pad(~mask, 1, constant_values=True)
    runs = find_runs(outside)
    label = label_runs(runs, outside.shape[1])
    return ~paint(runs.only(label == label[0]), outside.shape)[1:-1, 1:-1]


def find_parts(rise: Field, threshold: float) -> Parts:
    """The connected parts of what rises above a threshold."""
    mask = rise > threshold
    runs = find_runs(mask)
    label = label_runs(runs, mask.shape[1])
    count = int(label.max()) + 1 if len(label) else 0
    sums = np.zeros((mask.shape[0], mask.shape[1] + 1))
    np.cumsum(rise, 1, dtype=np.float64, out=sums[:, 1:])
    weight = np.bincount(label, sums[runs.row, runs.end] - sums[runs.row, runs.start], count)
    box = np.empty((count, 4), np.int64)
    box[:, :2], box[:, 2:] = max(mask.shape), 0
    np.minimum.at(box[:, 0], label, runs.row)
    np.minimum.at(box[:, 1], label, runs.start)
    np.maximum.at(box[:, 2], label, runs.row + 1)
    np.maximum.at(box[:, 3], label, runs.end)
    return Parts(rise, runs, label, weight.astype(np.float64), box)


def find_digit_parts(rise: Field, threshold: float) -> tuple[Mask, int] | None:
    """Where the digit is in what rises above a threshold, and the longer side of its largest part; None without ink."""
    mask = rise > threshold
    if mask.size <= SMALL_PIXELS and is_one_part(mask):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return mask, int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1
    parts = find_parts(rise, threshold)
    if not parts.any_ink():
        return None
    digit = parts.digit()
    return parts.mask_of(digit), int(parts.extent()[digit].max())


def is_one_part(mask: Mask) -> bool:
    """Whether there is ink, all of it connected: a flood that starts at a pixel fills it.

    The mask is one whole number, a bit a pixel, so that a step of the flood is a few shifts.
    """
    stride = mask.shape[1] + 1
    padded = np.zeros((mask.shape[0], stride), bool)
    padded[:, :-1] = mask
    ink = int.from_bytes(np.packbits(padded).tobytes(), "big")
    flood, wider = 0, ink & -ink
    while wider != flood:
        flood = wider
        wider |= wider << 1 | wider >> 1
        wider = (wider | wider << stride | wider >> stride) & ink
    return ink != 0 and flood == ink
