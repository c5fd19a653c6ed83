import json
from pathlib import Path

import pytest
import torch
from helpers import TINY

from amgen import config
from amgen.config import DataConfig
from amgen.core.errors import UserError
from amgen.data import ImageDataset, ImageStream, open_dataset, open_source, to_image, training_stream
from amgen.training.main import train


def test_every_epoch_visits_every_image_once_in_its_own_order() -> None:
    dataset = open_dataset(DataConfig())
    stream = training_stream(dataset, seed=0)
    count = len(dataset)
    reference = dataset.images(range(count)).flatten(1).sum(dim=1).sort().values
    for epoch in (0, 3):
        images = stream.__getitems__(range(epoch * count, (epoch + 1) * count)).images
        assert torch.equal(((images + 1) * 127.5).round().flatten(1).sum(dim=1).long().sort().values, reference)
    assert not torch.equal(stream.__getitems__(range(10)).images, stream.__getitems__(range(count, count + 10)).images)


def test_items_do_not_depend_on_how_they_are_batched() -> None:
    stream = training_stream(open_dataset(DataConfig(flip=True)), seed=1)
    whole = stream.__getitems__(range(1790, 1830))
    parts = [stream.__getitems__(range(start, start + 8)) for start in range(1790, 1830, 8)]
    for name in ("images", "noise", "labels"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_about_half_are_flipped() -> None:
    """2,000 flips of a fair coin: within 5 standard errors of 1,000."""
    plain = training_stream(open_dataset(DataConfig()), seed=0).__getitems__(range(2000)).images
    flipped = training_stream(open_dataset(DataConfig(flip=True)), seed=0).__getitems__(range(2000)).images
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(dim=1)
    untouched = (flipped == plain).flatten(1).all(dim=1)
    assert (mirrored | untouched).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * 500**0.5


def test_labels_belong_to_their_images() -> None:
    dataset = open_dataset(DataConfig())
    batch = training_stream(dataset, seed=0).__getitems__(range(50))
    images = ((batch.images + 1) * 127.5).round().to(torch.uint8)
    for image, label in zip(images, batch.labels, strict=True):
        matches = (dataset.images(range(len(dataset))) == image).flatten(1).all(dim=1)
        assert label in dataset.labels[matches]


def corrupted(folder: Path, options: DataConfig) -> DataConfig:
    """Write 12 digits in two classes, the 3rd, 4th and last of which are replaced by files that are not images."""
    source = ImageDataset(open_source(DataConfig()), DataConfig())
    for index in range(12):
        file = folder / "ab"[index // 6] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        to_image(source.images([index])[0]).save(file)
    for name in ("a/02.png", "a/03.png", "b/11.png"):
        (folder / name).write_bytes(b"not an image")
    return options.model_copy(update={"path": str(folder)})


@pytest.mark.parametrize("memory", [0, 1024])
def test_unreadable_images_are_skipped_only_on_request(memory: int, tmp_path: Path) -> None:
    """The next readable image replaces each one, with its own label, whether images are kept in memory or not, and is counted."""
    options = corrupted(tmp_path / "images", DataConfig(memory_mb=memory))
    with pytest.raises(UserError, match=r"cannot read the image .*a/02.png.*: replace or remove it"):
        open_dataset(options).images(range(12))
    dataset = open_dataset(options.model_copy(update={"on_error": "skip"}))
    whole = ImageDataset(open_source(DataConfig()), DataConfig())
    stand_ins = [0, 1, 4, 4, 4, 5, 6, 7, 8, 9, 10, 0]
    assert torch.equal(dataset.images(range(12)), whole.images(stand_ins))
    batch = training_stream(dataset, 0).__getitems__(range(24))
    assert sum(batch.skipped) == 6  # 3 in each epoch
    order = [int(ImageStream(dataset, 0)._order(epoch)[place]) for epoch in range(2) for place in range(12)]
    assert batch.labels.tolist() == [int(stand_ins[index] > 5) for index in order]


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"?")
    with pytest.raises(UserError, match="none of the 3 images of .* can be read"):
        open_dataset(DataConfig(path=str(tmp_path), on_error="skip"))


def test_skipped_images_are_counted_in_the_record(tmp_path: Path) -> None:
    """Two epochs of 12 images, 3 of them unreadable, in passes of 4 with groups of 6 and resumed halfway: 3 and 6 in all."""
    data = corrupted(tmp_path / "images", DataConfig())
    options = [
        *TINY,
        f"data.path={data.path}",
        "data.on_error=skip",
        "training.batch_size=12",
        "training.micro_batch=4",
        "coupling.kind=ot",
    ]
    options += ["coupling.group=6", "training.log_every=12", "training.sample_every=0"]
    for images in (12, 24):
        train(config.load("digits", [*options, f"training.images={images}"]), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [3, 6]


def test_an_image_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amgen.data.dataset.free_bytes", lambda device: 2**30)
    with pytest.raises(UserError, match=r"data.size=16384: an image takes 3 GiB, more than is free: choose a smaller size"):
        open_dataset(DataConfig(size=16_384, channels=3))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_images_that_do_not_fit_into_memory_are_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("amgen.data.dataset.prepare", fail)
    with pytest.raises(UserError, match="image 0 of the embedded digits, 8x8 pixels, does not fit into memory: reduce or remove it"):
        open_dataset(DataConfig())
