"""Tensors of the Open Inference Protocol <-> numpy, with every check.

Nothing reaches the model that did not pass here: name, datatype, shape and
size of an input are compared with one another before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from protos import grpc_service_pb2 as pb
from service.errors import InvalidRequest, NotImplementedYet
from service.runs.judging import Floats, Images

IMAGE_SHAPE = (1, 28, 28)
PIXELS = 28 * 28
# The value of full ink in an FP32 image, unless the parameter of this name says otherwise.
PIXEL_MAX, PIXEL_MAX_DEFAULT = "pixel_max", 255
# One more than an error shows.
MOST_DIMENSIONS = 9
_LENGTH = struct.Struct("<I")

_Input = pb.ModelInferRequest.InferInputTensor


def read_pixels(request: pb.ModelInferRequest, max_images: int) -> Images:
    """The input of the model `digits`.

    Args:
        request: From a caller; nothing in it is trusted.
        max_images: More are refused before their values are looked at.

    Returns:
        uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink.

    Raises:
        InvalidRequest: The input is not UINT8 or FP32 `image` [-1,1,28,28], or its values do not fit that.
        NotImplementedYet: It is said to be in shared memory.
    """
    tensor, raw = _only_input(request)
    shape = _shape(tensor)
    if shape[1:] != IMAGE_SHAPE or shape[0] < 1:
        hint = "; the first dimension is the number of images" if shape == IMAGE_SHAPE else ""
        raise _wrong_shape(request, shape, "[-1,1,28,28]", hint)
    _check_images(shape[0], max_images)
    if tensor.datatype == "UINT8":
        return _read_uint8(tensor, raw, shape)
    if tensor.datatype == "FP32":
        return _read_fp32(tensor, raw, shape, request.parameters)
    raise InvalidRequest(
        f"input 'image' of model '{request.model_name}' has datatype {tensor.datatype[:40]!r}; expected UINT8, or FP32"
    )


def read_files(request: pb.ModelInferRequest, max_images: int) -> list[bytes]:
    """The input of the model `digits_image`: image files.

    Args:
        request: As for `read_pixels`.
        max_images: Likewise.

    Raises:
        InvalidRequest: The input is not BYTES `image` [-1], or [-1,1] as MLServer's codecs
            write it, or its values do not fit that.
        NotImplementedYet: It is said to be in shared memory.
    """
    tensor, raw = _only_input(request)
    shape = _shape(tensor)
    if tensor.datatype != "BYTES":
        raise InvalidRequest(
            f"input 'image' of model '{request.model_name}' has datatype {tensor.datatype[:40]!r}; expected BYTES, "
            "an image file for each element"
        )
    if not shape or shape[0] < 1 or shape[1:] not in ((), (1,)):
        raise _wrong_shape(request, shape, "[-1]", "")
    _check_images(shape[0], max_images)
    # Counted before they are copied.
    files = tensor.contents.bytes_contents if raw is None else split_bytes(raw, shape[0])
    if len(files) != shape[0]:
        raise InvalidRequest(f"input 'image' has the shape [{shape[0]}] and holds {len(files)} elements")
    return list(files)


def split_bytes(raw: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor, each of which follows its length (4 bytes, little endian).

    Args:
        raw: The tensor's contents.
        count: How many elements its shape says.

    Raises:
        InvalidRequest: A length is cut off or goes beyond the end, or there are more elements.
    """
    elements: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(elements) == count:
            raise InvalidRequest(f"input 'image' has the shape [{count}] and holds more elements")
        if start + 4 > len(raw):
            raise InvalidRequest(
                f"input 'image' ends within the 4 bytes that are the length of element {len(elements)}; a BYTES "
                "element is its length, little endian, followed by its bytes"
            )
        length = _LENGTH.unpack_from(raw, start)[0]
        start += 4
        if start + length > len(raw):
            raise InvalidRequest(
                f"element {len(elements)} of input 'image' is said to have {length} bytes, {len(raw) - start} are left"
            )
        elements.append(raw[start : start + length])
        start += length
    return elements


def join_bytes(elements: Iterable[bytes]) -> bytes:
    """The raw contents of a BYTES tensor."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def classes(probabilities: Floats, count: int) -> list[bytes]:
    """The most probable classes of every image, as the classification extension writes them.

    Args:
        probabilities: float32 of shape (N, 10).
        count: Classes of each image, 1 to 10.

    Returns:
        N times `count` texts "probability:index:label", the most probable first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        b"%f:%d:%d" % (row[digit], digit, digit)
        for row, digits in zip(probabilities.tolist(), order.tolist(), strict=True)
        for digit in digits
    ]


def whole_number(parameters: Mapping[str, pb.InferParameter], name: str, default: int = 0) -> int:
    """The value of a parameter.

    Raises:
        InvalidRequest: It is no whole number.
    """
    if name not in parameters:
        return default
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind == "int64_param":
        return parameter.int64_param
    if kind == "uint64_param":
        return parameter.uint64_param
    raise InvalidRequest(
        f"the parameter {name!r} is a {kind or 'parameter without a value'}; expected a whole number, an int64_param"
    )


def _only_input(request: pb.ModelInferRequest) -> tuple[_Input, bytes | None]:
    """The one input a model takes, and its raw contents unless it has typed ones."""
    names = [tensor.name for tensor in request.inputs]
    if names != ["image"]:
        raise InvalidRequest(f"model '{request.model_name}' takes one input, 'image'; the request has {_list(names)}")
    tensor = request.inputs[0]
    if "shared_memory_region" in tensor.parameters:
        raise NotImplementedYet("shared memory is not available; send the values of input 'image' in the request")
    raw = request.raw_input_contents
    if not raw:
        return tensor, None
    # An empty message holds nothing: MLServer's client writes one beside raw contents.
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidRequest("input 'image' has both typed contents and raw_input_contents; send one of the two")
    if len(raw) != 1:
        raise InvalidRequest(f"raw_input_contents has {len(raw)} items for 1 input")
    return tensor, raw[0]


def _shape(tensor: _Input) -> tuple[int, ...]:
    """The shape, or as much of it as tells that it is wrong: it may be said to have millions of dimensions."""
    return tuple(tensor.shape[:MOST_DIMENSIONS])


def _read_uint8(tensor: _Input, raw: bytes | None, shape: tuple[int, ...]) -> Images:
    if raw is not None:
        _check_size(len(raw), shape, 1)
        return np.frombuffer(raw, np.uint8).reshape(shape)
    typed = tensor.contents.uint_contents
    _check_count("uint_contents", len(typed), shape)
    values = np.array(typed, np.uint32)
    if (largest := int(values.max())) > 255:
        raise InvalidRequest(f"input 'image' is UINT8 and holds the value {largest}; expected 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _read_fp32(
    tensor: _Input, raw: bytes | None, shape: tuple[int, ...], of_request: Mapping[str, pb.InferParameter]
) -> Images:
    if raw is not None:
        _check_size(len(raw), shape, 4)
        values: Floats = np.frombuffer(raw, "<f4")
    else:
        typed = tensor.contents.fp32_contents
        _check_count("fp32_contents", len(typed), shape)
        values = np.array(typed, np.float32)
    # Some clients can give parameters to a request only.
    parameters = tensor.parameters if PIXEL_MAX in tensor.parameters else of_request
    pixel_max = whole_number(parameters, PIXEL_MAX, PIXEL_MAX_DEFAULT)
    if pixel_max not in (1, 255):
        raise InvalidRequest(f"the parameter {PIXEL_MAX!r} is {pixel_max}; expected 255, or 1")
    lowest, highest = float(values.min()), float(values.max())
    # Written so that it also holds for NaN.
    if not (lowest >= 0 and highest <= pixel_max):
        raise InvalidRequest(
            f"input 'image' holds values from {lowest:g} to {highest:g}; expected 0 (paper) to {pixel_max} (ink), "
            f"the parameter {PIXEL_MAX!r} of the request or the input"
        )
    if 0 < highest <= 1 and PIXEL_MAX not in parameters:
        raise InvalidRequest(
            f"input 'image' is FP32 and holds no value above {highest:g}, of {PIXEL_MAX_DEFAULT} for ink: for values "
            f"from 0 to 1 give the request the parameter {PIXEL_MAX!r} 1, for such faint ones 255"
        )
    return np.rint(values * (255 // pixel_max)).astype(np.uint8).reshape(shape)


def _check_size(size: int, shape: tuple[int, ...], itemsize: int) -> None:
    if size != shape[0] * PIXELS * itemsize:
        raise InvalidRequest(
            f"input 'image' has {size} bytes of raw contents; its shape {_dims(shape)} needs "
            f"{shape[0] * PIXELS * itemsize}"
        )


def _check_count(field: str, count: int, shape: tuple[int, ...]) -> None:
    if count != shape[0] * PIXELS:
        raise InvalidRequest(
            f"input 'image' has {count} values in {field}; its shape {_dims(shape)} needs {shape[0] * PIXELS}"
        )


def _wrong_shape(request: pb.ModelInferRequest, shape: Sequence[int], expected: str, hint: str) -> InvalidRequest:
    return InvalidRequest(
        f"unexpected shape for input 'image' for model '{request.model_name}'. Expected {expected}, "
        f"got {_dims(shape)}{hint}"
    )


def _check_images(images: int, max_images: int) -> None:
    if images > max_images:
        raise InvalidRequest(f"the request holds {images} images, the limit is {max_images} (--max-batch-images)")


def _dims(shape: Sequence[int]) -> str:
    """A shape of the caller's, shortened."""
    return f"[{','.join(map(str, shape[:8]))}{',...' if len(shape) > 8 else ''}]"


def _list(names: Sequence[str]) -> str:
    """Some names of the caller's, shortened."""
    if not names:
        return "none"
    return ", ".join(repr(name[:40]) for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
