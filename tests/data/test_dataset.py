import torch

from amgen.config import DataConfig
from amgen.data import TrainingStream, open_dataset


def test_every_epoch_visits_every_image_once_in_its_own_order() -> None:
    dataset = open_dataset(DataConfig())
    stream = TrainingStream(dataset, seed=0)
    count = len(dataset)
    reference = dataset.images(range(count)).flatten(1).sum(dim=1).sort().values
    for epoch in (0, 3):
        images = stream.__getitems__(range(epoch * count, (epoch + 1) * count)).images
        assert torch.equal(((images + 1) * 127.5).round().flatten(1).sum(dim=1).long().sort().values, reference)
    assert not torch.equal(stream.__getitems__(range(10)).images, stream.__getitems__(range(count, count + 10)).images)


def test_items_do_not_depend_on_how_they_are_batched() -> None:
    stream = TrainingStream(open_dataset(DataConfig(flip=True)), seed=1)
    whole = stream.__getitems__(range(1790, 1830))
    parts = [stream.__getitems__(range(start, start + 8)) for start in range(1790, 1830, 8)]
    for name in ("images", "noise", "labels"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_about_half_are_flipped() -> None:
    """2,000 flips of a fair coin: within 5 standard errors of 1,000."""
    plain = TrainingStream(open_dataset(DataConfig()), seed=0).__getitems__(range(2000)).images
    flipped = TrainingStream(open_dataset(DataConfig(flip=True)), seed=0).__getitems__(range(2000)).images
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(dim=1)
    untouched = (flipped == plain).flatten(1).all(dim=1)
    assert (mirrored | untouched).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * 500**0.5


def test_labels_belong_to_their_images() -> None:
    dataset = open_dataset(DataConfig())
    batch = TrainingStream(dataset, seed=0).__getitems__(range(50))
    images = ((batch.images + 1) * 127.5).round().to(torch.uint8)
    for image, label in zip(images, batch.labels, strict=True):
        matches = (dataset.images(range(len(dataset))) == image).flatten(1).all(dim=1)
        assert label in dataset.labels[matches]
