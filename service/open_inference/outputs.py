"""The outputs of an inference: which ones a request of the Open Inference Protocol wants, and the answer with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protos import grpc_service_pb2 as pb
from service.classifier import Inferred
from service.errors import InvalidRequest, NotImplementedYet
from service.explanation.explaining import Field
from service.open_inference import tensors
from service.open_inference.doors import DIGIT_SCORE, PROBABILITIES, SEEN, Door

# Of an id: it comes back with the answer, which stays here until the caller takes it.
MAX_ID_CHARACTERS = 1024
# An output, and how many classes are wanted of it; 0 for its numbers.
Wanted = Sequence[tuple[str, int]]


def wanted(request: pb.ModelInferRequest, door: Door) -> Wanted:
    """The outputs that a request names; all but `seen` if it names none.

    Raises:
        InvalidRequest: The model has no such output, or not in this form; or the request's id is too long to come back.
        NotImplementedYet: It is wanted in shared memory.
    """
    if len(request.id) > MAX_ID_CHARACTERS:
        raise InvalidRequest(
            f"the id of the request has {len(request.id)} characters, the limit is {MAX_ID_CHARACTERS}; it begins with "
            f"{request.id[:40]!r}"
        )
    if not request.outputs:
        return [(name, 0) for name in door.outputs if name != SEEN]
    found: dict[str, int] = {}
    for output in request.outputs:
        name = output.name
        if name not in door.outputs:
            raise InvalidRequest(
                f"unexpected inference output '{name[:40]}' for model '{request.model_name}'; it has "
                f"{', '.join(door.outputs)}"
            )
        if name in found:
            raise InvalidRequest(f"output '{name}' is requested twice")
        if "shared_memory_region" in output.parameters:
            raise NotImplementedYet(f"shared memory is not available; output '{name}' comes with the answer")
        found[name] = tensors.whole_number(output.parameters, "classification")
        if found[name] and name != PROBABILITIES:
            raise InvalidRequest(f"classification is for the output 'probabilities', not for '{name}'")
        if found[name] < 0:
            raise InvalidRequest(f"the parameter 'classification' is {found[name]}; expected 1 to 10 classes")
    return tuple(found.items())


def response(
    request: pb.ModelInferRequest, asked: Wanted, inferred: Inferred, values: Mapping[str, Field]
) -> pb.ModelInferResponse:
    """The answer to a request.

    Args:
        request: That is answered.
        asked: The outputs it wants.
        inferred: What the model says.
        values: What came out of layers, by name, each float32 (N, ...).
    """
    version, images, judged = inferred.version.model.version, inferred.images, inferred.outcome.answers
    answer = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    outputs, raw = answer.outputs, answer.raw_output_contents
    for name, count in asked:
        if count:
            count = min(count, 10)
            outputs.add(name=name, datatype="BYTES", shape=(len(images), count))
            raw.append(tensors.join_bytes(tensors.classes(judged.probabilities, count)))
        elif name == PROBABILITIES:
            outputs.add(name=name, datatype="FP32", shape=(len(images), 10))
            raw.append(judged.probabilities.tobytes())
        elif name == DIGIT_SCORE:
            outputs.add(name=name, datatype="FP32", shape=(len(images),))
            raw.append(judged.digit_scores.tobytes())
        elif name in values:
            outputs.add(name=name, datatype="FP32", shape=values[name].shape)
            raw.append(values[name].tobytes())
        else:
            outputs.add(name=name, datatype="UINT8", shape=(len(images), 28, 28))
            raw.append(images.tobytes())
    return answer
