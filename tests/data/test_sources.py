import os
import pickle
import shutil
import socket
import zipfile
from pathlib import Path
from tarfile import ReadError
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import unchanged
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from amgen.config import DataConfig
from amgen.core.errors import UserError
from amgen.data import open_dataset, open_source, training_stream
from amgen.data.files import ZipSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three 8x8 gray images, each of one level, and a file that is not an image."""
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


def test_a_folder_named_like_an_image_is_a_folder(folder: Path) -> None:
    os.rename(folder / "cat", folder / "cat.png")
    source = open_source(DataConfig(path=str(folder)))
    assert list(source.classes) == ["cat.png", "dog"]
    assert len(source) == 6


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
    stream = training_stream(open_dataset(DataConfig(path=str(path), memory_mb=0)), seed=0)
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
    """Read IDX files laid out as torchvision does, here with ten small images."""
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_images_are_turned_as_exif_says(orientation: int, ending: str, tmp_path: Path) -> None:
    """As Pillow's function turns an image of four quarters of different levels."""
    image = Image.new("RGB", (16, 16))
    for number, place in enumerate([(0, 0), (8, 0), (0, 8), (8, 8)]):
        image.paste((80 * number,) * 3, (*place, place[0] + 8, place[1] + 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if ending != "webp" else {"exif": exif, "lossless": True}
    image.save(tmp_path / f"a.{ending}", **options)
    dataset = open_dataset(DataConfig(path=str(tmp_path), size=16, channels=3))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.abs(dataset.images([0])[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 3  # JPEG's rounding
    assert dataset.source.turned == (set() if orientation == 1 else {0})
    assert dataset.notes() == ([] if orientation == 1 else ["images turned as their EXIF orientation says: 1"])


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"nonsense" * 9, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_turns_nothing(exif: bytes, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png", exif=exif)
    dataset = open_dataset(DataConfig(path=str(tmp_path)))
    assert dataset.images([0]).unique().tolist() == [7]
    assert dataset.notes() == []


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_taken(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    dataset = open_dataset(DataConfig(path=str(tmp_path), convert=True))
    assert dataset.images([0]).unique().tolist() == [0]
    assert dataset.notes() == ["images with several frames or pages (the first one is used): 1"]


@pytest.mark.parametrize("classes", [[], ["cat"], ["cat", "dog"]])
def test_folders_without_images_are_named(classes: list[str], tmp_path: Path) -> None:
    """With images at the top, with one class (which then has no name) and with several; of nested folders only the outermost."""
    for folder in [tmp_path / name for name in classes] or [tmp_path]:
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(folder / "0.png")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in classes:
        (tmp_path / name / "deeper" / "x").mkdir(parents=True)
    source = open_source(DataConfig(path=str(tmp_path)))
    expected = {0: "empty", 1: "cat/deeper, empty", 2: "empty"}[len(classes)]
    assert list(source.notes) == [f"folders without images are left out: {expected}"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(tmp_path.rglob("*")):
            if path.name != "all.zip":
                archive.write(path, path.relative_to(tmp_path))
    assert list(open_source(DataConfig(path=str(tmp_path / "all.zip"))).notes) == list(source.notes)


def test_links_in_a_loop_are_followed_once(tmp_path: Path) -> None:
    """Two folders that link to each other and to themselves; a second link to the same images is no loop, so they count twice."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "b").symlink_to(".")
    source = open_source(DataConfig(path=str(tmp_path)))
    assert source.paths == ["a/0.png", "a/b/0.png", "b/0.png", "b/a/0.png"]  # type: ignore[attr-defined]
    assert source.notes[0] == "links to a folder that contains them are left out: a/b/a, a/b/b, b/a/b, b/b"


def test_names_that_are_not_text_are_hashed(folder: Path) -> None:
    os.rename(folder / "cat" / "0.png", os.fsencode(folder / "cat") + b"/\xff\x1b.png")
    os.rename(folder / "dog", os.fsencode(folder) + b"/\xfe")
    source = open_source(DataConfig(path=str(folder)))
    assert source.name(2).endswith(r"cat/\udcff\x1b.png")
    assert list(source.classes) == ["cat", r"\udcfe"]
    assert source.contents() != source.fingerprint()
    assert open_source(DataConfig(path=str(folder))).contents() == source.contents()


def test_contents_of_files_that_cannot_be_read_are_hashed(folder: Path) -> None:
    before = open_source(DataConfig(path=str(folder))).contents()
    (folder / "cat" / "1.png").unlink()
    (folder / "cat" / "1.png").symlink_to("nowhere.png")
    assert open_source(DataConfig(path=str(folder))).contents() != before


def test_reading_reports_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amgen.core.progress.REPORT_EVERY", 0.0)
    lines: list[str] = []
    open_dataset(DataConfig(path=str(folder)), lines.append)
    assert [line.split("  ")[0] for line in lines[:6]] == [f"reading: {done}/6 images" for done in range(1, 7)]
    assert lines[6:] == [f"{folder}: files without an image extension are left out: 1 (.txt)"]


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("Error downloading"), EOFError(), ReadError("not a tar")])
def test_a_failed_download_is_an_error_of_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reader of torchvision is replaced by one that finds nothing and cannot download. The timeout of connections is 15 s."""
    from torchvision import datasets

    class Missing:
        def __init__(self, root: Path, train: bool, download: bool):
            if not download:
                raise RuntimeError("Dataset not found")
            assert socket.getdefaulttimeout() == 15
            raise error

    monkeypatch.setattr(datasets, "CIFAR10", Missing)
    lines: list[str] = []
    options = DataConfig(path="cifar10", root=str(tmp_path), size=32, channels=3, download=True)
    with pytest.raises(UserError, match=r"could not fetch CIFAR10 from www.cs.toronto.edu into .*: .+: copy it there") as caught:
        open_dataset(options, lines.append)
    assert "\n" not in str(caught.value)
    assert lines == [f"fetching CIFAR10, 170 MB from www.cs.toronto.edu, into {tmp_path}"]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\3" + b"\xff" * 12, b"nonsense" * 50])
def test_a_damaged_data_set_is_an_error_of_one_line(damage: bytes, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", np.zeros((2, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.zeros(2))
    (raw / "train-images-idx3-ubyte").write_bytes(damage)
    for download in (False, True):
        with pytest.raises(UserError, match=r"MNIST in .* is damaged \(.+\): remove it and set data.download=true"):
            open_source(DataConfig(path="mnist", root=str(tmp_path), size=28, download=download))


def test_changed_images_are_reported_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With no images kept in memory, the first turned image is reported. A copy for another process prints the line instead."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("1", "2"):
        Image.new("L", (8, 8)).save(folder / "cat" / f"{name}.png", exif=exif)
    lines: list[str] = []
    dataset = open_dataset(DataConfig(path=str(folder), memory_mb=0), lambda line: lines.append(line))
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(lines) == 1  # of notes.txt
    for _ in range(2):
        dataset.images(range(6))
    line = f"{folder}/cat/1.png is turned as its EXIF orientation says; so are others like it"
    assert lines[1:] == [line]
    copy.images(range(6))
    assert capsys.readouterr().out == line + "\n"
