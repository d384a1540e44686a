"""The outside of a protobuf message, looked at before it is parsed."""

from __future__ import annotations

# A batch of 65,536 images, the most that can be set, and some more.
MOST_FIELDS = 70_000

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


def has_too_many_fields(data: bytes, most: int = MOST_FIELDS) -> bool:
    """Whether a message has more fields than any request needs: empty ones take two bytes here, and a hundred parsed.

    Those inside its fields are not counted: none of our messages has others
    in there that may be many. Of what is no message, the parser will tell.

    Args:
        data: The message.
        most: Fields that are not too many.
    """
    end, position = len(data), 0
    try:
        for _ in range(most):
            if position >= end:
                return False
            kind = data[position] & 7
            position = _after_varint(data, position)
            if kind == LENGTH:
                length, shift = 0, 0
                while True:
                    byte = data[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
                position += length
            elif kind == VARINT:
                position = _after_varint(data, position)
            elif kind == FOUR_BYTES:
                position += 4
            elif kind == EIGHT_BYTES:
                position += 8
            else:
                return False
    except IndexError:
        return False
    return position < end


def _after_varint(data: bytes, position: int) -> int:
    while data[position] >= 0x80:
        position += 1
    return position + 1
