"""`python -m model_export report`: its card agrees with figures computed here, and its links lead somewhere."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.checkpoint import save_checkpoint
from model_export.export import export
from model_export.network import build_network, describe
from tests.mnist_files import small_digits, write_small_mnist
from tests.training import tiny_checkpoint, tiny_log

IMAGES, LABELS = small_digits("t10k")
PLOTS = ["confusion", "filters", "misread", "reliability", "scores", "training"]


@pytest.fixture(scope="module", autouse=True)
def _few_non_digits() -> Iterator[None]:
    """Drawing as many as for a real card takes half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model_export.report.score_trials.IMAGES", 2)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_mnist(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def published(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one published by `verify` and its card."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(tiny_checkpoint(), folder / "checkpoint.pt")
    (folder / "training.json").write_bytes(tiny_log())
    (folder / "model.onnx").write_bytes(export(tiny_checkpoint()))
    made = ["--checkpoint", str(folder / "checkpoint.pt"), "--model", str(folder / "model.onnx"), "--floor", "0.1"]
    assert main(["verify", *made, "--data-dir", str(data), "--models-dir", str(folder)]) == 0
    assert report(folder, data) == 0
    return folder


@pytest.fixture
def models(published: Path, tmp_path: Path) -> Path:
    """A copy of those models to change."""
    return shutil.copytree(published, tmp_path / "models")


def report(models: Path, data: Path, *more: str) -> int:
    return main(["report", "--models-dir", str(models), "--data-dir", str(data), *more])


def card(models: Path) -> str:
    return (models / "digits" / "1" / "MODEL_CARD.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first row is this."""
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def answers(models: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    model = (models / "digits" / "1" / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    probabilities = session.run(["probabilities"], {"image": IMAGES[:, None]})[0]
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def test_the_figures_are_those_of_the_model(published: Path) -> None:
    text, found = card(published), answers(published)
    wrong = int((found != LABELS).sum())
    assert (
        f"**{1 - wrong / len(LABELS):.2%}** on a test set in MNIST format, {len(LABELS)} images: {wrong} misread"
        in text
    )
    assert hashlib.sha256((published / "digits" / "1" / "model.onnx").read_bytes()).hexdigest() in text
    assert f"{(published / 'digits' / '1' / 'model.onnx').stat().st_size:,} bytes" in text
    facts = tiny_checkpoint().facts
    for fact in (facts.commit, facts.torch, facts.training_data_sha256, facts.trained_on, describe(build_network())):
        assert fact in text


def test_the_table_of_digits_is_the_confusion_matrix(published: Path) -> None:
    found = answers(published)
    table = rows(card(published), "digit | test images | read rightly | mistaken for (times)")
    assert [row[0] for row in table] == list("0123456789")
    for digit, images, share, mistaken in table:
        shown = np.equal(LABELS, int(digit))
        assert int(images) == shown.sum()
        assert share == f"{(found[shown] == int(digit)).mean():.2%}"
        times = {int(other): int(count) for other, count in re.findall(r"(\d) \((\d+)\)", mistaken)}
        others = found[shown & (found != int(digit))]
        assert times == {int(other): int(np.count_nonzero(others == other)) for other in np.unique(others)}


def test_every_plot_is_shown_and_every_link_resolves(published: Path) -> None:
    folder = published / "digits" / "1"
    links = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", card(published))
    assert sorted(Path(link).stem for _, link in links) == PLOTS
    assert sorted(path.name for path in (folder / "card").iterdir()) == [f"{name}.png" for name in PLOTS]
    for _, link in links:
        with Image.open(folder / link) as image:
            assert image.convert("L").getextrema()[1] == 255


def test_the_plots_are_the_same_every_time(models: Path, data: Path) -> None:
    first = {path.name: path.read_bytes() for path in (models / "digits" / "1" / "card").iterdir()}
    shutil.rmtree(models / "digits" / "1" / "card")
    assert report(models, data) == 0
    assert {path.name: path.read_bytes() for path in (models / "digits" / "1" / "card").iterdir()} == first


def test_an_evaluation_brings_sets_and_kinds(models: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "are not on this card yet" in card(models)
    folder = models / "digits" / "1"
    content = {
        "sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "commit": "commit-of-the-service",
        "sets": [{"name": "scans", "images": 2000, "accuracy": 0.951, "rejected": 0.02, "calibration_error": 0.013}],
        "non_digits": [
            {"name": "noise", "form": "raw", "images": 2, "auroc": 0.9912, "rejected": 0.5, "digit_scores": [1.5, 8.0]},
            {"name": "blank", "form": "picture", "images": 1, "auroc": None, "rejected": 1, "digit_scores": [None]},
        ],
    }
    (folder / "card" / "evaluation.json").write_text(json.dumps(content))
    plot = folder / "card" / "scores.png"
    digits_only = plot.read_bytes()
    assert report(models, data) == 0
    assert "| scans | 2,000 | 95.10% | 2.00% | 1.30% |" in card(models)
    assert "by the service as of commit `commit-of-the-service`" in card(models)
    assert "| noise | raw | 2 | 0.9912 | 50.0% |" in card(models)
    assert "| blank | picture | 1 |  | 100.0% |" in card(models)
    assert "are not on this card yet" not in card(models)
    assert plot.read_bytes() != digits_only
    (folder / "card" / "evaluation.json").write_text(json.dumps(content | {"sha256": "0" * 64}))
    assert report(models, data) == 2
    assert "is about a model with the sha256 0000" in capsys.readouterr().err


def test_other_scores_are_shown_for_every_kind(published: Path) -> None:
    heading = "score | noise | letters | symbols | clothes | two digits | half digits | textures"
    names = [row[0] for row in rows(card(published), heading)]
    assert names == ["largest probability", "energy", "distance to class means", "digit score"]


@pytest.mark.slow
def test_baselines_are_trained_on_request_and_shown_for_their_own_network_only(
    models: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "are not measured yet: `python -m model_export report --baselines`" in card(models)
    monkeypatch.setattr("model_export.report.command.EPOCHS", 1)
    assert report(models, data, "--baselines") == 0
    assert "training 6 baselines for 1 epochs each: about " in capsys.readouterr().out
    stored = models / "digits" / "1" / "card" / "baselines.json"
    results = json.loads(stored.read_bytes())["results"]
    *found, released = rows(card(models), "method | distorted images | accuracy | parameters | µs an image")
    assert [row[2:4] for row in found] == [[f"{r['accuracy']:.2%}", f"{r['parameters']:,}"] for r in results]
    assert released[2] == f"**{(answers(models) == LABELS).mean():.2%}**"
    stored.write_text(stored.read_text().replace(describe(build_network()), "fc10"))
    assert report(models, data) == 0
    assert "The stored results are about another network, fc10" in card(models)


def test_what_cannot_be_used_is_one_line(models: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = models / "digits" / "1"

    def refused(text: str, *more: str) -> None:
        assert report(models, data, *more) == 2
        error = capsys.readouterr().err
        assert error.startswith("model_export report: ") and error.count("\n") == 1 and text in error

    (folder / "model.onnx").write_bytes(export(tiny_checkpoint()))  # not the published one: it lacks the accuracy
    refused("model.onnx was not made from checkpoint.pt")
    (folder / "model.onnx").unlink()
    refused("model.onnx; `verify` publishes one")


def test_how_the_training_went_is_told(models: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "| Time | 5 minutes, beside other work |" in card(models)
    assert "| Teachers' validation accuracy | 70.00% |" in card(models)
    log = models / "digits" / "1" / "training.json"
    for content, text in (
        ("{}", "is damaged; `verify` publishes it anew"),
        (None, "training.json; `verify` publishes"),
    ):
        log.write_text(content) if content else log.unlink()
        assert report(models, data) == 2
        assert text in capsys.readouterr().err
