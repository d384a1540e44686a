"""The `digitserve` command as a person runs it: output, errors, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.__main__ import EXAMPLES
from tests.pictures import encode
from tests.server_process import COMMAND, ServerProcess

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def run(
    *arguments: str | Path, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; text in, text out."""
    done = subprocess.run(
        [COMMAND, *arguments], input=stdin, capture_output=True, timeout=60, env={**os.environ, **(environ or {})}
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def ask(server: ServerProcess) -> dict[str, str]:
    """The environment that points the command at the test's server."""
    return {"DIGITSERVE_ADDRESS": server.grpc_address}


def test_the_examples_are_read_rightly(ask: dict[str, str]) -> None:
    files = [EXAMPLES / f"{word}.png" for word in WORDS]
    done = run("classify", *files, environ=ask)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(digit) for digit in range(10)]
    assert done.stderr == ""


def test_a_line_has_digit_confidence_and_file(server: ServerProcess) -> None:
    done = run("classify", EXAMPLES / "seven.png", "--address", server.grpc_address)
    assert re.fullmatch(rf"7 +\d+\.\d\d%  {EXAMPLES}/seven\.png\n", done.stdout)


def test_doubt_is_shown_behind_the_file(ask: dict[str, str], tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    blank.write_bytes(encode(np.full((28, 28), 255, np.uint8)))
    done = run("classify", blank, environ=ask)
    assert done.stdout.endswith("blank.png  (blank)\n")
    assert done.returncode == 0


def test_a_folder_stands_for_the_pictures_in_it(ask: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    shutil.copy(EXAMPLES / "two.png", tmp_path / "inner" / "b.PNG")
    shutil.copy(EXAMPLES / "one.png", tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    done = run("classify", tmp_path, environ=ask)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2"]
    assert done.returncode == 0


def test_standard_input(ask: dict[str, str]) -> None:
    done = run("classify", "-", stdin=(EXAMPLES / "three.png").read_bytes(), environ=ask)
    assert done.stdout.split()[0::2] == ["3", "-"]


def test_json_has_one_object_a_line(ask: dict[str, str]) -> None:
    done = run("classify", "--json", EXAMPLES / "four.png", "missing.png", environ=ask)
    answers = {line["file"]: line for line in map(json.loads, done.stdout.splitlines())}
    four = answers[str(EXAMPLES / "four.png")]
    assert four["digit"] == 4
    assert len(four["probabilities"]) == 10
    assert four["confidence"] == max(four["probabilities"])
    assert (four["rejected"], four["rejection_reason"]) == (False, "")
    assert isinstance(four["digit_score"], float)
    assert answers["missing.png"]["error"] == "No such file or directory"
    assert done.returncode == 1


def test_one_bad_file_fails_the_command_and_loses_no_other(ask: dict[str, str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    done = run("classify", EXAMPLES / "five.png", bad, "missing.png", EXAMPLES / "six.png", environ=ask)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["5", "6"]
    assert f"digitserve: {bad}: the 5 bytes are no image the server can read" in done.stderr
    assert "digitserve: missing.png: No such file or directory" in done.stderr


def test_an_empty_folder_is_an_error(ask: dict[str, str], tmp_path: Path) -> None:
    done = run("classify", tmp_path, environ=ask)
    assert done.returncode == 1
    assert f"digitserve: {tmp_path}: the folder holds no .bmp, .gif" in done.stderr


def test_many_files_show_a_bar_with_the_rate_on_a_terminal(ask: dict[str, str]) -> None:
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    files = [str(EXAMPLES / f"{word}.png") for word in WORDS] * 3
    done = subprocess.run(
        [COMMAND, "classify", *files], stdout=subprocess.PIPE, stderr=other_end, timeout=60, env={**os.environ, **ask}
    )
    os.close(other_end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux' way to say that the other end is closed
        while part := os.read(terminal, 1 << 16):
            shown += part
    os.close(terminal)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 30
    assert b"30/30" in shown and b"images/s" in shown


def test_a_reader_who_leaves_early_is_no_error_of_ours(ask: dict[str, str]) -> None:
    with subprocess.Popen(
        [COMMAND, "classify", *[EXAMPLES] * 200],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ask},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in stderr


@pytest.mark.parametrize("command", [["classify", str(EXAMPLES)], ["info"], ["healthcheck"]])
def test_a_server_that_is_not_there_is_one_line(command: list[str]) -> None:
    done = run(*command, "--address", "127.0.0.1:1", "--timeout-s", "30")
    assert done.returncode == 1
    assert re.fullmatch(r"digitserve: 127\.0\.0\.1:1.* UNAVAILABLE: .*Connection refused\n", done.stderr)
    assert done.stdout == ""


def test_info_tells_the_model(ask: dict[str, str]) -> None:
    text = run("info", environ=ask)
    facts = json.loads(run("info", "--json", environ=ask).stdout)
    assert facts["name"] == "digits" and facts["accuracy"] >= 0.997
    lines = dict(line.split(maxsplit=1) for line in text.stdout.splitlines())
    assert lines["sha256"] == facts["sha256"]
    assert lines["providers_got"] == "CPUExecutionProvider"


def test_healthcheck(ask: dict[str, str]) -> None:
    done = run("healthcheck", environ=ask)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_usage_errors_and_help() -> None:
    assert run().returncode == 2
    assert "classify image files" in run("--help").stdout
    assert "DIGITSERVE_MAX_IMAGE_BYTES" in run("serve", "--help").stdout
    assert run("serve", "--max-image", "7").returncode == 2  # no abbreviations
    assert "'nan' is no number of seconds between 0.001 and 86400" in run("info", "--timeout-s", "nan").stderr
    assert re.fullmatch(r"digitserve \d+\.\d+\.\d+\n", run("--version").stdout)


def test_ctrl_c_ends_it_while_it_waits_for_standard_input(ask: dict[str, str]) -> None:
    with subprocess.Popen(
        [COMMAND, "classify", EXAMPLES / "seven.png", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ask, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"7 ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_the_welcome_has_a_line_to_copy_that_works(server: ServerProcess) -> None:
    line = server.welcome.splitlines()[-1]
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[0] == "7"


def test_the_command_runs_as_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "service", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("digitserve ")


def test_a_file_too_large_for_the_server_is_named_and_the_others_are_read(ask: dict[str, str], tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(18 << 20))
    done = run("classify", EXAMPLES / "one.png", large, EXAMPLES / "two.png", environ=ask)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2"]
    assert done.stderr == f"digitserve: {large}: has more bytes than the server's limit of 4194304 for an image\n"
    assert done.returncode == 1


def test_every_file_is_reported_in_its_place(ask: dict[str, str], tmp_path: Path) -> None:
    strange = tmp_path / "new\nline\x1b[31m.png"
    shutil.copy(EXAMPLES / "two.png", strange)
    names = ["missing.png", str(EXAMPLES / "one.png"), "x" * 300, str(strange), "missing too.png"]
    lines = [json.loads(line) for line in run("classify", "--json", *names, environ=ask).stdout.splitlines()]
    assert [line["file"] for line in lines] == names
    assert [line.get("digit") for line in lines] == [None, 1, None, 2, None]
    assert lines[2]["error"] == "File name too long"
    assert run("classify", strange, environ=ask).stdout.endswith("new\\nline\\x1b[31m.png\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_is_no_reason_to_crash(ask: dict[str, str], closed: str) -> None:
    line = f"{shlex.quote(str(COMMAND))} classify - {closed}"
    done = subprocess.run(["sh", "-c", line], input=b"", capture_output=True, timeout=60, env={**os.environ, **ask})
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_one_line(ask: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "info"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env={**os.environ, **ask}
        )
    assert (done.returncode, done.stderr) == (1, "digitserve: cannot write the output: No space left on device\n")


def test_healthcheck_asks_the_port_the_server_was_told(server: ServerProcess) -> None:
    port = server.grpc_address.rsplit(":", 1)[1]
    environ = {name: value for name, value in os.environ.items() if name != "DIGITSERVE_ADDRESS"}
    done = subprocess.run(
        [COMMAND, "healthcheck"], env={**environ, "DIGITSERVE_GRPC_PORT": port}, capture_output=True, timeout=60
    )
    assert done.stdout == b"SERVING\n"


def test_bench_tells_how_many_calls_were_answered_and_how_fast(ask: dict[str, str], tmp_path: Path) -> None:
    plot = tmp_path / "latencies.png"
    done = run("bench", "--seconds", "0.5", "--in-flight", "4", "--plot", plot, environ=ask)
    assert done.returncode == 0, done.stderr
    calls, times, *_ = done.stdout.splitlines()
    assert re.fullmatch(r"[1-9]\d* calls answered in \d+\.\d s, [\d,]+ a second; 4 in flight, 4 connections", calls)
    assert re.fullmatch(r"p50 [\d.]+ ms, p90 [\d.]+ ms, p99 [\d.]+ ms, p99.9 [\d.]+ ms", times)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_bench_at_a_rate_makes_as_many_calls_as_are_due(ask: dict[str, str]) -> None:
    done = run("bench", EXAMPLES / "six.png", "--seconds", "0.5", "--rate", "40", environ=ask)
    assert done.stdout.startswith("20 calls answered in ")


def test_bench_tells_what_failed(ask: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_bytes(b"text")
    done = run("bench", text, "--seconds", "0.1", "--rate", "50", environ=ask)
    assert done.returncode == 1
    assert "0 calls answered" in done.stdout
    assert "5 calls ended with INVALID_ARGUMENT: the 4 bytes are no image the server can read" in done.stdout


def test_bench_of_nothing(ask: dict[str, str], tmp_path: Path) -> None:
    assert "must be more than 0" in run("bench", "--rate", "0", environ=ask).stderr
    assert "must be more than 0" in run("bench", "--connections", "0", environ=ask).stderr
    assert "cannot read" in run("bench", tmp_path / "missing.png", environ=ask).stderr
