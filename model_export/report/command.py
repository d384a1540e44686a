"""The step `report`: measures the published model and writes its card, with plots, beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from torch import nn

from model_export.checkpoint import Checkpoint, CheckpointError, load_checkpoint, write_atomically
from model_export.data import load_test_images, load_training_images, load_validation_images
from model_export.export import NAME, VERSION, metadata
from model_export.network import describe, fold_batch_norm
from model_export.report import plots
from model_export.report.baselines import EPOCHS, measure_baselines, read_baselines, to_json
from model_export.report.card import PLOTS_FOLDER, Log, Subject, write_card
from model_export.report.figures import Evaluation, Figures, measure, read_evaluation
from model_export.report.score_trials import try_scores

if TYPE_CHECKING:
    import argparse

MODELS = Path("models")
CARD = "MODEL_CARD.md"
CURVES = ("loss", "validation_loss", "validation_accuracy")


def add_report(steps: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the step's parser."""
    parser = steps.add_parser(
        "report",
        help="write the model card and its plots",
        description=f"Measure the published model on MNIST's test images and write MODELS/{NAME}/{VERSION}/{CARD}, "
        f"with its plots in {PLOTS_FOLDER}/ beside it. Other sets are in evaluation.json there, if `evaluate --json` "
        "has written it. Takes a minute without --baselines.",
    )
    parser.set_defaults(step=_report)
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with MNIST's files (default: as for train)"
    )
    parser.add_argument(
        "--models-dir",
        type=Path,
        metavar="MODELS",
        default=MODELS,
        help="where verify published (default: %(default)s)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help=f"train the simple classifiers that the card compares with, {EPOCHS} epochs each, and store their results "
        f"in {PLOTS_FOLDER}/ (default: the stored ones are used)",
    )


def _report(options: argparse.Namespace) -> int:
    folder = options.models_dir / NAME / VERSION
    test = load_test_images(options.data_dir)
    checkpoint, model = load_published(folder)
    evaluation = read_evaluation(folder / PLOTS_FOLDER / "evaluation.json", hashlib.sha256(model).hexdigest())
    log = load_log(folder)
    stored = folder / PLOTS_FOLDER / "baselines.json"
    if options.baselines:
        results = measure_baselines(load_training_images(options.data_dir), test, epochs=EPOCHS)
        write_atomically(stored, to_json(results))
    figures = measure(model, test)
    drawn = draw(checkpoint, figures, evaluation, log)
    subject = Subject(
        model=model,
        facts=checkpoint.facts,
        log=log,
        network=describe(checkpoint.network()),
        figures=figures,
        evaluation=evaluation,
        trials=try_scores(checkpoint.network(), test, load_validation_images(options.data_dir)),
        baselines=read_baselines(stored),
        plots=drawn.keys(),
    )
    for name, content in drawn.items():
        write_atomically(folder / PLOTS_FOLDER / f"{name}.png", content)
    write_atomically(folder / CARD, write_card(subject).encode())
    print(f"wrote {folder / CARD} and {len(drawn)} plots in {folder / PLOTS_FOLDER}")
    return 0


def load_published(folder: Path) -> tuple[Checkpoint, bytes]:
    """Read a published model and the checkpoint it was made from.

    Raises:
        CheckpointError: One of them is missing, or they do not belong together.
    """
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    try:
        model = (folder / "model.onnx").read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {folder / 'model.onnx'}; `verify` publishes one") from None
    stated = {prop.key: prop.value for prop in onnx.load_from_string(model).metadata_props}
    if stated != metadata(checkpoint.facts, describe(checkpoint.network())):
        raise CheckpointError(f"{folder}: model.onnx was not made from checkpoint.pt; `verify` publishes both together")
    return checkpoint, model


def load_log(folder: Path) -> Log:
    """Read how each learner's epochs went.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    path = folder / "training.json"
    try:
        log: Log = json.loads(path.read_bytes())
        [epoch[key] for epoch in (log["student"][0], *log["student"], *log["finisher"]) for key in CURVES]
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}; `verify` publishes one") from None
    except (ValueError, LookupError, TypeError):
        raise CheckpointError(f"{path} is damaged; `verify` publishes it anew") from None
    return log


def draw(checkpoint: Checkpoint, figures: Figures, evaluation: Evaluation, log: Log) -> dict[str, bytes]:
    """Draw the plots of the card, PNG files by their names."""
    facts = checkpoint.facts
    misread = figures.misread()
    rest = {entry.name: entry.scores for entry in evaluation.non_digits if entry.form == "raw"}
    first_layer = next(layer for layer in fold_batch_norm(checkpoint.network()) if isinstance(layer, nn.Conv2d))
    history = np.array([[epoch[key] for key in CURVES] for epoch in [*log["student"], *log["finisher"]]], np.float64)
    return {
        "confusion": plots.confusion_matrix(figures.confusion()),
        "misread": plots.misread_images(
            figures.test.images[misread], figures.test.labels[misread], figures.probabilities[misread]
        ),
        "reliability": plots.reliability_diagram(*figures.reliability(), figures.calibration_error()),
        "scores": plots.score_histograms(figures.scores, rest, facts.reject_threshold),
        "filters": plots.first_layer_filters(first_layer.weight.detach().numpy()[:, 0]),
        "training": plots.training_curves(history, facts.chosen_epoch),
    }
