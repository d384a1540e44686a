"""Judges the model that a service answers with, by every set of digits and every kind of images that are no digits.

The service is asked over gRPC, so that reading pictures, the model and the rejection are measured together, as users
get them. It only judges: nothing that shapes a model may import this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from model_export.data import DataError, LabelledImages, load_test_images, load_validation_images
from model_export.judging import digit_sets
from model_export.judging.asking import Answer, Sample, Service
from model_export.judging.judged import SYNTHETIC, Evaluation, Floats, KindResult, SetResult, auroc
from model_export.judging.non_digits import BLANK, KINDS, non_digits
from model_export.judging.pictures import CATEGORIES, MOST_PICTURES

MNIST, LOAD_DIGITS, FOLDER, NON_DIGITS = "mnist", "load_digits", "folder", "non_digits"
GROUPS = (MNIST, LOAD_DIGITS, SYNTHETIC, NON_DIGITS)
MNIST_RAW = "MNIST test, raw"
WORST_IMAGES = 12
Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to judge by.

    Attributes:
        sets: Groups, categories of the synthetic set and kinds of non-digits, by name or pattern ("photo_*").
        folder: A folder of labelled pictures to judge besides, or None.
        data_dir: Where MNIST lies; None for the usual places.
        count: Pictures of each category, and images of each kind of non-digits.
        seed: Of the synthetic set and the non-digits.
    """

    sets: Sequence[str] = GROUPS
    folder: Path | None = None
    data_dir: Path | None = None
    count: int = 200
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: A number is too small, or a name fits nothing.
        """
        if self.count < 1 or self.seed < 0:
            raise DataError(f"count is {self.count} and seed {self.seed}; at least 1 and 0 are needed")
        names = [*GROUPS, *CATEGORIES, *KINDS]
        for pattern in self.sets:
            if not any(fnmatch(name, pattern) for name in names):
                raise DataError(f"there is no set {pattern!r}; there are {', '.join(names)}")

    def wants(self, *names: str) -> bool:
        """Whether a thing that goes by several names is to be judged."""
        return any(fnmatch(name, pattern) for name in names for pattern in self.sets)


def evaluate(address: str, options: EvaluationOptions, commit: str = "unknown") -> Evaluation:
    """Ask the service at host:port about everything in the options, with progress bars on a terminal.

    `commit` is that of its code, as far as it is known.

    Raises:
        DataError: The folder cannot be used, or nothing is left to judge by.
        ServiceError: The service cannot be asked.
    """
    remarks: list[str] = []
    kinds = [name for name in KINDS if options.wants(NON_DIGITS, name)]
    validation = None
    if kinds or any(options.wants(SYNTHETIC, name) for name in CATEGORIES):
        validation = _readable(f"{SYNTHETIC}, {NON_DIGITS}", partial(load_validation_images, options.data_dir), remarks)
    planned = list(_planned(options, validation, remarks))
    if not planned and not (kinds and validation):
        raise DataError("nothing is left to judge by: " + "; ".join(remarks))
    found: list[KindResult] = []
    with Service(address) as service:
        model = service.model()
        sets = [_judge(service, *each, remarks) for each in planned]
        if validation:
            for name in kinds:
                found += _judge_kind(service, name, validation, options, sets)
    return Evaluation(f"{model.name}/{model.version}", model.sha256, tuple(sets), tuple(found), tuple(remarks), commit)


def _planned(
    options: EvaluationOptions, validation: LabelledImages | None, remarks: list[str]
) -> Iterator[tuple[str, str, Iterable[Sample], int]]:
    """Yield the sets of digits to judge by: name, group, samples and how many; note those that cannot be had."""
    if options.folder:
        files, without_label = digit_sets.folder_files(options.folder)
        remarks += [f"skipped {path}: its name tells no digit" for path in without_label]
        yield str(options.folder), FOLDER, digit_sets.folder_samples(files), len(files)
    if options.wants(MNIST) and (test := _readable(MNIST, partial(load_test_images, options.data_dir), remarks)):
        yield MNIST_RAW, MNIST, digit_sets.mnist_raw(test), len(test.labels)
        yield "MNIST test, PNG files", MNIST, digit_sets.mnist_png(test), len(test.labels)
    if options.wants(LOAD_DIGITS) and (small := _readable(LOAD_DIGITS, digit_sets.load_digits, remarks)):
        yield LOAD_DIGITS, LOAD_DIGITS, small, len(small)
    for name in CATEGORIES:
        if validation and options.wants(SYNTHETIC, name):
            count = min(options.count, MOST_PICTURES.get(name, options.count))
            yield name, SYNTHETIC, digit_sets.pictures(name, validation, count, options.seed), count


def _readable(name: str, read: Callable[[], Read], remarks: list[str]) -> Read | None:
    """Read something, or note why it cannot be had."""
    try:
        return read()
    except DataError as error:
        remarks.append(f"skipped {name}: {error}")
        return None


def _judge(
    service: Service, name: str, group: str, samples: Iterable[Sample], count: int, remarks: list[str]
) -> SetResult:
    """Ask about a set of digits; what the service refuses is noted."""
    judged = list(_ask(service, name, samples, count))
    answers = [answer for _, answer in judged]
    remarks += dict.fromkeys(
        f"refused {sample.name or f'an image of {name}'}: {answer.error}" for sample, answer in judged if answer.error
    )
    bad = [each for each in judged if each[1].digit != each[0].label or each[1].reason]
    return SetResult(
        name,
        group,
        labels=np.array([sample.label for sample, _ in judged]),
        digits=np.array([answer.digit for answer in answers]),
        probabilities=np.array([answer.probabilities for answer in answers], np.float32),
        digit_scores=np.array([answer.digit_score for answer in answers], np.float32),
        reasons=tuple(answer.reason for answer in answers),
        # Wrong answers before right ones that were rejected, and of each the surest first.
        worst=tuple(sorted(bad, key=lambda each: (each[1].digit == each[0].label, -each[1].confidence))[:WORST_IMAGES]),
    )


def _judge_kind(
    service: Service, name: str, digits: LabelledImages, options: EvaluationOptions, sets: list[SetResult]
) -> Iterator[KindResult]:
    """Ask about a kind of images that are no digits, in each of its forms; `sets` are the digits to tell them from."""
    made = list(non_digits(name, digits, options.count, seed=options.seed))
    forms = {
        "raw": [Sample(each.raw.tobytes(), raw=True) for each in made if each.raw is not None],
        "picture": [Sample(each.picture) for each in made if each.picture is not None],
    }
    references = {
        "raw": _scores(result for result in sets if result.name == MNIST_RAW),
        "picture": _scores(result for result in sets if result.group == SYNTHETIC),
    }
    for form, samples in forms.items():
        if not samples:
            continue
        judged = list(_ask(service, f"{name}, {form}", samples, len(samples)))
        scores = np.array([answer.digit_score for _, answer in judged], np.float32)
        passed = [each for each in judged if not each[1].reason]
        yield KindResult(
            name,
            form,
            digit_scores=scores,
            reasons=tuple(answer.reason for _, answer in judged),
            auroc=float("nan") if name == BLANK else auroc(references[form], scores),
            worst=tuple(sorted(passed, key=lambda each: -each[1].digit_score)[:WORST_IMAGES]),
        )


def _scores(results: Iterable[SetResult]) -> Floats:
    return np.concatenate([np.empty(0, np.float32), *(result.digit_scores for result in results)])


def _ask(service: Service, name: str, samples: Iterable[Sample], count: int) -> Iterator[tuple[Sample, Answer]]:
    # None hides the bar where no terminal is.
    yield from tqdm(service.ask(samples), desc=name, total=count, unit=" images", leave=False, disable=None)
