"""The lines of ruled and squared paper, taken away without the strokes that cross them.

A line is a path that goes from side to side with little slope (path opening;
Heijmans, Buckley, Talbot, 2005). What is removed of it are its thin places
only, as is done with the staves of sheet music: where a stroke crosses, the
ink is longer across the line.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.pictures.parts import find_runs, paint

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# In smaller pictures a line is as wide as a stroke.
SMALLEST_SIDE = 100
# A line crosses at least this share of the picture,
SHORTEST = 0.55
# and has neighbours: a single one may be a stroke.
FEWEST = 3
# Lines are thinner than this share of the picture.
WIDEST = 0.02
# A stroke along a line is known by being this much darker than nearly all of the lines.
DARKER = 1.4
# A path may rise by one pixel in this many.
SLOPE = 3


def without_rules(rise: Field, faintest: float) -> Field:
    """Take away the lines of the paper.

    Args:
        rise: float32 (height, width), contrast with the paper.
        faintest: Contrast from which on something is ink.

    Returns:
        The same with lines set to 0.
    """
    if min(rise.shape) < SMALLEST_SIDE:
        return rise
    mask = rise > faintest
    level = level_rules(rise, mask, long_paths(mask))
    # Paths are looked for among all ink: where the level lines are gone, the upright ones have gaps.
    upright = level_rules(rise.T, (mask & ~level).T, long_paths(mask.T)).T
    return np.where(level | upright, np.float32(0), rise)


def level_rules(rise: Field, mask: Mask, paths: Mask) -> Mask:
    """What of the ink under a mask belongs to lines from left to right, given the long paths among it."""
    if not paths.any():
        return paths
    # Runs down the columns are what is across a line that goes from left to right.
    across = find_runs(mask.T)
    passed = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int32)
    np.cumsum(paths.T, 1, out=passed[:, 1:])
    on_path = passed[across.row, across.end] > passed[across.row, across.start]
    length = across.end - across.start
    thickness = float(np.quantile(length[on_path], 0.75)) if on_path.any() else 0
    thin = on_path & (length <= 1.6 * thickness + 1)
    rules = paint(across.only(thin), mask.T.shape).T
    if thickness > max(2, WIDEST * max(rise.shape)) or count_lines(rules) < FEWEST:
        return np.zeros_like(mask)
    # What is far darker than the lines is a stroke along one.
    return np.asarray(rules & (rise < DARKER * np.quantile(rise[rules], 0.9)))


def long_paths(mask: Mask) -> Mask:
    """Pixels on a path from left to right, of slope at most 1 in `SLOPE`, that is long enough for a line."""
    height, width = mask.shape
    steps = width // SLOPE
    # One column of `coarse` for each `SLOPE` of the picture bridges gaps, too.
    coarse: Mask = np.ascontiguousarray(mask[:, : steps * SLOPE].reshape(height, steps, SLOPE).any(2).T)
    length = _path_lengths(coarse) + _path_lengths(coarse[::-1])[::-1] - coarse
    long = np.repeat((length >= SHORTEST * steps).T, SLOPE, axis=1)
    return np.asarray(mask & np.pad(long, [(0, 0), (0, width - steps * SLOPE)], mode="edge"))


def _path_lengths(coarse: Mask) -> npt.NDArray[np.int16]:
    """Steps of the longest path that ends at each pixel; rows of `coarse` are the steps."""
    lengths = np.zeros((coarse.shape[0], coarse.shape[1] + 2), np.int16)
    before = np.zeros(coarse.shape[1] + 2, np.int16)
    for step, here in enumerate(coarse):
        inner = lengths[step, 1:-1]
        np.maximum(before[:-2], before[2:], out=inner)
        np.maximum(inner, before[1:-1], out=inner)
        inner += 1
        inner *= here
        before = lengths[step]
    return lengths[:, 1:-1]


def count_lines(rule: Mask) -> int:
    """How many separate lines cross the middle of the picture, the most of three places."""
    columns = rule.shape[1] * np.array([1, 2, 3]) // 4
    return int((np.diff(rule[:, columns].astype(np.int8), axis=0) > 0).sum(0).max())
