from itertools import permutations

import pytest
import torch
from helpers import TINY, newest_tensors

from amgen import config
from amgen.paths import IndependentCoupling, OptimalTransportCoupling


def cost(noise: torch.Tensor, data: torch.Tensor) -> float:
    return float((noise - data).square().sum())


def test_independent_coupling_changes_nothing() -> None:
    noise = torch.randn(5, 1, 2, 2)
    assert IndependentCoupling().assign(noise, noise).tolist() == [0, 1, 2, 3, 4]


def test_optimal_transport_is_the_best_of_all_permutations() -> None:
    noise, data = torch.randn(2, 6, 1, 2, 2)
    order = OptimalTransportCoupling(6).assign(noise, data)
    best = min(cost(noise[list(p)], data) for p in permutations(range(6)))
    assert cost(noise[order], data) == pytest.approx(best, rel=1e-5)


def test_groups_are_solved_one_by_one() -> None:
    noise, data = torch.randn(2, 12, 3)
    coupling = OptimalTransportCoupling(4)
    whole = coupling.assign(noise, data)
    parts = [coupling.assign(noise[i : i + 4], data[i : i + 4]) + i for i in (0, 4, 8)]
    assert torch.equal(whole, torch.cat(parts))


def test_noise_stays_within_its_class() -> None:
    noise, data = torch.randn(2, 30, 2)
    labels = torch.arange(30) % 3
    order = OptimalTransportCoupling(30).assign(noise, data, labels)
    assert torch.equal(order.sort().values, torch.arange(30))
    assert torch.equal(labels[order], labels)
    assert cost(noise[order], data) < cost(noise, data)


def test_pairing_does_not_depend_on_accumulation(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Groups of 24 images, in passes of 16 or of 4: the same weights to rounding; and another run than without coupling."""
    from amgen.training.main import train

    def weights(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        train(config.load("digits", [*TINY, *overrides]), tmp_path / name)
        return newest_tensors(tmp_path / name)

    coupled = ["coupling.kind=ot", "coupling.group=24"]
    whole, parts = weights("whole", *coupled), weights("parts", *coupled, "training.micro_batch=4")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)
    plain = weights("plain", "coupling.kind=independent")
    name = "action.safetensors/body.head.weight"
    assert not torch.allclose(plain[name], whole[name], rtol=0, atol=1e-4)
