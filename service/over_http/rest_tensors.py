"""Open Inference Protocol over REST: JSON, with or without binary tensors after it, <-> the protocol's messages."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from service.errors import InvalidRequest
from service.open_inference.tensors import join_bytes, split_bytes

# A millisecond's.
NUMBERS_AT_ONCE = 4096
# Lists and objects in a body: images of 28 rows have 30 each. `json` holds the GIL for seconds over millions of them.
MOST_CONTAINERS = 100_000
SHOWN_CHARACTERS = 60
_DTYPES = {"UINT8": np.uint8, "FP32": np.float32}


def read_request(
    body: bytes, json_bytes: int | None, model: str, version: str
) -> tuple[pb.ModelInferRequest, set[str]]:
    """The message that the body of a request stands for.

    Args:
        body: JSON, and after it the binary tensors.
        json_bytes: How much of the body is JSON; None for all of it.
        model: Name in the address.
        version: Version in the address, or "".

    Returns:
        The message, and the names of the outputs wanted as binary tensors;
        "" among them stands for all that are not named.

    Raises:
        InvalidRequest: The body is not what the protocol says.
    """
    try:
        return _read_request(body, json_bytes, model, version)
    except UnicodeEncodeError:
        raise InvalidRequest("a text of the request holds half a character: a lone surrogate") from None


def _read_request(
    body: bytes, json_bytes: int | None, model: str, version: str
) -> tuple[pb.ModelInferRequest, set[str]]:
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length is {json_bytes}, the body has {len(body)} bytes")
    document = read_object(body[:json_bytes])
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=_text(document, "id", ""))
    binary: set[str] = set()
    parameters = _parameters(document)
    if _pop_flag(parameters, "binary_data_output", False):
        binary.add("")
    _set_parameters(request.parameters, parameters)
    rest = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
    for given in _objects(document, "inputs"):
        parameters = _parameters(given)
        size = parameters.pop("binary_data_size", None)
        tensor = request.inputs.add(name=_text(given, "name"), datatype=_text(given, "datatype"))
        tensor.shape.extend(_shape(given))
        _set_parameters(tensor.parameters, parameters)
        if size is None:
            request.raw_input_contents.append(_raw(given, tensor.datatype, tensor.shape))
        elif given.get("data") is not None:
            raise InvalidRequest("an input has both 'data' and the parameter 'binary_data_size'; send one of the two")
        elif type(size) is int and 0 <= size <= len(rest):
            request.raw_input_contents.append(bytes(rest[:size]))
            rest = rest[size:]
        else:
            raise InvalidRequest(f"binary_data_size is {_shown(size)}; {len(rest)} bytes are left after the JSON")
    if len(rest):
        raise InvalidRequest(f"{len(rest)} bytes after the JSON belong to no input; give each its binary_data_size")
    for wanted in _objects(document, "outputs"):
        parameters = _parameters(wanted)
        output = request.outputs.add(name=_text(wanted, "name"))
        if _pop_flag(parameters, "binary_data", "" in binary):
            binary.add(output.name)
        _set_parameters(output.parameters, parameters)
    if request.outputs:
        # It was for those that are not named.
        binary.discard("")
    return request, binary


def write_response(response: pb.ModelInferResponse, binary: set[str]) -> tuple[bytes, int | None]:
    """The body that stands for a message.

    Args:
        response: The message.
        binary: As from `read_request`.

    Returns:
        The body, and how much of it is JSON where there is more after it.
    """
    outputs: list[str] = []
    tensors: list[bytes] = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if output.name in binary or "" in binary:
            outputs.append(json.dumps(described | {"parameters": {"binary_data_size": len(raw)}}))
            tensors.append(raw)
        elif output.datatype == "BYTES":
            texts = [text.decode() for text in split_bytes(raw, math.prod(output.shape))]
            outputs.append(json.dumps(described | {"data": texts}))
        else:
            outputs.append(_with(described, "data", _numbers(np.frombuffer(raw, _DTYPES[output.datatype]))))
    document = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        document["id"] = response.id
    body = _with(document, "outputs", outputs).encode()
    return (b"".join((body, *tensors)), len(body)) if tensors else (body, None)


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequest: It is none.
    """
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise InvalidRequest(f"the JSON of the body has more than {MOST_CONTAINERS} lists and objects; send fewer")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {str(error)[:100]}") from None
    except RecursionError:
        raise InvalidRequest("the JSON of the body is nested too deeply to be read") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {_shown(document)}; expected a JSON object")
    return document


def plain(message: Any) -> dict[str, Any]:
    """A message as a JSON object, its numbers as numbers and every simple field written out."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            document[field.name] = {key: plain(each) for key, each in value.items()}
        elif field.is_repeated:
            document[field.name] = [plain(each) for each in value] if field.message_type else list(value)
        elif field.enum_type:
            document[field.name] = field.enum_type.values_by_number[value].name
        elif not field.message_type:
            document[field.name] = value
        elif message.HasField(field.name):
            document[field.name] = plain(value)
    return document


def _with(document: Mapping[str, Any], key: str, elements: Iterable[str]) -> str:
    """The JSON of an object that has a list besides, of which the elements are JSON already."""
    return f'{json.dumps(document)[:-1]}, "{key}": [{", ".join(elements)}]}}'


def _numbers(values: npt.NDArray[Any]) -> Iterator[str]:
    """The JSON of numbers, without the brackets around them, in pieces: `json` holds the GIL until it is done."""
    for start in range(0, len(values), NUMBERS_AT_ONCE):
        yield json.dumps(values[start : start + NUMBERS_AT_ONCE].tolist())[1:-1]


def _raw(given: Mapping[str, Any], datatype: str, shape: Sequence[int]) -> bytes:
    """The raw contents of an input whose values are in the JSON."""
    data = given.get("data")
    if data is None:
        raise InvalidRequest("an input has neither 'data' nor the parameter 'binary_data_size'")
    if datatype == "BYTES":
        return join_bytes(_file(each) for each in _flat(data))
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        # Refused for its datatype in a moment.
        return b""
    flat = _flat(data)
    # numpy would make room for the longest text as often as there are elements.
    if not all(type(each) in (int, float) for each in flat):
        raise InvalidRequest(f"'data' holds something that is no number; expected {datatype}")
    values = np.array(flat)
    if values.dtype.kind == "O":
        raise InvalidRequest(f"'data' holds a number of more than 64 bits; expected {datatype}")
    if len(flat) != math.prod(shape):
        raise InvalidRequest(f"'data' holds {len(flat)} numbers; its 'shape' {_shown(list(shape))} does not")
    if dtype is np.uint8 and values.size and (values.dtype.kind == "f" or values.min() < 0 or values.max() > 255):
        raise InvalidRequest(
            f"'data' holds values from {values.min()} to {values.max()}; UINT8 is 0 to 255, without a decimal point"
        )
    with np.errstate(over="ignore"):
        return values.astype(dtype).tobytes()


def _flat(data: Any) -> list[Any]:
    """The elements of nested lists, however deep."""
    flat, left = [], [data]
    while left:
        each = left.pop()
        if isinstance(each, list):
            left += reversed(each)
        else:
            flat.append(each)
    return flat


def _file(text: Any) -> bytes:
    """The bytes of a file, for which JSON has only base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidRequest(f"'data' holds {_shown(text)}; expected the base64 text of an image file") from None


def _set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            target[name].int64_param = value
        elif isinstance(value, int) and 0 < value < 2**64:
            target[name].uint64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        else:
            raise InvalidRequest(
                f"the parameter {name[:40]!r} is {_shown(value)}; expected a truth value, a number of at most 64 bits, "
                "or a text"
            )


def _pop_flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    """Take a parameter out that is for this side of the translation only."""
    value = parameters.pop(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"the parameter {name!r} is {_shown(value)}; expected true or false")
    return value


def _text(given: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = _value(given, key, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{key!r} is {_shown(value)}; expected a text")
    return value


def _shape(given: Mapping[str, Any]) -> list[int]:
    shape = _value(given, "shape", None)
    if not isinstance(shape, list) or not all(type(each) is int and -(2**63) <= each < 2**63 for each in shape):
        raise InvalidRequest(f"'shape' is {_shown(shape)}; expected a list of whole numbers")
    return shape


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    value = _value(given, "parameters", {})
    if not isinstance(value, dict):
        raise InvalidRequest(f"'parameters' is {_shown(value)}; expected an object")
    return {name: each for name, each in value.items() if each is not None}


def _objects(given: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = _value(given, key, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidRequest(f"{key!r} is {_shown(value)}; expected a list of objects")
    return value


def _value(given: Mapping[str, Any], key: str, default: Any) -> Any:
    """The value of a field; null, which some clients write for what they leave out, is the default if there is one."""
    if key not in given and default is None:
        raise InvalidRequest(f"{key!r} is missing")
    value = given.get(key)
    return default if value is None else value


def _shown(value: Any) -> str:
    """A value of the caller's, shortened; what is not shown is not written."""
    text = ""
    for piece in json.JSONEncoder().iterencode(value):
        text += piece
        if len(text) > SHOWN_CHARACTERS:
            return f"{text[:SHOWN_CHARACTERS]}..."
    return text
