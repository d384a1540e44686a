"""A caller that behaves, at a steady rate, beside whoever does not: what an attack does to others."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client.client_channel import channel_options

BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
CALL_S = 20.0


class GoodCaller:
    """Calls `Classify` in a thread while its context lasts.

    Attributes:
        seconds: What each answered call took.
        refused: How many were told RESOURCE_EXHAUSTED: a server that is full tells everybody.
        errors: Status names of the others.
        versions: Of the models that answered.
    """

    def __init__(self, address: str, *, a_second: float = 50.0, max_attempts: int = 1):
        """Call this address, so often, on a connection of its own; with more attempts, ask again as our client does."""
        self._address = address
        again = channel_options(CALL_S, max_attempts) if max_attempts > 1 else []
        self._options = [*again, ("grpc.use_local_subchannel_pool", 1)]
        self._pause_s = 1 / a_second
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.seconds: list[float] = []
        self.refused = 0
        self.errors: list[str] = []
        self.versions: set[str] = set()

    def __enter__(self) -> GoodCaller:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def milliseconds(self, percent: float) -> float:
        """A percentile of the calls that were answered."""
        return float(np.percentile(self.seconds or [np.nan], percent)) * 1e3

    def _call(self) -> None:
        with grpc.insecure_channel(self._address, self._options) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            while not self._ended.wait(self._pause_s):
                began = time.monotonic()
                try:
                    version = stub.Classify(BLANK, timeout=CALL_S).model_version
                    self.versions.add(version)
                    self.seconds.append(time.monotonic() - began)
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                        self.refused += 1
                    else:
                        self.errors.append(error.code().name)
