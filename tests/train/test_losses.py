"""Means by hand; the term, epoch and step of the first value that is not finite."""

import pytest
import torch

from modalmix.errors import NonFiniteLossError, TrainError
from modalmix.train.losses import EpochLosses


def terms(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}


def test_sum_and_means_by_hand() -> None:
    losses = EpochLosses(1)
    assert losses.means() == {}
    assert losses.add(terms(bpr=1.0, reg=0.5)).item() == 1.5
    losses.add(terms(bpr=3.0, reg=0.25))
    losses.check()
    losses.add(terms(bpr=5.0, reg=0.0))
    losses.check()
    assert losses.steps == 3
    assert losses.means() == {"bpr": 3.0, "reg": 0.25}


def test_gradient_reaches_every_term() -> None:
    values = terms(bpr=1.0, reg=2.0)
    EpochLosses(1).add(values).backward()
    assert [value.grad.item() for value in values.values()] == [1.0, 1.0]


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "inf")])
def test_names_the_first_bad_term_epoch_and_step(value: float, word: str) -> None:
    losses = EpochLosses(4)
    losses.add(terms(bpr=1.0, reg=1.0))
    losses.check()
    losses.add(terms(bpr=1.0, reg=1.0))
    losses.add(terms(bpr=1.0, reg=value))
    losses.add(terms(bpr=value, reg=value))
    with pytest.raises(NonFiniteLossError, match=rf"'reg' at epoch 4, step 3: got {word}"):
        losses.check()


def test_other_terms_in_a_later_step() -> None:
    losses = EpochLosses(2)
    losses.add(terms(bpr=1.0))
    with pytest.raises(TrainError, match="epoch 2, step 2: got bpr, reg, expected bpr"):
        losses.add(terms(bpr=1.0, reg=1.0))


def test_order_of_terms_does_not_matter() -> None:
    losses = EpochLosses(1)
    losses.add(terms(a=1.0, b=10.0))
    losses.add(terms(b=20.0, a=2.0))
    losses.check()
    assert losses.means() == {"a": 1.5, "b": 15.0}


def test_no_terms_and_terms_that_are_no_scalars() -> None:
    with pytest.raises(TrainError, match="got none"):
        EpochLosses(1).add({})
    with pytest.raises(TrainError, match=r"got shape \(3,\), expected scalars"):
        EpochLosses(1).add({"bpr": torch.ones(3)})
