"""A caller that behaves, at a steady rate, beside whoever does not: what an attack does to others."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc

BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))


class GoodCaller:
    """Calls `Classify` in a thread while its context lasts.

    Attributes:
        seconds: What each answered call took.
        refused: How many were told RESOURCE_EXHAUSTED: a server that is full tells everybody.
        errors: Status names of the others.
    """

    def __init__(self, address: str, *, a_second: float = 50.0):
        """Call this address, so often, on a connection of its own."""
        self._address = address
        self._pause_s = 1 / a_second
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.seconds: list[float] = []
        self.refused = 0
        self.errors: list[str] = []

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
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            while not self._ended.wait(self._pause_s):
                began = time.monotonic()
                try:
                    stub.Classify(BLANK, timeout=20)
                    self.seconds.append(time.monotonic() - began)
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                        self.refused += 1
                    else:
                        self.errors.append(error.code().name)
