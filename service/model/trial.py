"""A model file is tried in a process of its own before it is loaded beside models that answer.

ONNX Runtime dies of some files (a chain of 3,000 functions overflows its
stack), and others would eat the memory of all. The process that dies should
not be the server.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys

from service.errors import ModelUnusable
from service.model.runtime import Session

MEMORY_BYTES = 8 << 30
CPU_S = 60
TIMEOUT_S = 120


class Trials:
    """Tries models in processes of their own, one at a time."""

    def __init__(self) -> None:
        """Start without one."""
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def run(self, model: bytes, *, max_run_images: int) -> None:
        """Load, check and warm a model, on the CPU, in another process.

        Args:
            model: The ONNX file.
            max_run_images: As for `Session`.

        Raises:
            ModelUnusable: It cannot be used, or the process did not survive it.
        """
        command = [sys.executable, "-m", "service.model.trial", str(max_run_images)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise ModelUnusable(f"it cannot be tried in a process of its own: {error.strerror}") from error
        with self._process as process:
            if self._is_closed:
                process.kill()
            try:
                refusal, errors = process.communicate(model, timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise ModelUnusable(f"trying it took more than {TIMEOUT_S} s") from None
        if process.returncode < 0:
            raise ModelUnusable(f"the process that tried it was ended by {signal.Signals(-process.returncode).name}")
        if process.returncode == ModelUnusable.exit_code:
            raise ModelUnusable(*json.loads(refusal))
        if process.returncode:
            last = errors.decode(errors="replace").splitlines()[-1:]
            raise ModelUnusable(f"the process that tried it ended with {process.returncode}", *last)

    def close(self) -> None:
        """End the trial in progress, and any that begins."""
        self._is_closed = True
        if self._process:
            self._process.kill()


def main() -> None:
    """The other process: the model is standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        Session(sys.stdin.buffer.read(), device="cpu", threads=1, max_run_images=int(sys.argv[1]))
    except ModelUnusable as error:
        print(json.dumps([error.for_callers, error.details]))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
