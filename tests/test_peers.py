"""The servers that `make bench-peers` measures give our model's answers, and what is said of them is read rightly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protos import grpc_service_pb2 as oip
from tests.conftest import REPOSITORY
from tests.load import h2
from tests.load.floors import in_process
from tests.load.peer_processes import OTHERS, OURS, Peer, PeerProcess, probabilities
from tests.mnist_files import small_digits

IMAGES = small_digits("t10k")[0][:8]
EXPECTED = (np.arange(10) / 45).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("peer", [*OURS, *OTHERS], ids=lambda peer: peer.name)
def test_each_gives_the_answers_of_the_model(peer: Peer) -> None:
    if peer.environment and not (REPOSITORY / ".venv-peers" / peer.environment / "ready").exists():
        pytest.skip("not installed; `make bench-peers` does it")
    session = in_process()
    expected = [session.run(["probabilities"], {"image": image[None, None]})[0][0] for image in IMAGES]
    with PeerProcess(peer, IMAGES[0], expected[0]) as server:
        sizes = [server.check(*asked) for asked in zip(IMAGES, expected, strict=True)]
        with pytest.raises(RuntimeError, match=f"(?s){peer.name} answered .*, expected .*: what it does is no figure"):
            server.check(IMAGES[0], expected[1])
    assert server.start_s > 0 and min(sizes) > 40


def test_one_that_does_not_start_says_what_it_wrote() -> None:
    broken = Peer("broken", "", "", lambda ports: ["python", "-c", "raise OSError('no model here')"], OURS[0].speaks)
    with pytest.raises(RuntimeError, match=r"(?s)broken does not answer: .*; it wrote: .*OSError: no model here"):
        PeerProcess(broken, IMAGES[0], EXPECTED)


def test_probabilities_are_found_by_their_name() -> None:
    answer = oip.ModelInferResponse(model_name="digits")
    for name, values in (("digit_score", np.ones(1, np.float32)), ("probabilities", EXPECTED)):
        answer.outputs.add(name=name, datatype="FP32", shape=[1, len(values)])
        answer.raw_output_contents.append(values.tobytes())
    outputs = [{"name": "digit_score", "data": [1.0]}, {"name": "probabilities", "data": EXPECTED.tolist()}]
    for body, content_type in (
        (h2.body(answer.SerializeToString()), h2.GRPC),
        (json.dumps({"outputs": outputs}).encode(), "application/json"),
        (json.dumps({"probabilities": EXPECTED.tolist()}).encode(), "application/json"),
    ):
        assert probabilities(body, content_type).tolist() == EXPECTED.tolist()


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "requirements" / "peers").glob("*.txt")), ids=lambda path: path.stem
)
def test_what_a_peer_needs_is_pinned_and_has_no_pytorch(path: Path) -> None:
    pins = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and " " not in line for line in pins)
    names = {line.split("==")[0] for line in pins}
    assert "onnxruntime" in names and not names & {"torch", "transformers", "tensorflow"}
