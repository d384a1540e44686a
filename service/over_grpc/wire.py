"""The outside of a protobuf message, looked at before it is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import Descriptor, FieldDescriptor

# A batch of 65,536 images, the most that can be set, and some more.
MOST_FIELDS = 70_000

# What is inside the fields of these numbers, where that may be much: messages, or numbers of 64 bits.
Inside = Mapping[int, "Inside | None"]
NOTHING: Inside = MappingProxyType({})
# Each may be one byte where many are packed into one field, and is eight when parsed: as many count as one field.
LONG, NUMBERS_A_FIELD = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64), 8
VARINT, EIGHT_BYTES, LENGTH, GROUP, END_OF_GROUP, FOUR_BYTES = range(6)


def inside(message: Descriptor) -> Inside:
    """Which fields of a message hold messages, and what is in those, or many numbers: None.

    Entries of a map count as one field each, whatever is in them: the parser keeps one.
    """
    found: dict[int, Inside | None] = {}
    for field in message.fields:
        of = field.message_type
        if of is not None and of is not message and not of.GetOptions().map_entry and of.fields:
            found[field.number] = inside(of)
        elif field.is_repeated and field.cpp_type in LONG:
            found[field.number] = None
    return found


def has_too_many_fields(data: bytes, most: int = MOST_FIELDS, within: Inside = NOTHING) -> bool:
    """Whether a message has more fields than any request needs: empty ones take two bytes here, and a hundred parsed.

    Those inside its fields count where `within` has them. A group, which none
    of our messages has, counts as two, its begin and its end, and what is
    inside it counts, too. No byte is looked at twice. Of what is no message,
    the parser will tell.

    Args:
        data: The message.
        most: Fields that are not too many.
        within: What `inside` says of its type.
    """
    end, position, left = len(data), 0, most
    # The ends of the fields that this one is in, and what is within those.
    around: list[tuple[int, Inside]] = []
    try:
        while left > 0:
            while position >= end:
                if not around:
                    return False
                end, within = around.pop()
            tag, position = _varint(data, position)
            left -= 1
            kind = tag & 7
            if kind == LENGTH:
                length, position = _varint(data, position)
                if (number := tag >> 3) not in within:
                    position += length
                elif (deeper := within[number]) is None:
                    position, left = position + length, left - length // NUMBERS_A_FIELD
                    if left < 0:
                        return True
                else:
                    around.append((end, within))
                    end, within = position + length, deeper
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
    return position < len(data)


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
