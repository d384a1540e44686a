"""The outside of a protobuf message, looked at before it is parsed."""

from __future__ import annotations

# A batch of 65,536 images, the most that can be set, and some more.
MOST_FIELDS = 70_000

VARINT, EIGHT_BYTES, LENGTH, GROUP, END_OF_GROUP, FOUR_BYTES = range(6)


def has_too_many_fields(data: bytes, most: int = MOST_FIELDS) -> bool:
    """Whether a message has more fields than any request needs: empty ones take two bytes here, and a hundred parsed.

    Those inside its fields are not counted: none of our messages has others
    in there that may be many. A group, which none of them has, counts as two,
    its begin and its end, and what is inside it counts, too. No byte is looked
    at twice. Of what is no message, the parser will tell.

    Args:
        data: The message.
        most: Fields that are not too many.
    """
    end, position = len(data), 0
    try:
        for _ in range(most):
            if position >= end:
                return False
            tag, position = _varint(data, position)
            kind = tag & 7
            if kind == LENGTH:
                length, position = _varint(data, position)
                position += length
            elif kind == VARINT:
                _, position = _varint(data, position)
            elif kind == FOUR_BYTES:
                position += 4
            elif kind == EIGHT_BYTES:
                position += 8
            elif kind not in (GROUP, END_OF_GROUP):
                return False
    except IndexError:
        return False
    return position < end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a place, and where it ends.

    Raises:
        IndexError: It does not end in the message, or not after the ten bytes that are the most for 64 bits: to put
            together one of megabytes would take most of an hour.
    """
    number, shift = 0, 0
    while (byte := data[position]) >= 0x80:
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if shift > 63:
            raise IndexError(position)
    return number | byte << shift, position + 1
