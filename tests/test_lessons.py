"""What is learnt from a batch, on networks whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model_export.lessons import LABELS_SHARE, SCRIBBLES_SHARE, SOFTENING, FromLabels, FromTeachers

IMAGES = torch.zeros(8, 28, 28, dtype=torch.uint8)
LABELS = torch.zeros(8).long()


class Says(nn.Module):
    """A network that says the same of every image."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def known(score: float) -> float:
    """The loss for telling eight digits and a scribble apart with the same score for both."""
    return math.log1p(math.exp(-score)) + SCRIBBLES_SHARE * math.log1p(math.exp(score))


def test_a_teacher_learns_the_labels() -> None:
    loss = FromLabels(torch.float32)(Says(*[0.0] * 10), IMAGES, LABELS, generator())
    assert loss.item() == pytest.approx(math.log(10))


def test_without_teachers_the_student_learns_labels_and_scribbles() -> None:
    lesson = FromTeachers((), IMAGES[:1], torch.float32)
    loss = lesson(Says(*[0.0] * 10, 1.0), IMAGES, LABELS, generator())
    assert loss.item() == pytest.approx(math.log(10) + known(math.log(10) - 1), rel=1e-5)


def test_the_student_is_drawn_to_what_the_teachers_say_on_average() -> None:
    teachers = (Says(4.0, *[0.0] * 9), Says(0.0, 4.0, *[0.0] * 8))
    lesson = FromTeachers(teachers, IMAGES[:1], torch.float32)
    student = Says(*[0.0] * 11)
    loss = lesson(student, IMAGES, LABELS, generator())
    # Uniform against anything is log 10.
    expected = (LABELS_SHARE + (1 - LABELS_SHARE) * SOFTENING**2) * math.log(10) + known(math.log(10))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    pull = -student.logits.grad  # type: ignore[operator]
    assert pull[0] > pull[1] > pull[2] == pytest.approx(pull[9])  # both teachers' digits, and the label on top
    assert all(teacher.logits.grad is None for teacher in teachers)


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = torch.randint(0, 256, (8, 28, 28), generator=generator()).byte()
    exact, fast = (FromLabels(kind)(network, images, LABELS, generator()) for kind in (torch.float32, torch.bfloat16))
    assert fast.dtype == torch.float32
    assert fast.item() == pytest.approx(exact.item(), rel=0.02) and fast.item() != exact.item()
