"""Masks are functions of (key, layer, entry), and look random."""

import pytest
import torch

from amgen.actions import DotAction, UNet
from amgen.actions.dropout import Dropout
from amgen.core.randomness import Purpose, dropout_seeds
from amgen.losses import ActionMatchingLoss, ConditionalLoss, MarginalLoss
from amgen.paths import LinearPath


def masks(count: int, entries: int, rate: float = 0.3, layer: int = 0, seed: int = 0) -> torch.Tensor:
    """Return 1.0 where an entry is dropped, (count, entries)."""
    ones = torch.ones(count, entries)
    return (Dropout(rate, layer)(ones, dropout_seeds(seed, Purpose.DROPOUT, range(count))) == 0).double()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_the_share_dropped_is_the_rate(rate: float) -> None:
    """Over 640,000 entries, for each image and for each place: within 5 standard errors of the rate."""
    dropped = masks(400, 1600, rate)
    spread = (rate * (1 - rate)) ** 0.5
    assert abs(dropped.mean() - rate) < 5 * spread / 800
    assert (dropped.mean(dim=0) - rate).abs().max() < 5 * spread / 20
    assert (dropped.mean(dim=1) - rate).abs().max() < 5 * spread / 40


def test_images_places_layers_and_seeds_are_independent() -> None:
    """Correlations of masks over 4,096 entries or images stay within 6 of their standard errors, 1/64, as chance would have it."""
    dropped = masks(64, 4096)
    images = torch.corrcoef(dropped) - torch.eye(64)
    places = torch.corrcoef(masks(4096, 64).T) - torch.eye(64)
    layers = torch.corrcoef(torch.cat([masks(1, 4096, layer=layer) for layer in range(40)])) - torch.eye(40)
    seeds = torch.corrcoef(torch.cat([masks(1, 4096, seed=seed) for seed in range(40)])) - torch.eye(40)
    for correlations in (images, places, layers, seeds):
        assert correlations.abs().max() < 6 / 64
        # Not too small either, which would be another pattern: their mean square is 1/4096.
        off = correlations[~torch.eye(len(correlations), dtype=torch.bool)]
        assert 0.8 < float(off.square().mean()) * 4096 < 1.2
    runs = (dropped[:, 1:] * dropped[:, :-1]).mean()  # neighbours along a row
    assert abs(runs - 0.09) < 5 * 0.09**0.5 / 512


def test_expectation_is_kept_and_evaluation_drops_nothing() -> None:
    layer, x, key = Dropout(0.25), torch.full((200, 1000), 3.0), dropout_seeds(0, Purpose.DROPOUT, range(200))
    assert set(layer(x, key).unique().tolist()) == {0.0, 4.0}
    assert abs(float(layer(x, key).mean()) - 3) < 5 * 4 * (0.25 * 0.75 / 200_000) ** 0.5
    assert torch.equal(layer.eval()(x, None), x)
    with pytest.raises(ValueError, match="needs a seed for each sample"):
        layer.train()(x, None)


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_masks_belong_to_the_sample(form: type[ActionMatchingLoss]) -> None:
    """The loss of a sample and its gradient do not depend on the others of its batch; another seed gives another loss."""
    body = UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, dropout=0.3, out_channels=1).double()
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    loss, path = form(DotAction(body), LinearPath()), LinearPath()
    t, (noise, data), seeds = torch.rand(6).double(), torch.randn(2, 6, 1, 8, 8).double(), dropout_seeds(0, Purpose.DROPOUT, range(6))
    together = loss(path.sample(t, noise, data, dropout_seeds=seeds, boundary=True)).loss
    alone = torch.cat(
        [loss(path.sample(t[i, None], noise[i, None], data[i, None], dropout_seeds=seeds[i, None], boundary=True)).loss for i in range(6)]
    )
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=0)
    other = loss(path.sample(t, noise, data, dropout_seeds=dropout_seeds(1, Purpose.DROPOUT, range(6)), boundary=True)).loss
    assert (other != together).all()


def test_layers_of_a_network_have_numbers_of_their_own() -> None:
    body = UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=2, dropout=0.3, out_channels=1)
    numbers = [layer.layer for layer in body.modules() if isinstance(layer, Dropout)]
    assert numbers == list(range(12))  # 4 on the way down, 2 in the middle, 6 on the way up
