"""The `digitserve` command: serve, classify, explain, info, healthcheck.

The only file that ends the process. What a sub-command needs is imported when
it runs, so that a client does not load the server, nor the server the client.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands.client_flags import access, add_flags, content
from service.errors import DigitserveError
from service.observing import logs
from service.settings import Settings

if TYPE_CHECKING:
    from service.processes.ports import Running

EXAMPLES = Path(__file__).resolve().parent / "examples"
DEFAULT_ADDRESS = "127.0.0.1:8001"
# What `digitserve explain` can draw.
PARTS = ("flow", "steps", "convolution", "relu", "pooling", "linear", "softmax", "occlusion")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code.

    0 done, 1 some of it failed, 2 misused, 3 could not start, 4 no worker stayed alive.
    """
    _open_standard_streams()
    # gRPC's core writes its own lines about taken ports and lost peers to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    args = _parser().parse_args(argv)
    try:
        code = args.run(args)
        if sys.stdout:  # None where the process was started without
            sys.stdout.flush()
        sys.exit(code)
    except DigitserveError as error:
        # What was logged before comes first.
        logging.shutdown()
        print(f"digitserve: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"digitserve: cannot write the output: {error.strerror}", file=sys.stderr)
        # Python would try once more to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _open_standard_streams() -> None:
    """Give a process that was started without standard streams the null device: sockets would take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "digitserve", description="Reads handwritten digits: a gRPC server, and a client for it.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"digitserve {version('digitserve')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server until SIGTERM or Ctrl-C, then let calls in progress finish.",
        epilog="A flag wins over its DIGITSERVE_* environment variable.",
        allow_abbrev=False,
    )
    Settings.add_flags(serve)
    serve.set_defaults(run=_serve)

    classify = commands.add_parser(
        "classify",
        help="classify image files",
        description="Classify image files, whole folders of them, or standard input.",
        epilog="Exit code 1 if any image could not be classified.",
        allow_abbrev=False,
    )
    classify.add_argument("images", nargs="+", metavar="FILE|DIR|-", help="image file, folder, or - for standard input")
    classify.add_argument("--json", action="store_true", help="one JSON object a line, with all ten probabilities")
    classify.add_argument(
        "--out", type=Path, metavar="FILE", help="append JSON lines to FILE; skip what is in it already"
    )
    classify.add_argument("--shard", type=_shard, metavar="I/N", help="with --out: only the Ith of N parts, I from 0")
    add_flags(classify)
    classify.set_defaults(run=_classify)

    explain = commands.add_parser(
        "explain",
        help="draw how the network comes to its answer",
        description="Draw the way of a picture through the network, from its pixels to the probabilities.",
        allow_abbrev=False,
    )
    explain.add_argument("picture", type=Path, metavar="FILE", help="image file")
    explain.add_argument("-o", "--out", type=Path, required=True, metavar="PNG", help="where to put the drawing")
    explain.add_argument("--part", choices=PARTS, default="flow", help="flow: all of it (default); or one part of it")
    add_flags(explain)
    explain.set_defaults(run=_explain)

    bench = commands.add_parser(
        "bench",
        help="measure how fast a server answers",
        description="Ask a running server without pause, or at a set rate, and tell how long it takes.",
        epilog="Exit code 1 if any call failed. This client is written in Python: on one core it reaches about 4,000 "
        "calls a second.",
        allow_abbrev=False,
    )
    bench.add_argument("images", nargs="*", type=Path, metavar="FILE", help="image files (default: the ten examples)")
    bench.add_argument("--seconds", type=float, default=10.0, help="how long (default: 10)")
    bench.add_argument("--in-flight", type=int, default=8, help="calls at a time (default: 8)")
    bench.add_argument("--connections", type=int, default=16, help="over which they go, at most so many (default: 16)")
    bench.add_argument("--rate", type=float, help="calls a second, whether answers come or not, instead of --in-flight")
    bench.add_argument("--plot", type=Path, metavar="FILE", help="write a histogram as a PNG file (needs matplotlib)")
    add_flags(bench)
    bench.set_defaults(run=_bench)

    info = commands.add_parser("info", help="which model a server answers with", allow_abbrev=False)
    info.add_argument("--json", action="store_true", help="as one JSON object")
    add_flags(info)
    info.set_defaults(run=_info)

    healthcheck = commands.add_parser(
        "healthcheck",
        help="whether a server is ready",
        description="Exit code 0 if the server answers SERVING, else 1.",
        allow_abbrev=False,
    )
    add_flags(healthcheck)
    healthcheck.set_defaults(run=_healthcheck)
    return parser


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; say 0/8 for the first of eight, 7/8 for the last")
    return int(index), int(count)


def _serve(args: argparse.Namespace) -> int:
    from service.processes import resources

    settings = Settings.load(vars(args), os.environ)
    logs.start(settings.log_format)
    room = resources.available()
    share = resources.share(
        room, workers=settings.workers, threads=settings.threads, decode_threads=settings.decode_threads
    )
    if share.workers > 1:
        from service.processes.supervisor import supervise

        return asyncio.run(supervise(settings, room, share, lambda server: logs.say(_welcome(settings, server))))

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signalled(settings))
    return 0


async def _serve_until_signalled(settings: Settings) -> None:
    from service.processes import memory
    from service.processes.signals import until_signalled
    from service.server import running

    memory.settle()
    serving = False
    signalled = asyncio.create_task(until_signalled(lambda: serving))
    async with running(settings) as server:
        serving = True
        logs.say(_welcome(settings, server))
        await asyncio.wait([signalled, server.failed], return_when=asyncio.FIRST_COMPLETED)
        failed = server.failed.exception() if server.failed.done() else None
    if failed:
        raise failed


def _welcome(settings: Settings, server: Running) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{server.grpc_port}"
    http, operations = (f"{server.scheme}://{host}:{port}" for port in (server.http_port, server.ops_port))
    if settings.log_format == logs.JSON:
        facts = {"logger": "digitserve", "message": "serving", "grpc": address, "http": http, "operations": operations}
        return logs.json_line(time.time(), "info", facts)
    elsewhere = "" if address == DEFAULT_ADDRESS else f" --address {shlex.quote(address)}"
    page = f"\n  page        {http}/" if settings.page == "on" else ""
    started_as = Path(sys.argv[0]).resolve()
    command = f"{shlex.quote(sys.executable)} -m service" if started_as.suffix == ".py" else _from_here(started_as)
    return f"""\
digitserve {version("digitserve")} is serving {server.serves}
  gRPC        {address}
  HTTP        {http}/v1/classify
  operations  {operations}/metrics /livez /readyz{page}
Classify a digit, in another terminal:
  {command} classify{elsewhere} {_from_here(EXAMPLES / "seven.png")}"""


def _from_here(path: Path) -> str:
    """A path as short as a shell in this folder takes it."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _classify(args: argparse.Namespace) -> int:
    from service.commands.bulk import Shard, classify_into
    from service.commands.classify import classify_files

    wanted = access(args)
    if args.out:
        shard = Shard(*args.shard or (0, 1))
        return classify_into(args.out, args.images, args.address, wanted, timeout_s=args.timeout_s, shard=shard)
    if args.shard:
        raise DigitserveError("--shard needs --out: a part of the files is of use only where its results are kept")
    return classify_files(args.images, args.address, wanted, timeout_s=args.timeout_s, as_json=args.json)


def _explain(args: argparse.Namespace) -> int:
    from service.commands.explain import explain_file

    verdict = explain_file(
        args.picture, args.out, args.part, args.address, timeout_s=args.timeout_s, access=access(args)
    )
    print(f"{args.picture}: {verdict}; drawn in {args.out}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    import uvloop

    from service.commands.bench import Load, draw

    if not (min(args.seconds, args.in_flight, args.connections) > 0 and (args.rate is None or args.rate > 0)):
        raise DigitserveError("--seconds, --in-flight, --connections and --rate must be more than 0")
    pictures = [content(path) for path in args.images or sorted(EXAMPLES.glob("*.png"))]
    load = Load(pictures, args.address, timeout_s=args.timeout_s, access=access(args))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        how = {"in_flight": args.in_flight, "rate": args.rate, "connections": args.connections}
        figures = runner.run(load.run(args.seconds, **how))
    for line in figures.lines():
        print(line)
    if args.plot and figures.latencies:
        draw(figures, args.plot)
    return int(bool(figures.errors))


def _info(args: argparse.Namespace) -> int:
    from service.client import Client
    from service.commands.classify import one_line

    with Client(args.address, timeout_s=args.timeout_s, access=access(args)) as client, one_line(args.address):
        facts = dataclasses.asdict(client.model())
    if args.json:
        print(json.dumps(facts))
        return 0
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:{width}}  {', '.join(value) if isinstance(value, tuple) else value}")
    return 0


def _healthcheck(args: argparse.Namespace) -> int:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with access(args).channel(args.address, []) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
            request = health_pb2.HealthCheckRequest(service="digits.v1.DigitClassifier")
            response = check(request, timeout=args.timeout_s)
        except grpc.RpcError as error:
            raise DigitserveError(f"{args.address} does not answer: {error.code().name}: {error.details()}") from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    print(status)
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    main()
