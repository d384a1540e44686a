"""Many files into one file of lines: every file once, whatever is killed on the way."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from service.client.client_channel import Access
from service.commands.bulk import Shard, classify_into
from service.errors import DigitserveError
from tests.conftest import REPOSITORY
from tests.server_process import COMMAND, ServerProcess, wait_until

EXAMPLES = sorted((REPOSITORY / "service" / "examples").glob("*.png"))
ALL = Shard(0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five hundred pictures, and a file that is none."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(500):
        shutil.copy(EXAMPLES[number % 10], pictures / f"{number:03}.png")
    (pictures / "none.png").write_bytes(b"no picture")
    return pictures


def classify(out: Path, folder: Path, server: ServerProcess, shard: Shard = ALL) -> int:
    return classify_into(out, [str(folder)], server.grpc_address, Access(), timeout_s=10, shard=shard)


def files_in(out: Path) -> list[str]:
    return [json.loads(line)["file"] for line in out.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(map(str, folder.iterdir()))


def test_every_file_gets_a_line_once(folder: Path, server: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert classify(out, folder, server) == 0
    first = out.read_bytes()
    assert sorted(files_in(out)) == names(folder)
    lines = {Path(line["file"]).name: line for line in map(json.loads, first.splitlines())}
    assert "error" in lines["none.png"] and len(lines["000.png"]["probabilities"]) == 10
    assert classify(out, folder, server) == 0
    assert out.read_bytes() == first


def test_shards_are_all_of_it_and_share_nothing(folder: Path, server: ServerProcess, tmp_path: Path) -> None:
    found: list[list[str]] = []
    for index in range(3):
        assert classify(tmp_path / f"{index}.jsonl", folder, server, Shard(index, 3)) == 0
        found.append(files_in(tmp_path / f"{index}.jsonl"))
    assert sorted(chain.from_iterable(found)) == names(folder)
    assert min(map(len, found)) > 100


def test_a_killed_run_is_continued(folder: Path, server: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [COMMAND, "classify", folder, "--out", out, "--address", server.grpc_address]
    killed = 0
    for _ in range(3):
        lines = len(out.read_bytes().splitlines()) if out.exists() else 0
        process = subprocess.Popen(command)
        wait_until(lambda seen=lines: out.exists() and len(out.read_bytes().splitlines()) > seen)  # type: ignore[misc]
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed
    with out.open("ab") as file:
        file.write(b'{"file": "torn')
    assert subprocess.run(command).returncode == 0
    assert sorted(files_in(out)) == names(folder)


def test_a_server_that_goes_away_is_replaced_by_the_next(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ServerProcess() as one:
        command = [COMMAND, "classify", folder, "--out", out, "--address", one.grpc_address]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: out.exists() and bool(out.read_bytes()))
        one.stop()
        _, told = process.communicate(timeout=60)
    done = len(files_in(out))
    assert process.returncode == (0 if done == 501 else 1)
    assert done == 501 or "UNAVAILABLE" in told
    with ServerProcess() as other:
        assert classify(out, folder, other) == 0
    assert sorted(files_in(out)) == names(folder)


def test_a_file_that_cannot_be_read_is_left_for_another_run(
    folder: Path, server: ServerProcess, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, missing = tmp_path / "out.jsonl", folder / "missing.png"
    again = [str(folder / "000.png"), str(missing)]
    assert classify_into(out, again, server.grpc_address, Access(), timeout_s=10, shard=ALL) == 1
    assert "missing.png: No such file" in capfd.readouterr().err
    shutil.copy(EXAMPLES[0], missing)
    assert classify_into(out, again, server.grpc_address, Access(), timeout_s=10, shard=ALL) == 0
    assert files_in(out) == again


@pytest.mark.parametrize("content", [b"no lines", b"{}\n", EXAMPLES[0].read_bytes(), b'{"file": "a"}\nmine'])
def test_what_is_not_ours_keeps_every_byte(content: bytes, folder: Path, server: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "notes"
    out.write_bytes(content)
    with pytest.raises(DigitserveError, match="something else than results"):
        classify(out, folder, server)
    assert out.read_bytes() == content


def test_two_processes_do_not_write_one_file(folder: Path, server: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with out.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DigitserveError, match="another process is writing"):
            classify(out, folder, server)
    with pytest.raises(DigitserveError, match="cannot write"):
        classify(folder, folder, server)


@pytest.mark.parametrize("text", ["1", "1/1", "-1/2", "a/b", "2/1", "0/0"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    done = subprocess.run(
        [COMMAND, "classify", "x.png", "--out", "x", f"--shard={text}"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "0/8 for the first of eight" in done.stderr


def test_a_shard_without_a_file_for_its_results_is_refused() -> None:
    done = subprocess.run([COMMAND, "classify", "x.png", "--shard", "0/2"], capture_output=True, text=True)
    assert done.returncode == 1 and "--shard needs --out" in done.stderr
