"""Encoded times and the experts they choose, by hand."""

import math

import pytest
import torch

from modalmix.nn.packing import Packing
from modalmix.nn.times import TemporalExperts, TimeEncoding, buckets, intervals

REAL = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
TIMES = torch.tensor([[100, 103, 110], [50, 0, 0], [70, 70, 0]])


def packed() -> tuple[torch.Tensor, Packing]:
    packing = Packing(REAL)
    return packing.pack(TIMES), packing


def test_intervals_start_anew_with_every_sequence() -> None:
    assert intervals(*packed()).tolist() == [0, 3, 7, 0, 0, 0]


def test_an_interval_is_never_negative() -> None:
    assert intervals(torch.tensor([9, 4]), Packing(torch.ones(1, 2, dtype=torch.bool))).tolist() == [0, 0]


@pytest.mark.parametrize(("interval", "bucket"), [(0, 0), (1, 100), (2, 158), (3, 200), (2**27 - 1, 2700)])
def test_a_hundred_buckets_each_doubling(interval: int, bucket: int) -> None:
    assert buckets(torch.tensor([interval]), 100.0).item() == bucket == math.floor(100 * math.log2(interval + 1))


def test_encoding_by_hand() -> None:
    torch.manual_seed(0)
    encoding = TimeEncoding(4, 2.0, longest=3, origin=50, unit=10.0)
    assert encoding.buckets.num_embeddings == 5  # floor(2 log2 4) + 1
    found = encoding(*packed())
    table = encoding.buckets.weight
    w, b = encoding.absolute.weight[:, 0].tolist(), encoding.absolute.bias.tolist()
    for row, (time, bucket) in enumerate([(100, 0), (103, 4), (110, 4), (50, 0), (70, 0), (70, 0)]):
        assert torch.equal(found[row, :4], table[bucket]), "7 is beyond the longest: the last bucket"
        cosine = [math.cos((w[j] * (time - 50) / 10 + b[j]) * 10000 ** (-j / 4)) for j in range(4)]
        torch.testing.assert_close(found[row, 4:], torch.tensor(cosine))


def test_unix_seconds_lose_nothing() -> None:
    """A second more in 2020 is a second more: float32 would not see it."""
    encoding = TimeEncoding(2, 1.0, longest=1, origin=1_600_000_000, unit=1.0)
    one = Packing(torch.ones(1, 1, dtype=torch.bool))
    with torch.no_grad():
        encoding.absolute.weight.fill_(1.0)
        encoding.absolute.bias.fill_(0.0)
        found = encoding(torch.tensor([1_600_000_001]), one)
    assert found[0, 2].item() == pytest.approx(math.cos(1.0))


def test_temporal_experts_by_hand() -> None:
    torch.manual_seed(0)
    experts = TemporalExperts(2, 3, 4, time_dim=5)
    e, time = torch.randn(2, 6, 3), torch.randn(6, 5)
    found, routes = experts(e, time), experts.routes(time)
    torch.testing.assert_close(routes.sum(dim=1), torch.ones(6))
    torch.testing.assert_close(routes, torch.softmax(time @ experts.route.weight.T + experts.route.bias, dim=1))
    for m in range(2):
        for row in range(6):
            weight = sum(routes[row, k] * experts.experts[k, 3 * m : 3 * m + 3] for k in range(4))
            torch.testing.assert_close(found[m, row], e[m, row] * weight)
    assert {name for name, _ in experts.named_parameters()} == {"route.weight", "route.bias", "experts"}
