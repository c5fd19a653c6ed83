import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import unchanged
from PIL import Image
from torch.utils.data import DataLoader

from amgen.config import DataConfig
from amgen.data import TrainingStream, open_dataset, open_source
from amgen.data.sources import ZipSource
from amgen.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three 8x8 gray images, each of one level, beside a file that is no image."""
    root = tmp_path / "images"
    for number, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8), 100 * number + index).save(root / name / f"{index}.png")
    (root / "notes.txt").write_text("not an image")
    return root


def make_zip(folder: Path, prefix: str = "") -> Path:
    file = folder.parent / "images.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/cat/._0.png", b"resource fork")
    return file


@pytest.mark.parametrize("kind", ["folder", "zip", "zip with a top folder"])
def test_class_folders_become_labels(folder: Path, kind: str) -> None:
    path = folder if kind == "folder" else make_zip(folder, "top/" if "top" in kind else "")
    dataset = open_dataset(DataConfig(path=str(path)))
    assert list(dataset.source.classes) == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.images(range(6))[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]


def test_images_without_folders_have_one_class(folder: Path) -> None:
    dataset = open_dataset(DataConfig(path=str(folder / "cat")))
    assert list(dataset.source.classes) == [""]
    assert dataset.labels.tolist() == [0, 0, 0]


def test_fingerprint_survives_a_copy_and_sees_a_change(folder: Path) -> None:
    copied = Path(shutil.copytree(folder, folder.parent / "copy"))
    fingerprint = open_source(DataConfig(path=str(folder))).fingerprint()
    assert open_source(DataConfig(path=str(copied))).fingerprint() == fingerprint
    (copied / "cat" / "0.png").unlink()
    assert open_source(DataConfig(path=str(copied))).fingerprint() != fingerprint


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of one core
@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_what_the_main_process_reads(folder: Path, kind: str, context: str) -> None:
    """With nothing kept in memory, each worker opens the files for itself."""
    path = folder if kind == "folder" else make_zip(folder)
    stream = TrainingStream(open_dataset(DataConfig(path=str(path), memory_mb=0)), seed=0)
    batches = [range(start, start + 4) for start in range(0, 40, 4)]
    loader = DataLoader(stream, batch_sampler=batches, num_workers=2, collate_fn=unchanged, multiprocessing_context=context)
    for indices, batch in zip(batches, loader, strict=True):
        expected = stream.__getitems__(indices)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.noise, expected.noise)


def test_zip_source_can_be_pickled(folder: Path) -> None:
    source = ZipSource(make_zip(folder))
    source.image(0)
    assert pickle.loads(pickle.dumps(source)).image(3).getpixel((0, 0)) == 100


@pytest.mark.parametrize("memory", [0, 1024])
def test_truncated_image_is_named(folder: Path, memory: int) -> None:
    victim = folder / "dog" / "1.png"
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read the image .*dog/1.png"):
        open_dataset(DataConfig(path=str(folder), memory_mb=memory)).images(range(6))


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images: expected files ending in"):
        open_source(DataConfig(path=str(tmp_path)))
    with pytest.raises(UserError, match="does not exist: give a folder or .zip"):
        open_source(DataConfig(path=str(tmp_path / "missing")))
    with pytest.raises(UserError, match=r"did you mean 'digits'\?"):
        open_source(DataConfig(path="digit"))
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="cannot read the zip"):
        open_source(DataConfig(path=str(broken)))


def test_digits_are_the_embedded_ones() -> None:
    dataset = open_dataset(DataConfig())
    assert len(dataset) == 1797
    images = dataset.images(range(1797))
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    assert torch.bincount(dataset.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def write_idx(file: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "folder_name"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_torchvision_sets_by_name(name: str, folder_name: str, tmp_path: Path) -> None:
    """Read IDX files laid out as torchvision does, here ten small ones of our making."""
    options = DataConfig(path=name, root=str(tmp_path), size=28)
    with pytest.raises(UserError, match=r"is not in .*: set data.download=true to fetch it"):
        open_source(options)
    raw = tmp_path / folder_name / "raw"
    raw.mkdir(parents=True)
    images = np.arange(10 * 28 * 28).reshape(10, 28, 28) % 256
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(10))
    dataset = open_dataset(options)
    assert dataset.labels.tolist() == list(range(10))
    assert torch.equal(dataset.images([3])[0, 0], torch.from_numpy(images[3].astype(np.uint8)))


def test_cifar10_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torchvision checks the published checksums of CIFAR-10, so its reader is replaced by one that holds two images."""
    from torchvision import datasets

    class Stored:
        def __init__(self, root: Path, train: bool, download: bool):
            assert (root, train, download) == (tmp_path, True, False)
            self.data = np.stack([np.full((32, 32, 3), level, dtype=np.uint8) for level in (1, 2)])
            self.targets, self.classes = [4, 9], [str(number) for number in range(10)]

    monkeypatch.setattr(datasets, "CIFAR10", Stored)
    dataset = open_dataset(DataConfig(path="cifar10", root=str(tmp_path), size=32, channels=3))
    assert dataset.images([1]).unique().tolist() == [2]
    assert dataset.labels.tolist() == [4, 9]


def test_real_zip(amgen_data: Path) -> None:
    dataset = open_dataset(DataConfig(path=str(amgen_data / "cifar10-test.zip"), size=32, channels=3))
    assert len(dataset) == 10_000
    assert torch.bincount(dataset.labels).tolist() == [1000] * 10
