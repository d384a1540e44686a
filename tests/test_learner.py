"""One network being taught: its schedule, its seeds, what is kept of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_export import learner as module
from model_export.learner import Learner, epoch_seed, learning_rate, predict, validate
from model_export.lessons import FromLabels
from model_export.network import build_network
from tests.training import small_set


def new_learner() -> Learner:
    torch.manual_seed(0)
    return Learner("a student", 2, 0.1, build_network(), FromLabels(torch.float32))


def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = small_set("train", count)
    return torch.tensor(data.images), torch.tensor(data.labels).long()


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [learning_rate(step, 200, 0.1) for step in range(200)]
    peak = rates.index(max(rates))
    assert rates[peak] == 0.1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.001


def test_every_epoch_of_every_learner_of_every_seed_has_randomness_of_its_own() -> None:
    seeds = {epoch_seed(seed, learner, epoch) for seed in range(9) for learner in range(9) for epoch in range(9)}
    assert len(seeds) == 729


def test_the_epoch_with_the_lowest_validation_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = new_learner()
    learner.epochs = 3
    losses = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(module, "validate", lambda *_: (next(losses), 0.9))
    kept = []
    for epoch in range(3):
        learner.run_epoch(part(40), part(20), 20, seed=epoch)
        kept.append({name: value.clone() for name, value in learner.average.state_dict().items()})
    assert learner.best["epoch"] == 2 and learner.is_done
    found = learner.best_network().state_dict()
    assert all(torch.equal(found[name], value) for name, value in kept[1].items())
    assert not torch.equal(found["0.weight"], kept[2]["0.weight"])


def test_timing_steps_leaves_the_learner_as_it_was() -> None:
    learner = new_learner()
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    assert learner.seconds_a_step(*part(20)) > 0
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())


def test_what_was_stored_of_another_network_is_refused() -> None:
    other = Learner("another", 2, 0.1, nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), FromLabels(torch.float32))
    with pytest.raises(RuntimeError):
        new_learner().restore(other.state())


def test_validation_looks_at_the_ten_digits_only() -> None:
    images, labels = part(10)
    network = build_network().eval()
    loss, accuracy = validate(network, (images, labels))
    logits = predict(network, images)
    assert logits.shape == (10, 11)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits[:, :10], labels).item())
    assert accuracy == pytest.approx((logits[:, :10].argmax(dim=1) == labels).double().mean().item())


def test_another_network_can_be_taken_over() -> None:
    torch.manual_seed(9)
    other, learner = build_network().eval(), new_learner()
    learner.start_from(other)
    images, _ = part(5)
    for network in (learner.network.eval(), learner.average):
        torch.testing.assert_close(predict(network, images), predict(other, images), atol=0, rtol=0)
