"""`python -m model_export evaluate`: the real command, with a real server as its child."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.judging.asking import Sample, Service, ServiceError, batches, served
from model_export.judging.evaluate import EvaluationOptions, evaluate
from service.settings import bundled_models
from tests.conftest import REPOSITORY
from tests.mnist_files import write_small_mnist
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_mnist(tmp_path_factory.mktemp("data"))


def run(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_the_command_starts_a_server_and_writes_table_figures_and_sheet(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("--sets", "mnist", "load_digits", "file_png_*", "inverted_28x28", "letters", "blank")
    files = ("--json", tmp_path / "figures.json", "--sheet", tmp_path / "new" / "sheet.png")
    assert run("--data-dir", data, "--models-dir", bundled_models(), "--count", "4", *sets, *files) == 0
    output = capsys.readouterr().out
    facts = json.loads((tmp_path / "figures.json").read_text())
    found = {each["name"]: each for each in facts["sets"]}
    assert facts["remarks"] == []
    assert found["MNIST test, raw"]["images"] == 397
    assert found["MNIST test, raw"]["accuracy"] > 0.9
    assert found["load_digits"]["images"] == 1797
    assert found["inverted_28x28"]["images"] == found["file_png_rgba"]["images"] == 4
    assert found["synthetic, all"]["images"] == 4 * sum(each["group"] == "synthetic" for each in facts["sets"][4:])
    for name, each in found.items():
        assert f"{name} " in output and f"{each['accuracy']:.2%}" in output
    kinds = {(each["name"], each["form"]): each for each in facts["non_digits"]}
    assert kinds.keys() == {("blank", "picture"), ("letters", "raw"), ("letters", "picture")}
    assert kinds["blank", "picture"]["auroc"] is None
    assert kinds["blank", "picture"]["reasons"] == {"blank": 4}
    assert 0 < kinds["letters", "raw"]["auroc"] <= 1
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_png_files_are_answered_as_raw_images_are(data: Path, server: ServerProcess) -> None:
    evaluation = evaluate(server.grpc_address, EvaluationOptions(sets=("mnist",), data_dir=data))
    raw, files = evaluation.sets
    assert np.array_equal(raw.probabilities, files.probabilities)
    assert np.array_equal(raw.digit_scores, files.digit_scores)
    assert raw.reasons == files.reasons


@pytest.fixture
def folder(digits: Digits, tmp_path: Path) -> Path:
    """Three right labels, a wrong one, a damaged file, and one without a label."""
    images, labels = digits
    for index in range(3):
        (tmp_path / f"{labels[index]}_{'abc'[index]}.png").write_bytes(encode(on_paper(images[index])))
    wrong = tmp_path / str((labels[3] + 5) % 10)
    wrong.mkdir()
    (wrong / "d.png").write_bytes(encode(on_paper(images[3])))
    (tmp_path / "4.jpg").write_text("damaged")
    (tmp_path / "who_knows.png").write_bytes(encode(images[0]))
    return tmp_path


def test_a_folder_is_judged_alone_by_a_server_that_runs(
    folder: Path, server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--dir", folder, "--address", server.grpc_address, "--json", folder / "figures.json") == 0
    (found,) = json.loads((folder / "figures.json").read_text())["sets"]
    assert (found["images"], found["accuracy"], found["group"]) == (5, 0.6, "folder")
    assert found["reasons"]["refused"] == 1
    output = capsys.readouterr().out
    assert f"skipped {folder / 'who_knows.png'}: its name tells no digit" in output
    assert f"refused {folder / '4.jpg'}: the 7 bytes are no image the server can read" in output


def test_the_worst_are_the_surest_wrong_answers(folder: Path, server: ServerProcess) -> None:
    (found,) = evaluate(server.grpc_address, EvaluationOptions(sets=(), folder=folder)).sets
    assert [Path(sample.name).name for sample, _ in found.worst[:2]] == ["d.png", "4.jpg"]


def test_what_cannot_be_read_is_skipped_with_the_reason(
    tmp_path: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    write_small_mnist(tmp_path / "mnist")
    for path in (tmp_path / "mnist").glob("t10k-*"):
        path.unlink()
    options = EvaluationOptions(data_dir=tmp_path / "mnist", sets=("mnist", "load_digits", "tiny"), count=2)
    evaluation = evaluate(server.grpc_address, options)
    assert [result.name for result in evaluation.sets] == ["tiny"]
    assert [line.split(": ")[0] for line in evaluation.remarks] == ["skipped mnist", "skipped load_digits"]
    assert "holds neither t10k-images-idx3-ubyte.gz" in evaluation.remarks[0]


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    attempts: list[tuple[tuple[str | Path, ...], str]] = [
        (("--dir", tmp_path / "missing"), "missing is not a folder; give one with image files of digits"),
        (("--dir", tmp_path / "empty"), "whose digit can be told"),
        (("--sets", "photos"), "there is no set 'photos'; there are mnist, load_digits, synthetic, non_digits, photo_"),
        (("--count", "0"), "count is 0 and seed 1; at least 1 and 0 are needed"),
        (("--sets", "mnist", "--data-dir", tmp_path / "empty"), "nothing is left to judge by: skipped mnist: "),
        (("--sets", "load_digits", "--models-dir", tmp_path / "empty"), "`service serve` ended with exit code 3: "),
        (("--sets", "load_digits", "--address", "127.0.0.1:1"), "the service at 127.0.0.1:1: UNAVAILABLE: "),
    ]
    for arguments, text in attempts:
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("model_export evaluate: ") and error.count("\n") == 1
        assert text in error


def test_a_server_that_was_started_is_stopped() -> None:
    with served(bundled_models()) as address, Service(address) as service:
        assert service.model().name == "digits"
    with Service(address) as service, pytest.raises(ServiceError, match="UNAVAILABLE"):
        service.model()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_the_server_too(signum: signal.Signals) -> None:
    program = (
        "import signal; from pathlib import Path; from model_export.judging.asking import served\n"
        f"with served(Path({str(bundled_models())!r})) as address: print(address, flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with Service(address) as service:
            assert service.model().name == "digits"
        process.send_signal(signum)
    assert process.returncode == (-signum if signum == signal.SIGINT else 128 + signum)
    with Service(address) as service, pytest.raises(ServiceError, match="UNAVAILABLE"):
        service.model()


def test_batches_keep_both_limits_and_the_order() -> None:
    samples = [Sample(bytes(size)) for size in (10, 10, 10, 50, 200, 10, 10, 10, 10)]
    found = list(batches(samples, most_images=3, most_bytes=60))
    sizes = [[len(sample.image) for sample in batch] for batch in found]
    assert sizes == [
        [10, 10, 10],
        [50],
        [200],
        [10, 10, 10],
        [10],
    ]
    assert list(batches([], 3, 60)) == []


def test_a_file_above_the_limit_is_refused_and_disturbs_no_other(server: ServerProcess, digits: Digits) -> None:
    small = Sample(encode(digits[0][0]), int(digits[1][0]))
    with Service(server.grpc_address) as service:
        answers = [answer for _, answer in service.ask([small, Sample(bytes(9 << 20), 1), small])]
    assert [answer.reason == "refused" for answer in answers] == [False, True, False]
    assert answers[1].error == "the file has 9437184 bytes, the service's limit is 4194304"
