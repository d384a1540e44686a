"""Asks for digits until SIGTERM, along several ways at once; then prints what became of the calls, as JSON.

Runs in a container of the image: load.py NAME=TARGET=ATTEMPTS ...
"""

import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from service.client import ClassifyError, Client

EXAMPLE = (Path(sys.modules["service"].__path__[0]) / "examples" / "seven.png").read_bytes()
CALLERS = 2
PAUSE_S = 0.02


def main() -> None:
    """Call along every way at the same time."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    outcomes: dict[str, Counter[str]] = {}
    callers = []
    for argument in sys.argv[1:]:
        name, target, attempts = argument.split("=")
        outcomes[name] = Counter()
        client = Client(target, timeout_s=10, max_attempts=int(attempts))
        callers += [threading.Thread(target=_call, args=(client, stop, outcomes[name])) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    while not stop.wait(0.2):
        pass
    for caller in callers:
        caller.join()
    print(json.dumps(outcomes))


def _call(client: Client, stop: threading.Event, outcomes: Counter[str]) -> None:
    while not stop.wait(PAUSE_S):
        try:
            outcomes["ok" if client.classify(EXAMPLE).digit == 7 else "wrong"] += 1
        except ClassifyError as error:
            outcomes[str(error)] += 1


if __name__ == "__main__":
    main()
