import torch

from amgen.config import DataConfig
from amgen.data import open_dataset, training_stream
from amgen.paths import OptimalTransportCoupling
from amgen.training.coupled import CoupledStream


def test_pairs_do_not_depend_on_who_asks() -> None:
    """Parts of any size and place hold the rows of the whole; images stay, and the noise of each group is exchanged within it."""
    plain = training_stream(open_dataset(DataConfig()), seed=0)
    coupled = CoupledStream(plain, OptimalTransportCoupling(12), within_classes=False)
    whole, drawn = coupled.__getitems__(range(36)), plain.__getitems__(range(36))
    for part in (range(0, 5), range(5, 20), range(23, 25), range(35, 36)):
        found = coupled.__getitems__(part)
        assert found.indices == part
        for name in ("images", "noise", "labels"):
            assert torch.equal(getattr(found, name), getattr(whole, name)[part.start : part.stop])
    assert torch.equal(whole.images, drawn.images)
    for start in (0, 12, 24):
        sums = [batch.noise[start : start + 12].sum(dim=(1, 2, 3)).sort().values for batch in (whole, drawn)]
        assert torch.equal(*sums)
    assert not torch.equal(whole.noise, drawn.noise)
    closer = (whole.noise - whole.images).square().sum() < (drawn.noise - drawn.images).square().sum()
    assert closer
