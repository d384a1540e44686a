"""A picture -> how much ink is where: the paper, its light, its rules and whatever else lies on it taken away.

The way is `find_ink`: one channel is made of three, the paper is taken away,
then its lines, and of what remains only the digit stays, or the several that
are there. Paper is what a grey closing (dilation, then erosion; Serra, "Image
Analysis and Mathematical Morphology", 1982) leaves of a picture: strokes
vanish in it and shadows, table edges and glare stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.pictures.filters import between, box_mean, closing, roughness, shrink, with_seam
from service.pictures.parts import find_digit_parts
from service.pictures.rules import without_rules
from service.pictures.sheets import without_table
from service.pictures.steps import Note, unnoted

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Contrast, out of 255, below which a picture holds no ink worth enlarging.
FAINTEST_INK = 7
# Noise that there is in any photo, as the levels of a file are whole numbers.
ROUNDING = 0.3
# Ink and paper are clearly apart if their levels are by this many times the standard deviations of both.
APART = 3.0
# Standard deviations of the paper's noise that ink has to rise above.
ABOVE_NOISE = 5.0
# Strokes are narrower than one of these shares of the picture; what is wider belongs to the paper and its light.
WIDEST_STROKES = (0.08, 0.2, 0.4)
# Differences between neighbours from which on a picture is smoothed.
GRAINY = 4
# Pixels a side of the reduced picture in which the ways to look at it are compared.
GLANCE_SIDE = 170
# Pixels a side among which the colour of the ink is looked for.
COLOUR_SIDE = 100
# Light ink on dark paper is rarer.
LIGHT_INK = 0.8
# Share of the smoothness that wider strokes would bring which is enough for narrower ones.
NEARLY_SMOOTHEST = 0.94
# Contrast of the digit's ink below which a share of it is none.
SMUDGE = 0.3
# Shadows and glare need more than this share of the picture to change from paper to full contrast.
WIDEST_EDGE = 0.05
# unless it is less than this share of the digit: a photo may be out of focus.
BLURREST_DIGIT = 0.12
# The largest part of a digit in a photo is at least this share of it.
SMALLEST_DIGIT = 0.03
# Ink under the band of a shadow is this much darker than it, and as a digit at least this share of the picture.
DARKER_THAN_BAND, SMALLEST_BENEATH = 1.3, 0.12
# Such a band takes at most this share of the height and width together; what takes more is a texture.
WIDEST_BAND = 0.3
# Ink is this much above the faintest that could be told from noise.
CLEARLY = 1.5
# A photo in which no ink is found is looked at again in half its size, if that leaves so many pixels a side.
SMALLEST_HALVED = 100
# Share of a picture that is either ink or paper if it was drawn; the rest are edges.
TWO_LEVELS = 0.8
# In pictures this small light does not change, and a stroke may be a third of them wide.
THUMBNAIL_SIDE = 48


def find_ink(picture: Pixels, note: Note = unnoted) -> Field | None:
    """How much of each pixel is ink of the digit.

    Args:
        picture: uint8 of shape (height, width) or (height, width, 3).
        note: Is shown the pictures on the way.

    Returns:
        float32 of (height, width), or half of that, 0 paper to 1 ink; None when the picture shows no ink.
    """
    channel = colour_of_ink(picture)
    note("grey", channel)
    if (level := even_paper(channel)) is not None:
        return _digit_of(*rise_above_level(channel, level), note)
    if (sheet := without_table(picture)) is not picture:
        channel = colour_of_ink(sheet)
    ink = _ink_of_photo(channel, note)
    if ink is None and max(channel.shape) >= 2 * SMALLEST_HALVED:
        # The mean of four pixels has half of their noise, in which faint ink may have drowned.
        ink = _ink_of_photo(shrink(channel, -(-max(channel.shape) // 2)), note)
    return ink


def _ink_of_photo(channel: Pixels, note: Note) -> Field | None:
    smooth = without_grain(channel)
    ink = _digit_of(*rise_above_paper(smooth, best_view(smooth), note), note)
    return ink if ink is not None and has_edges(ink) else None


def _digit_of(rise: Field, noise: float, note: Note) -> Field | None:
    note("contrast", rise)
    faintest = faintest_ink(rise, noise)
    rise = without_rules(rise, faintest)
    note("unruled", rise)
    return find_digit(rise, faintest, noise)


def faintest_ink(rise: Field, noise: float) -> float:
    """Contrast from which on something is ink, on paper with this standard deviation of its noise."""
    if noise == 0 and float(rise.max()) >= FAINTEST_INK:
        return SMUDGE * float(rise.max())
    return max(FAINTEST_INK, ABOVE_NOISE * noise)


def colour_of_ink(picture: Pixels) -> Pixels:
    """One channel in which ink and paper differ most, whatever the colours of the two.

    It is the first principal component of the differences between each pixel
    and its surroundings, since light changes slowly and strokes do not.
    """
    if picture.ndim == 2:
        return picture
    step = -(-max(picture.shape) // COLOUR_SIDE)
    coarse = picture[::step, ::step].astype(np.float32)
    detail = (coarse - box_mean(coarse, max(2, max(coarse.shape) // 8))).reshape(-1, 3)
    # The strongest differences are strokes; the many weak ones are noise.
    strength = (detail**2).sum(1)
    tenth = -(-9 * (len(strength) - 1) // 10)
    chosen = detail[strength >= np.partition(strength, tenth)[tenth]]
    direction = np.linalg.eigh(chosen.T @ chosen)[1][:, -1] / np.sqrt(3)
    red, green, blue = (direction * (np.sign(direction.sum()) or 1.0)).astype(np.float32)
    channel = picture[..., 0] * red + picture[..., 1] * green + picture[..., 2] * blue
    return np.asarray((channel - min(float(channel.min()), 0.0)).clip(0, 255), np.uint8)


def even_paper(channel: Pixels) -> float | None:
    """The level of paper that is the same everywhere, as in drawings and very small pictures; None in a photo."""
    border = np.concatenate([channel[0], channel[-1], channel[:, 0], channel[:, -1]])
    level = int(np.bincount(border).argmax())
    if max(channel.shape) <= THUMBNAIL_SIDE:
        return float(level) if (border == level).mean() >= 0.3 else _paper_of_thumbnail(channel, border)
    if (channel == level).mean() >= 0.5 and (border == level).mean() >= 0.5:
        return float(level)
    return _paper_of_two_levels(channel)


def _paper_of_thumbnail(channel: Pixels, border: Pixels) -> float:
    """The level of the border's lighter or darker part, whichever takes more of the border and the picture."""
    middle = between(channel)
    is_light = (border > middle).mean() + (channel > middle).mean() > 1
    paper = border[(border > middle) == is_light]
    return float(np.median(paper if len(paper) else border))


def _paper_of_two_levels(channel: Pixels) -> float | None:
    """The level of most corners of a drawing, one ink on one paper, that was cut out with little paper left."""
    counts = np.bincount(channel.reshape(-1), minlength=256)
    ink_and_paper = np.argsort(-counts, kind="stable")[:2]
    if counts[ink_and_paper].sum() < TWO_LEVELS * channel.size:
        return None
    corners = channel[[0, 0, -1, -1], [0, -1, 0, -1]]
    found = (corners[:, None] == ink_and_paper).sum(0)
    return float(ink_and_paper.max() if found[0] == found[1] else ink_and_paper[found.argmax()])


def rise_above_level(channel: Pixels, level: float) -> tuple[Field, float]:
    """How far each pixel is from paper of one level, on the side of it where the ink is, and the paper's noise."""
    difference = channel.astype(np.float32) - level
    lighter, darker = np.maximum(difference, 0), np.maximum(-difference, 0)
    ink, noise = (lighter, darker) if (lighter**2).sum() > (darker**2).sum() else (darker, lighter)
    # The side away from the ink shows half of the noise, and nothing else.
    return ink, float(np.sqrt(2 * (noise**2).mean()))


def without_grain(channel: Pixels) -> Pixels:
    """Smooth a grainy picture; one with little grain stays as it is, hairlines and all."""
    # The median of the differences of neighbours is 0.95 standard deviations of their noise: strokes are few.
    differences = np.abs(np.diff(channel[::2].astype(np.int16), axis=1))
    if not differences.size or float(np.median(differences)) < GRAINY:
        return channel
    return np.asarray(box_mean(channel[..., None].astype(np.float32), 1)[..., 0].round(), np.uint8)


@dataclass(frozen=True, slots=True)
class View:
    """A way to look at a picture.

    Attributes:
        light_ink: Ink is lighter than the paper.
        widest: Width of the widest stroke, as a share of the picture's longer side.
    """

    light_ink: bool
    widest: float


def best_view(channel: Pixels) -> View:
    """Which polarity leaves the smoothest paper, and the narrowest stroke that does nearly so, by a reduced picture.

    Paper with its strokes taken away has no sharp edges left; paper from
    which only the gaps between the strokes were taken still has them.
    """
    glance = shrink(channel, GLANCE_SIDE)
    dark, light = _smoothness(glance), _smoothness(255 - glance)
    light_ink = LIGHT_INK * sum(light) > sum(dark)
    gained = light if light_ink else dark
    enough = NEARLY_SMOOTHEST * max(gained)
    return View(light_ink, next(widest for widest, gain in zip(WIDEST_STROKES, gained, strict=True) if gain >= enough))


def _smoothness(grey: Pixels) -> list[float]:
    """How much smoother a picture becomes without dark strokes, for each of `WIDEST_STROKES`."""
    rough = roughness(grey)
    return [rough - roughness(closing(grey, max(3, round(widest * max(grey.shape))))) for widest in WIDEST_STROKES]


def rise_above_paper(channel: Pixels, view: View, note: Note = unnoted) -> tuple[Field, float]:
    """How far each pixel is from the paper under it, in levels as if all paper were lit alike.

    Returns:
        float32 of shape (height, width), at least 0, and the standard deviation of its noise.
    """
    grey = 255 - channel if view.light_ink else channel
    paper = closing(grey, max(3, round(view.widest * max(grey.shape))))
    note("paper", 255 - paper if view.light_ink else paper)
    rise = paper.astype(np.float32) - grey
    if not view.light_ink:
        # Ink reflects a share of the light: in half the light its contrast is half.
        brightness = paper.astype(np.float32) + 16
        rise *= (float(np.median(brightness)) / brightness).clip(0.5, 2)
    # A closing lies above noisy paper by as much as the noise reaches.
    sixteenth, offset = np.quantile(_low_part(rise[::2, ::2]), [0.16, 0.5])
    noise = max(float(offset - sixteenth), ROUNDING)
    return (rise - offset).clip(0), noise


def _low_part(rise: Field) -> Field:
    """What of a rise is paper, where clearly apart from ink that may cover more than half of the picture; else all."""
    levels = rise.clip(0, 255).astype(np.uint8)
    is_low = levels <= between(levels)
    low, high = rise[is_low], rise[~is_low]
    apart = len(high) > 0 and float(high.mean() - low.mean()) > APART * float(high.std() + low.std())
    return low if apart else rise


def find_digit(rise: Field, faintest: float, noise: float) -> Field | None:
    """Keep of the ink what belongs to the digit, and scale it to 0 to 1; None where all ink may as well be noise."""
    found = find_digit_parts(rise, faintest)
    if found is None:
        return None
    mask, extent = found
    strong = strength(rise, mask)
    # What is much fainter than the digit's ink is smudge, shadow or show-through.
    if (threshold := SMUDGE * strong) > faintest and (found := find_digit_parts(rise, threshold)):
        mask, extent = found
        strong = strength(rise, mask)
    if noise and (above := _above_band(rise, mask)):
        mask, extent = above
        strong = strength(rise, mask)
    if noise and (strong < CLEARLY * faintest or extent < SMALLEST_DIGIT * max(rise.shape)):
        return None
    floor = min(3 * noise, strong / 2)
    ink = ((rise - floor) / (strong - floor)).clip(0, 1)
    return np.where(with_seam(mask), ink, np.float32(0))


def _above_band(rise: Field, mask: Mask) -> tuple[Mask, int] | None:
    """What is darker than the band of a shadow across picture and digit; None where there is no such band."""
    # In a thumbnail it is a digit that fills it.
    if max(mask.shape) <= THUMBNAIL_SIDE or _borders(mask) < 2:
        return None
    edge = np.concatenate([rise[0][mask[0]], rise[-1][mask[-1]], rise[:, 0][mask[:, 0]], rise[:, -1][mask[:, -1]]])
    if len(edge) > WIDEST_BAND * sum(rise.shape):
        return None
    found = find_digit_parts(rise, DARKER_THAN_BAND * float(np.quantile(edge, 0.75)))
    if found is None or found[1] < SMALLEST_BENEATH * max(rise.shape) or _borders(found[0]):
        return None
    return found


def _borders(mask: Mask) -> int:
    """How many of the picture's four borders a mask touches."""
    return sum(bool(border.any()) for border in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def has_edges(ink: Field) -> bool:
    """Whether the ink has the sharp edges of strokes, which shadows and glare lack."""
    small = shrink(ink, GLANCE_SIDE)
    down, across = np.diff(small, axis=0)[:, :-1], np.diff(small, axis=1)[:-1]
    squared = down**2 + across**2
    edge = float(np.sqrt(squared).sum() / max(float(squared.sum()), 1e-6))
    digit_side = max(np.ptp(np.flatnonzero(small.any(1))), np.ptp(np.flatnonzero(small.any(0)))) if small.any() else 0
    return bool(edge <= max(WIDEST_EDGE * max(small.shape), BLURREST_DIGIT * digit_side))


def strength(rise: Field, mask: Mask) -> float:
    """Contrast of the ink under a mask: what a tenth of its pixels exceed."""
    levels = np.sort(rise[mask])
    return float(levels[len(levels) * 9 // 10])
