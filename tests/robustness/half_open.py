"""T4: a caller whose cable is pulled in the middle of a call, between two network namespaces joined by a veth pair.

    unshare --user --map-root-user --net python -m tests.robustness.half_open

Prints how long the server keeps the call of somebody who is gone; exits with 1 if it does not let go of it, and with
77 where the kernel lets nobody make namespaces or links. `run` starts it like that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

from protos import digits_pb2 as pb
from service.over_grpc.grpcio_options import grpcio_options
from service.settings import Settings
from tests.robustness import http2
from tests.robustness.goodcaller import GoodCaller
from tests.robustness.http2 import Connection
from tests.server_process import ServerProcess

SERVERS, PEERS = "10.77.0.1", "10.77.0.2"
NOT_PERMITTED = 77
# Times as long as promised, for machines that do other things as well.
MOST = 1.75
STREAM = "/digits.v1.DigitClassifier/ClassifyStream"
MODULE = (sys.executable, "-m", "tests.robustness.half_open")


def run(transport: str = "grpcio") -> tuple[int, str]:
    """Exit code and output, from namespaces of its own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return NOT_PERMITTED, "not tried: unshare (util-linux) and ip (iproute2) are needed"
    command = ["unshare", "--user", "--map-root-user", "--net", *MODULE, "server", transport]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == NOT_PERMITTED or done.stderr.startswith("unshare:"):
        return NOT_PERMITTED, f"not tried: {done.stderr.strip()}"
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def promised_s() -> float:
    """From the last that was heard of a peer until its calls end."""
    options = dict(grpcio_options(Settings()))
    return (options["grpc.keepalive_time_ms"] + options["grpc.http2.ping_timeout_ms"]) / 1000


def serve(transport: str) -> int:
    """In a namespace: a server, a peer in another one, and the cable between them; returns the exit code."""
    with subprocess.Popen(
        ["unshare", "--net", *MODULE, "peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdin and peer.stdout
        try:
            peer.stdout.readline()
            ip("link", "set", "lo", "up")
            ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(peer.pid))
            ip("address", "add", f"{SERVERS}/24", "dev", "cable")
            ip("link", "set", "cable", "up")
        except subprocess.CalledProcessError as error:
            peer.kill()
            print(error.stderr.strip(), file=sys.stderr)
            return NOT_PERMITTED
        with ServerProcess("--host", "0.0.0.0", "--transport", transport) as server:
            port = server.grpc_address.rpartition(":")[2]
            server.ops_url = server.ops_url.replace("0.0.0.0", "127.0.0.1")
            with GoodCaller(f"127.0.0.1:{port}") as good:
                print(port, file=peer.stdin, flush=True)
                assert peer.stdout.readline() == "gone\n"
                began = time.monotonic()
                while open_streams(server) and time.monotonic() - began < MOST * promised_s():
                    time.sleep(0.2)
                took = time.monotonic() - began
        peer.stdin.close()
    print(
        f"the call of a peer that is gone ended after {took:.1f} s, {promised_s():g} s are promised; "
        f"the good caller had {len(good.errors)} errors in {len(good.seconds)} calls"
    )
    return 1 if took >= MOST * promised_s() or good.errors else 0


def open_streams(server: ServerProcess) -> float:
    """Streams that the server has begun and not ended."""
    of = {"grpc_method": "ClassifyStream"}
    return server.metric("grpc_server_started_total", **of) - server.metric("grpc_server_handled_total", **of)


def peer() -> int:
    """In another namespace: open a stream, get its first answer, and be gone."""
    print("here", flush=True)
    port = sys.stdin.readline().strip()
    ip("address", "add", f"{PEERS}/24", "dev", "cable")
    ip("link", "set", "cable", "up")
    with Connection(f"{SERVERS}:{port}") as connection:
        connection.greet()
        connection.open(1, http2.call_headers(STREAM))
        item = pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)).SerializeToString()
        connection.send(http2.frame(http2.DATA, 0, 1, http2.message(item)))
        connection.until(http2.DATA)
        ip("link", "set", "cable", "down")
        print("gone", flush=True)
        # Until the other side is done.
        sys.stdin.read()
    return 0


def ip(*words: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(peer() if sys.argv[1] == "peer" else serve(sys.argv[2]))
