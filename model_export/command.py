"""The steps of `python -m model_export`: reads the arguments, calls one step, turns errors into one line and a code.

Exit codes: 0 done, 1 refused by `verify`, 2 wrong usage or unusable input, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeAlias

import torch

from model_export.checkpoint import CheckpointError, load_checkpoint, write_atomically
from model_export.data import DataError, load_test_images, load_training_images
from model_export.export import VERSION, export
from model_export.judging.asking import ServiceError
from model_export.judging.command import add_evaluate
from model_export.publish import publish
from model_export.report.command import add_report
from model_export.train import TrainingOptions, train
from model_export.verify import MNIST_BOUNDS, RefusedError, verify

BUILD = Path("build/digits")
MODELS = Path("models")


def run(arguments: list[str] | None = None) -> int:
    """Run one step of making the model and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.step(options))
    except (DataError, CheckpointError, ServiceError) as error:
        print(f"model_export {options.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"model_export {options.command}: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except RefusedError as error:
        print(f"model_export {options.command}: refused: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmodel_export {options.command}: interrupted", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> int:
    settings = TrainingOptions(
        epochs=options.epochs,
        teachers=options.teachers,
        teacher_epochs=options.teacher_epochs,
        finishing_epochs=options.finishing_epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        threads=options.threads,
        device=_device(options.device),
        precision=options.precision,
    )
    data = load_training_images(getattr(options, "data_dir", None))
    try:
        checkpoint = train(data, settings, options.out, resume=options.resume)
    except KeyboardInterrupt:
        if (options.out / "training.pt").exists():
            print(f"\nstopped; what was reached is in {options.out}; to go on: the same command with --resume")
        else:
            print("\nstopped before the first epoch ended; nothing was written")
        return 130
    facts = checkpoint.facts
    print(
        f"wrote {options.out / 'checkpoint.pt'}: epoch {facts.chosen_epoch}, validation accuracy "
        f"{facts.validation_accuracy:.2%}, temperature {facts.temperature:.3f}"
    )
    return 0


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("--device cuda: this torch sees no CUDA device; use --device cpu")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _export(options: argparse.Namespace) -> int:
    content = export(load_checkpoint(options.checkpoint))
    write_atomically(options.out, content)
    print(f"wrote {options.out}, {len(content):,} bytes")
    return 0


def _verify(options: argparse.Namespace) -> int:
    checkpoint = load_checkpoint(options.checkpoint)
    model = _read(options.model, "export")
    log = _read(options.checkpoint.with_name("training.json"), "train")
    test = load_test_images(getattr(options, "data_dir", None))
    result = verify(checkpoint, model, test, accuracy_floor=getattr(options, "floor", None))
    print(result.table())
    if options.check_only:
        return 0
    print(f"published {publish(checkpoint, model, result, log, options.models_dir)}")
    return 0


def _read(path: Path, step: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}; `python -m model_export {step}` makes one") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_export",
        description="Make the model that digitserve serves: train, export and verify it, then evaluate and report.",
        epilog="Each step works with its defaults from the root of the repository.",
    )
    steps = parser.add_subparsers(title="steps", dest="command", required=True)
    _add_train(steps)
    _add_export(steps)
    _add_verify(steps)
    add_evaluate(steps, data_help=DATA_HELP, models_dir=MODELS)
    add_report(steps)
    return parser


Steps: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # generic in the type stubs only
DATA_HELP = (
    "folder with MNIST's IDX files, .gz or not (default: $DIGITSERVE_DATA, else ../shared/data/mnist beside the "
    "repository, else they are downloaded once into the cache folder of the operating system)"
)


def _add_train(steps: Steps) -> None:
    defaults = TrainingOptions()
    parser = steps.add_parser(
        "train",
        help="train the network, write a checkpoint",
        description="Train the network on MNIST's training images, 55,000 to learn from and 5,000 to validate on: "
        "first larger networks, its teachers, then the network that is served. On the CPU the same seed, data and "
        "options give the same checkpoint. Ctrl-C keeps what the last whole epoch reached.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_HELP, default=argparse.SUPPRESS)
    parser.set_defaults(step=_train)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=BUILD, help="folder for checkpoint.pt and training.pt"
    )
    parser.add_argument("--resume", action="store_true", help="go on with DIR/training.pt of an interrupted training")
    parser.add_argument("--epochs", type=_positive, default=defaults.epochs, help="times through the training images")
    parser.add_argument("--teachers", type=_natural, default=defaults.teachers, help="larger networks to learn from")
    parser.add_argument(
        "--teacher-epochs", type=_positive, default=defaults.teacher_epochs, help="times each teacher sees the images"
    )
    parser.add_argument(
        "--finishing-epochs",
        type=_positive,
        default=defaults.finishing_epochs,
        help="times in the end, little distorted",
    )
    parser.add_argument("--batch-size", type=_positive, default=defaults.batch_size, help="images a step")
    parser.add_argument("--seed", type=_natural, default=defaults.seed, help="of everything random")
    parser.add_argument("--threads", type=_positive, default=defaults.threads, help="CPU threads; changes the rounding")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default=defaults.device, help="where to compute")
    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float32"],
        default=defaults.precision,
        help="of convolutions and products; bfloat16 is twice as fast where the processor has it",
    )


def _add_export(steps: Steps) -> None:
    parser = steps.add_parser(
        "export",
        help="turn a checkpoint into one ONNX file",
        description="Write one ONNX file: raw pixels in, calibrated probabilities and a digit score out, its facts in "
        "its metadata. The same checkpoint gives the same bytes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(step=_export)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", default=BUILD / "checkpoint.pt", help="what train wrote"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", default=BUILD / "model.onnx", help="the file to write")


def _add_verify(steps: Steps) -> None:
    parser = steps.add_parser(
        "verify",
        help="prove an ONNX file on the test images and publish it",
        description="Compare PyTorch and ONNX Runtime on MNIST's 10,000 test images and on distorted ones, measure "
        "accuracy, calibration and what is rejected, and publish the file as "
        f"MODELS/digits/{VERSION}/model.onnx with its manifest and checkpoint beside it. Exit code 1 if it is refused.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_HELP, default=argparse.SUPPRESS)
    parser.set_defaults(step=_verify)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", default=BUILD / "checkpoint.pt", help="what train wrote"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", default=BUILD / "model.onnx", help="what export wrote")
    parser.add_argument(
        "--floor",
        type=_share,
        default=argparse.SUPPRESS,
        help="least accuracy on the test images, 0 to 1 "
        f"(default: {MNIST_BOUNDS.accuracy} on MNIST; needed for other images)",
    )
    parser.add_argument("--models-dir", type=Path, metavar="MODELS", default=MODELS, help="where to publish")
    parser.add_argument("--check-only", action="store_true", help="publish nothing")


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
