"""The words of the model card: figures in, Markdown out. Knows no files, no plots and no ONNX."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export.export import NAME, VERSION
from model_export.report.limits import limits
from model_export.report.markdown import share, table
from model_export.report.speed import BATCH_SIZE, processor

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from model_export.checkpoint import Facts
    from model_export.report.baselines import Baselines
    from model_export.report.figures import Evaluation, Figures
    from model_export.report.score_trials import Trial

PLOTS_FOLDER = "card"
RAW_TEST_SET = "MNIST test, raw"
PLOTS = {
    "confusion": "How many images of each digit were read as which digit",
    "misread": "The misread test images, each with the model's first two guesses",
    "reliability": "Accuracy against confidence",
    "scores": "Digit scores of digits, and of what is none",
    "filters": "The filters of the first layer",
    "training": "Losses and validation errors over the epochs",
}


Log = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        model: The ONNX file's content.
        facts: What it was made from.
        log: For each learner, the teachers and the student, a row of figures an epoch.
        network: The network in words, its number of parameters included.
        figures: What it does on the test set.
        evaluation: What `evaluate` has stored, if it has.
        trials: Other ways to score what looks like a digit.
        baselines: Results of the baselines, if there are any.
        plots: Which of PLOTS there are, as PNG files.
    """

    model: bytes
    facts: Facts
    log: Log
    network: str
    figures: Figures
    evaluation: Evaluation
    trials: Sequence[Trial]
    baselines: Baselines | None
    plots: Collection[str]


def write_card(subject: Subject) -> str:
    """Write the model card, in Markdown."""
    parts = (
        _summary(subject),
        _data(subject),
        _training(subject),
        _accuracy(subject),
        _confidence(subject),
        _non_digits(subject),
        _speed(subject),
        _baselines(subject),
        limits(subject.figures.accuracy),
        "## How this card was made\n\n"
        "`python -m model_export report` writes it from the published model and MNIST's test set. "
        "It is not edited by hand.",
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _summary(subject: Subject) -> str:
    figures, facts = subject.figures, subject.facts
    wrong = len(figures.misread())
    rows = [
        ("Accuracy", f"**{figures.accuracy:.2%}** on {facts.tested_on}: {wrong:,} misread"),
        ("Expected calibration error", f"{figures.calibration_error():.2%}"),
        ("Digits rejected as no digits", f"{figures.rejected(facts.reject_threshold):.2%}"),
        ("Network", subject.network),
        ("Size", f"{len(subject.model):,} bytes"),
        ("Speed", f"{figures.microseconds:.0f} µs an image on one thread, {BATCH_SIZE} at a time"),
        ("Licence", "Apache-2.0"),
        ("SHA-256 of `model.onnx`", f"`{hashlib.sha256(subject.model).hexdigest()}`"),
    ]
    return f"""# Model card: {NAME}, version {VERSION}

This model reads one handwritten digit. It is given a picture of 28x28 grey pixels and answers with the probability of
each digit from 0 to 9, and with a score that says how much the picture looks like a digit at all.

{table(("", ""), rows)}
It is for programs that read single digits, such as form fields, exercises and games, and for whoever learns, teaches
or tests how a model is served. `digitserve` brings pictures of other sizes into its form. Who calls the model directly
does what MNIST's makers did: light ink (255) on dark ground (0), the longer side of the digit 20 pixels, its centre of
mass in the middle of 28x28. The limits at the end of this page are part of the description.
"""


def _data(subject: Subject) -> str:
    facts = subject.facts
    about = "A set in MNIST's format that is not MNIST."
    if subject.figures.test.is_mnist:
        about = """**MNIST**, by Yann LeCun and Corinna Cortes: 60,000 digits to train on and 10,000 to test on, written
by employees of the US Census Bureau and by high-school students in the United States, no writer in both parts. It is
derived from NIST's Special Databases 1 and 3. Licence: Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0). The
test images shown on this page are MNIST's and under that licence."""
    return f"""## Data

{about}

Trained on: {facts.trained_on}. The other training images are the validation part, which
chose the epoch, the temperature and the threshold of rejection. The test images chose nothing.

SHA-256 of the uncompressed training files: `{facts.training_data_sha256}`
"""


def _training(subject: Subject) -> str:
    facts = subject.facts
    seconds = sum(epoch["seconds"] for epochs in subject.log.values() for epoch in epochs)
    teachers = [epochs[-1]["validation_accuracy"] for name, epochs in subject.log.items() if name.startswith("teacher")]
    rows = [
        ("Seed", f"{facts.seed}"),
        ("Commit", f"`{facts.commit}`"),
        (
            "Epochs",
            f"{facts.epochs}, and {facts.finishing_epochs} to finish; "
            f"the weights after epoch {facts.chosen_epoch} were kept",
        ),
        ("Teachers", f"{facts.teachers}, of {facts.teacher_epochs} epochs each"),
        *([("Teachers' validation accuracy", ", ".join(map(share, teachers)))] if teachers else []),
        ("Images a step", f"{facts.batch_size}"),
        ("Computed on", f"{facts.device}, threads: {facts.threads}, {facts.precision}, PyTorch {facts.torch}"),
        ("Time", f"{seconds / 60:.0f} minutes, beside other work"),
        ("Validation accuracy", f"{facts.validation_accuracy:.2%}"),
        ("Temperature", f"{facts.temperature:.3f}"),
        ("Rejected below a digit score of", f"{facts.reject_threshold:.3f}"),
    ]
    return f"""## How it was trained

Each image is distorted anew each time it is seen: moved, turned, scaled, sheared, bent, with thicker or thinner
strokes, softer or harder edges. Larger networks, the teachers, learn the labels first; this one learns what they say of
the same distorted image, and from scribbles that are no digits what to reject. In the last epochs it learns from the
labels again, on images that are hardly distorted. What is kept is a moving average of the
weights, after the epoch with the smallest validation loss. The training loss is on distorted images, against the
teachers' softened answers, and has the scribbles' part in it, so that it does not compare with the validation loss.

{table(("", ""), rows)}
{_plot(subject, "training")}{_plot(subject, "filters")}"""


def _accuracy(subject: Subject) -> str:
    figures = subject.figures
    low, high = figures.accuracy_interval()
    sets = [
        (
            f"**{subject.facts.tested_on}**",
            f"{len(figures.right):,}",
            f"**{figures.accuracy:.2%}**",
            f"{figures.rejected(subject.facts.reject_threshold):.2%}",
            f"{figures.calibration_error():.2%}",
        ),
        *(
            (
                entry.name,
                f"{entry.images:,}",
                f"{entry.accuracy:.2%}",
                share(entry.rejected),
                share(entry.calibration_error),
            )
            for entry in subject.evaluation.sets
            if entry.name != RAW_TEST_SET  # measured above
        ),
    ]
    served_by = (
        f"\nApart from the first, they were read by the service as of commit `{subject.evaluation.commit}`.\n"
        if subject.evaluation.sets
        else ""
    )
    counts = figures.confusion()
    digits = []
    for digit, row in enumerate(counts):
        mistaken = [
            f"{other} ({row[other]})" for other in (-row).argsort(kind="stable") if other != digit and row[other]
        ]
        right = f"{row[digit] / row.sum():.2%}" if row.sum() else "none shown"
        digits.append((f"{digit}", f"{row.sum():,}", right, ", ".join(mistaken)))
    return f"""## Accuracy

On {len(figures.right):,} images an accuracy has a margin: between {low:.2%} and {high:.2%} with 95 % confidence.
A difference of a few images between two models means nothing.

{table(("set", "images", "accuracy", "rejected", "calibration error"), sets, align=" rrrr")}{served_by}
{table(("digit", "test images", "read rightly", "mistaken for (times)"), digits, align=" rr ")}
{_plot(subject, "confusion")}{_plot(subject, "misread")}"""


def _confidence(subject: Subject) -> str:
    return f"""## How sure it is

The logits are divided by a temperature that was fitted on the validation part, so that of the answers with a
confidence of 90 % about 90 % are right. The expected calibration error (15 bins) is the mean gap between the two:
{subject.figures.calibration_error():.2%}.

{_plot(subject, "reliability")}"""


def _non_digits(subject: Subject) -> str:
    kinds = [
        (
            entry.name.replace("_", " "),
            entry.form,
            f"{entry.images:,}",
            "" if entry.auroc is None else f"{entry.auroc:.4f}",
            f"{entry.rejected:.1%}",
        )
        for entry in subject.evaluation.non_digits
    ]
    measured = (
        "No image of these kinds was used to fit the score or the threshold. *raw* is 28x28 in MNIST's form, *picture* "
        "is a file\nthat the service has read and normalised.\n\n"
        + table(("kind", "form", "images", "area under the ROC curve", "rejected"), kinds, align="  rrr")
        if kinds
        else "Pictures of no digits are not on this card yet: `python -m model_export evaluate --json FILE` measures\n"
        f"them, FILE being `{PLOTS_FOLDER}/evaluation.json` beside the model.\n"
    )
    return f"""## What is not a digit

Probabilities always add up to 1, whatever the picture shows. The digit score tells whether it shows a digit: below
{subject.facts.reject_threshold:.3f} an answer is rejected. On the validation part 1 % of the digits are below.

{measured}
Other scores were tried on the same network, the area under the ROC curve for each kind in raw form:

{_trials(subject)}
{_plot(subject, "scores")}"""


def _trials(subject: Subject) -> str:
    kinds = list(subject.trials[0].auroc)
    rows = [(trial.name, *(f"{trial.auroc[kind]:.4f}" for kind in kinds)) for trial in subject.trials]
    return table(("score", *(kind.replace("_", " ") for kind in kinds)), rows, align=" " + "r" * len(kinds))


def _speed(subject: Subject) -> str:
    figures = subject.figures
    return f"""## Size and speed

One ONNX file of {len(subject.model):,} bytes: {subject.network}.

{figures.microseconds:.1f} µs an image, from pixels to probabilities, {BATCH_SIZE} images at a time: the median of
several runs of ONNX Runtime {figures.runtime} on one thread of this CPU: {processor()}.
"""


def _baselines(subject: Subject) -> str:
    heading = "## What else one could do with the same data\n\n"
    remedy = "`python -m model_export report --baselines` trains and measures them.\n"
    baselines = subject.baselines
    if baselines is None:
        return f"{heading}Simple classifiers and variants of the network are not measured yet: {remedy}"
    if baselines.network != subject.network:
        return f"{heading}The stored results are about another network, {baselines.network}: {remedy}"
    rows = [
        (
            result.name,
            "yes" if result.distorted else "no",
            f"{result.accuracy:.2%}",
            f"{result.parameters:,}",
            f"{result.microseconds:.1f}",
        )
        for result in baselines.results
    ]
    speed = f"{subject.figures.microseconds:.1f} in ONNX Runtime"
    rows.append(("**the released model**", "yes", f"**{subject.figures.accuracy:.2%}**", "as our network", speed))
    columns = ("method", "distorted images", "accuracy", "parameters", "µs an image")
    return f"""{heading}All but the last line were trained on the same {baselines.images:,} images for
{baselines.epochs} epochs, with AdamW on one cycle and seed {baselines.seed}. That is much less than the released model
had, so compare them with each other. Nothing was chosen on the way; the test images were read once, at the end. The
times are those of PyTorch {baselines.torch} on one thread, {BATCH_SIZE} images at a time. HOG are histograms of
oriented gradients (N. Dalal, B. Triggs, CVPR 2005).

{table(columns, rows, align="  rrr")}"""


def _plot(subject: Subject, name: str) -> str:
    return f"![{PLOTS[name]}]({PLOTS_FOLDER}/{name}.png)\n\n" if name in subject.plots else ""
