"""The load that arrives at random tells answers from refusals, and keeps within what the server takes."""

from __future__ import annotations

import numpy as np

from tests.load import asks, open_loop
from tests.server_process import ServerProcess

IMAGE = asks.raw(np.zeros((28, 28), np.uint8))


def test_every_call_of_an_open_loop_is_answered_or_refused() -> None:
    with ServerProcess() as server:
        outcome = open_loop.run(server.grpc_address, IMAGE.path, IMAGE.body, rate=1000, seconds=0.3)
        answered = server.metric("digitserve_predictions_total")
        unknown = open_loop.run(server.grpc_address, f"{IMAGE.path}Nothing", IMAGE.body, rate=1000, seconds=0.1)
    assert (outcome.answered.calls, outcome.refused.calls, outcome.unanswered) == (300, 0, 0)
    assert answered == 300
    assert (unknown.answered.calls, unknown.refused.calls, unknown.unanswered) == (0, 100, 0)


def test_what_arrives_while_no_call_has_room_is_sent_later() -> None:
    with ServerProcess() as server:
        # All of them are due at once, and a connection takes 100 at a time.
        outcome = open_loop.run(server.grpc_address, IMAGE.path, IMAGE.body, rate=1e9, seconds=1.5e-7, connections=1)
    assert outcome.answered.latencies.shape == (outcome.answered.calls,) == (150,)
