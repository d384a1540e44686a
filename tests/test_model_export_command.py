"""`python -m model_export`: exit codes, one-line errors, and Ctrl-C of the real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model_export.__main__ import main
from model_export.checkpoint import save_checkpoint
from model_export.export import export
from tests.conftest import REPOSITORY
from tests.mnist_files import write_small_mnist
from tests.training import tiny_checkpoint

QUICK = ("--epochs", "2", "--teachers", "0", "--finishing-epochs", "1", "--batch-size", "64")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small_mnist(tmp_path / "data")


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    """The options that name a checkpoint and the model made from it."""
    save_checkpoint(tiny_checkpoint(), tmp_path / "checkpoint.pt")
    (tmp_path / "training.json").write_text("{}")
    (tmp_path / "model.onnx").write_bytes(export(tiny_checkpoint()))
    return ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--model", str(tmp_path / "model.onnx")]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_training_and_export_need_no_test_images(folder: Path, tmp_path: Path) -> None:
    """The test set cannot have shaped a model that is made where it is missing."""
    for path in folder.glob("t10k-*"):
        path.unlink()
    assert run("train", "--data-dir", folder, "--out", tmp_path, *QUICK) == 0
    assert run("export", "--checkpoint", tmp_path / "checkpoint.pt", "--out", tmp_path / "model.onnx") == 0
    assert (tmp_path / "model.onnx").read_bytes()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_reached_and_resuming_ends_the_same(folder: Path, tmp_path: Path) -> None:
    def command(out: str, *more: str) -> list[str]:
        data = ("--data-dir", str(folder), "--out", str(tmp_path / out))
        lasting = (
            "--epochs",
            "3",
            "--teachers",
            "1",
            "--teacher-epochs",
            "1",
            "--finishing-epochs",
            "1",
            "--batch-size",
            "32",
        )
        return [sys.executable, "-m", "model_export", "train", *data, *lasting, "--batch-size", "32", *more]

    process = subprocess.Popen(command("parts"), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    with process:
        while not process.stdout.readline().startswith("student, epoch 1/3"):
            pass
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in rest
    for arguments in (command("parts", "--resume"), command("whole")):
        subprocess.run(arguments, cwd=REPOSITORY, check=True, capture_output=True, timeout=100)
    found = [(tmp_path / out / "checkpoint.pt").read_bytes() for out in ("parts", "whole")]
    assert found[0] == found[1]


def test_ctrl_c_in_the_first_epoch_says_that_there_is_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model_export.command.train", interrupted)
    assert run("train", "--data-dir", folder, "--out", tmp_path / "out", *QUICK) == 130
    assert "nothing was written" in capsys.readouterr().out


def test_an_interrupted_training_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        (tmp_path / "training.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("model_export.command.train", interrupted)
    assert run("train", "--data-dir", folder, "--out", tmp_path, "--device", "auto") == 130
    assert "the same command with --resume" in capsys.readouterr().out


def test_verify_publishes_or_only_checks(
    folder: Path, tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data-dir", folder, "--models-dir", tmp_path / "models", "--floor", "0.1")
    assert run("verify", *made, *options, "--check-only") == 0
    assert not (tmp_path / "models").exists()
    assert run("verify", *made, *options) == 0
    assert "published" in capsys.readouterr().out
    assert (tmp_path / "models" / "digits" / "1" / "model.onnx").exists()


def test_verify_refuses_with_exit_code_1(
    folder: Path, tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", *made, "--data-dir", folder, "--models-dir", tmp_path / "models", "--floor", "1") == 1
    error = capsys.readouterr().err
    assert error.startswith("model_export verify: refused: accuracy ") and error.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_unusable_input_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    attempts: list[tuple[tuple[str | Path, ...], str]] = [
        (("train", "--data-dir", tmp_path), "holds neither train-images-idx3-ubyte.gz"),
        (("export", "--checkpoint", tmp_path / "none.pt"), "none.pt; `python -m model_export train` makes one"),
        (("verify", *made[:2], "--model", tmp_path / "none.onnx"), "none.onnx; `python -m model_export export` makes"),
        (("export", *made[:2], "--out", tmp_path / "file" / "model.onnx"), "file"),
        (("train", "--data-dir", folder, "--resume", "--out", tmp_path / "new"), "no unfinished training to resume"),
    ]
    if not torch.cuda.is_available():
        attempts.append((("train", "--data-dir", folder, "--device", "cuda"), "sees no CUDA device; use --device cpu"))
    for arguments, text in attempts:
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"model_export {arguments[0]}: ") and error.count("\n") == 1
        assert text in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "required"),
        (("train", "--epochs", "0"), "'0' is not a whole number of 1 or more"),
        (("train", "--seed", "-1"), "'-1' is not a whole number of 0 or more"),
        (("verify", "--floor", "99.5"), "'99.5' is not a number from 0 to 1"),
        (("verify", "--floor", "high"), "'high' is not a number from 0 to 1"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("step", ["train", "export", "verify"])
def test_help_names_the_defaults(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([step, "--help"])
    assert stopped.value.code == 0
    assert "default: " in capsys.readouterr().out


def test_ctrl_c_in_any_other_step_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model_export.command.load_checkpoint", interrupted)
    assert main(["verify"]) == 130
    assert capsys.readouterr().err == "\nmodel_export verify: interrupted\n"


def test_without_the_export_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "model_export.command")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["train"]) == 2
    assert "'torch' is not installed; run: pip install 'digitserve[cpu,export]'" in capsys.readouterr().err
