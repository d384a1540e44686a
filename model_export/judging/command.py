"""The step `python -m model_export evaluate`: its options, and what it prints and writes."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TypeAlias

from model_export.checkpoint import current_commit, write_atomically
from model_export.judging.asking import served
from model_export.judging.contact_sheet import contact_sheet
from model_export.judging.digit_sets import LABEL_RULE
from model_export.judging.evaluate import GROUPS, EvaluationOptions, evaluate

Steps: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # generic in the type stubs only


def run_evaluate(options: argparse.Namespace) -> int:
    """Judge a model and print the table; write the figures and the contact sheet where that was asked for.

    Raises:
        DataError: A set's name is unknown, the folder cannot be used, or nothing is left to judge by.
        ServiceError: The service cannot be started or asked.
    """
    judged_by = EvaluationOptions(
        # Whoever names a folder, and no sets, wants to know about the folder.
        sets=options.sets if options.sets is not None else () if options.dir else GROUPS,
        folder=options.dir,
        data_dir=options.data_dir,
        count=options.count,
        seed=options.seed,
    )
    commit = "unknown" if options.address else current_commit()
    serving = contextlib.nullcontext(options.address) if options.address else served(options.models_dir)
    with serving as address:
        evaluation = evaluate(address, judged_by, commit)
    print(evaluation.table())
    if options.json:
        write_atomically(options.json, (json.dumps(evaluation.as_json(), indent=1) + "\n").encode())
    if options.sheet:
        write_atomically(options.sheet, contact_sheet(evaluation))
    return 0


def add_evaluate(steps: Steps, *, data_help: str, models_dir: Path) -> None:
    """Add the step to the command."""
    parser = steps.add_parser(
        "evaluate",
        help="judge a published model by digits and non-digits of many kinds",
        description="Start the service with a published model, or ask one that runs, and count right and rejected "
        "answers: on MNIST's test images (raw and as PNG files), on scikit-learn's load_digits, on synthetic pictures "
        "made from MNIST's validation digits, on a folder of your own, and on images that are no digits.",
        epilog=f"The digit that a picture in DIR shows is {LABEL_RULE}. A picture whose name tells none is skipped "
        "and named.",
    )
    parser.set_defaults(step=run_evaluate)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=data_help)
    parser.add_argument(
        "--models-dir",
        type=Path,
        metavar="MODELS",
        default=models_dir,
        help="folder with digits/<version>/model.onnx; the newest is judged (default: %(default)s)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="ask a service that runs instead of starting one")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help=f"{', '.join(GROUPS)}, or a category of the synthetic set or a kind of non-digits, also as a pattern such "
        "as 'photo_*' (default: all; none with --dir)",
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="folder of image files of digits")
    parser.add_argument(
        "--count", type=int, default=200, help="pictures of each category and kind (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the synthetic pictures and the non-digits (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="write the worst images there")
