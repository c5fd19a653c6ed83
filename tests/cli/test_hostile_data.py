"""Damaged, odd and hostile data through the command line: one line and code 2, soon, and nothing left out without a word."""

import io
import json
import os
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, Outcome, run_cli, sets
from hostile import damage_member, images, make_fifo, png, tiff16
from PIL import Image

from amgen.config import DataConfig
from amgen.core.errors import UserError
from amgen.data import open_dataset

SOON = 10.0
"""Most seconds until a mistake is reported."""


def train(path: Path | str, tmp_path: Path, *changes: str) -> Outcome:
    """Train on images for two steps."""
    options = [*TINY, "training.images=32", "training.sample_every=0", f"data.path={path}", *changes]
    return run_cli("train", "digits", "--run-dir", tmp_path / "run", *sets(options))


def read(path: Path | str, tmp_path: Path, **changes: object) -> Outcome:
    """Read images, by the command that does the least with them."""
    data = {"size": 8, "channels": 1, "path": str(path), **changes}
    (tmp_path / "images.yaml").write_text(json.dumps({"data": data}))
    return run_cli("reference-stats", tmp_path / "images.yaml", "--features", "pixels")


def train_on_table(path: Path | str, tmp_path: Path, *changes: str) -> Outcome:
    """Train on a table for two steps."""
    options = ["dimension=2", "time_key=time"]
    sections = ["training.images=16", "training.batch_size=8", "training.sample_every=0", "training.warmup_images=0", "coupling.group=8"]
    settings = [*(f"data.{option}" for option in options), f"data.path={path}", "training.decay=0", "action.width=8", *sections, *changes]
    return run_cli("train", "cells", "--run-dir", tmp_path / "run", *sets(settings))


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))


def refused(act: Callable[[], Outcome]) -> str:
    """Return the one line by which something is refused."""
    started = time.perf_counter()
    outcome = act()
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("amgen: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert len(outcome.err) < 1000
    assert outcome.err.strip().isprintable()
    assert time.perf_counter() - started < SOON
    return outcome.err


def jpeg(mode: str = "L", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, "JPEG", **options)  # type: ignore[arg-type]
    return file.getvalue()


def gif_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_of_zeros(path: Path) -> None:
    """Write a sparse file of 2 GB that begins like a WebP, which its decoder would read whole."""
    with path.open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(2 << 30)


GRAY = np.zeros((8, 8), dtype=np.uint8)
DEEP = np.full((8, 8, 3), 256, dtype=np.uint16)

DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is none of PNG, JPEG"),
    "text": (lambda path: path.write_text("hello"), "it is none of PNG, JPEG"),
    "truncated": (lambda path: path.write_bytes(png(GRAY)[:45]), "cannot read the image"),
    "cut jpeg": (lambda path: path.write_bytes(jpeg()[:-20]), "cannot read the image"),
    "postscript": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "it is none of PNG, JPEG"),
    "no pixels": (lambda path: path.write_bytes(png(GRAY, (8, 0))), "cannot read the image"),
    "bomb": (lambda path: path.write_bytes(png(GRAY, (65_000, 65_000))), "refusing to decode"),
    "wide": (lambda path: path.write_bytes(png(GRAY, (70_000, 8))), "it is 70000x8 pixels: expected 1 to 65,535 each way"),
    "huge gif": (lambda path: path.write_bytes(gif_of(65_535, 65_535)), "refusing to decode"),
    "endless": (webp_of_zeros, "2,147,483,648 bytes are more than the 536,870,912 that an image file may have"),
    "pipe": (make_fifo, "it is a pipe, a device or a folder, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a pipe, a device or a folder, not a regular file"),
    "link to nowhere": (lambda path: path.symlink_to("nowhere.png"), "No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
}
"""Writers of files that cannot be decoded, and the reported reason."""


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_cannot_be_decoded_is_named(kind: str, tmp_path: Path) -> None:
    write, reason = DAMAGED[kind]
    folder = images(tmp_path / "images", 2)
    write(folder / "bad.png")
    line = refused(lambda: train(folder, tmp_path))
    assert f"{folder}/bad.png" in line
    assert reason in line
    assert not (tmp_path / "run").exists()


def test_decoders_in_c_write_nothing_beside_the_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """libtiff writes to the standard error by itself, past Python."""
    folder = images(tmp_path / "images", 1)
    Image.effect_noise((8, 8), 50).save(folder / "bad.tif", compression="tiff_lzw")
    data = (folder / "bad.tif").read_bytes()
    (folder / "bad.tif").write_bytes(data[:8] + b"\xff" * 20 + data[28:])
    assert f"cannot read the image {folder}/bad.tif" in refused(lambda: train(folder, tmp_path))
    assert capfd.readouterr().err == ""


def test_what_is_read_on_the_way_is_named_too(tmp_path: Path) -> None:
    folder = images(tmp_path / "images", 0)
    make_fifo(folder / "bad.png")
    line = refused(lambda: train(folder, tmp_path, "data.memory_mb=0"))
    assert f"cannot read the image {folder}/bad.png: it is a pipe" in line


@pytest.mark.parametrize("memory", [0, 1024])
def test_all_that_cannot_be_decoded_is_skipped_on_request(memory: int, tmp_path: Path) -> None:
    """Of each sort one, from a folder and from a zip: nothing hangs or stops, and what stood in is counted."""
    folder = images(tmp_path / "images", 4)
    for kind, (write, _) in DAMAGED.items():
        write(folder / f"{kind}.png")
    outcome = read(folder, tmp_path, on_error="skip", memory_mb=memory)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{4 + len(DAMAGED)} images of" in outcome.out
    if memory:
        assert f"{folder}: unreadable images, each replaced by the next readable one: {len(DAMAGED)}" in outcome.out


MEMBERS = {
    "encrypted": ({"encrypted": True}, "is encrypted"),
    "method": ({"method": 99}, "compression"),
    "corrupt": ({"corrupt": True}, "bad.png"),
}


def archive_with(tmp_path: Path, damage: str) -> Path:
    file = tmp_path / "images.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(images(tmp_path / "images", 4).iterdir()):
            archive.write(path, path.name)
        archive.writestr("bad.png", png(GRAY))
    damage_member(file, "bad.png", **MEMBERS[damage][0])  # type: ignore[arg-type]
    return file


@pytest.mark.parametrize("damage", MEMBERS)
def test_members_of_a_zip_that_cannot_be_read_are_named_and_skipped(damage: str, tmp_path: Path) -> None:
    file = archive_with(tmp_path, damage)
    line = refused(lambda: train(file, tmp_path))
    assert f"cannot read the image {file}/bad.png" in line
    assert MEMBERS[damage][1] in line
    outcome = read(file, tmp_path, on_error="skip")
    assert (outcome.code, outcome.err) == (0, "")
    assert "unreadable images, each replaced by the next readable one: 1" in outcome.out


def test_a_zip_that_unpacks_without_end_is_not_unpacked(tmp_path: Path) -> None:
    """A member of 1 GB of zeros that begins like a WebP, 1 MB as a zip."""
    file = tmp_path / "images.zip"
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("bad.webp", "w", force_zip64=True) as member,
    ):
        member.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        for _ in range(600):
            member.write(bytes(1 << 20))
    assert "bytes are more than the 536,870,912" in refused(lambda: train(file, tmp_path))


def test_names_in_a_zip_lead_nowhere(tmp_path: Path) -> None:
    """Absolute names and names with .. are read like others, and nothing is unpacked. Of a name that occurs twice the last is taken."""
    file = tmp_path / "images.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("/etc/cat/a.png", "../../dog/b.png", "../../dog/c.png"):
            archive.writestr(name, png(GRAY))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("../../dog/c.png", png(GRAY))
        archive.writestr("nested.zip", b"PK")
    outcome = read(file, tmp_path)
    assert outcome.code == 0
    assert "3 images of" in outcome.out
    assert "earlier members of the same name are left out: ../../dog/c.png" in outcome.out
    assert "files without an image extension are left out: 1 (.zip)" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "images.yaml", "images.zip"]


def nameless_zip() -> bytes:
    """Return a zip of one file whose name is empty."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"")
    return file.getvalue().replace(b"x", b"\0")


def no_zip(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: no_zip(folder, "a.txt", b"hello"), "a.txt: File is not a zip file: give a folder or .zip of images"),
        (lambda folder: no_zip(folder, "a.png", png(GRAY)), "it is a single image; give the folder that contains it"),
        (lambda folder: no_zip(folder, "a.tar", b"x" * 600), "only .zip archives are read in place; unpack it and give the folder"),
        (lambda folder: no_zip(folder, "a.csv", b"time,x\n"), "it looks like a table; set data.kind=snapshots to read one"),
        (lambda folder: no_zip(folder, "a.zip", b""), "a.zip: File is not a zip file"),
        (lambda folder: no_zip(folder, "a.zip", nameless_zip()), "holds no images"),
        (lambda folder: no_zip(folder, "a.zip", b"PK\5\6" + b"\xff" * 18), "cannot read the zip"),
        (lambda folder: make_fifo(folder / "p") or folder / "p", "is a pipe or a device"),
        (lambda folder: folder / "missing", "does not exist: give a folder or .zip of images"),
        (lambda folder: folder / ("x" * 300), "File name too long"),
        (lambda folder: "~nobody-of-this-name/x", "cannot read data.path='~nobody-of-this-name/x'"),
        (lambda folder: folder, "holds no images: expected files ending in .bmp"),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_reason(make: Callable[[Path], Path | str], message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = make(tmp_path / "data")
    assert message in refused(lambda: train(path, tmp_path))


@pytest.mark.parametrize("convert", ["false", "true"])
def test_more_than_eight_bits_are_refused_alike(convert: str, tmp_path: Path) -> None:
    """Gray, gray with alpha and colour of 16 bits, as PNG and TIFF; Pillow opens the colour ones in 8 bits without a word."""
    lines = []
    for number, (name, data) in enumerate(
        {
            "gray.png": png(DEEP[:, :, 0]),
            "alpha.png": png(DEEP[:, :, :2]),
            "rgb.png": png(DEEP),
            "rgba.png": png(np.repeat(DEEP, 2, axis=2)[:, :, :4]),
            "rgb.tif": tiff16(DEEP),
        }.items()
    ):
        folder = images(tmp_path / str(number), 1)
        (folder / name).write_bytes(data)
        lines.append(refused(lambda folder=folder: train(folder, tmp_path, f"data.convert={convert}")))  # type: ignore[misc]
        assert f"{folder}/{name} has more than 8 bits a channel" in lines[-1]
    assert all(line.endswith("convert it to 8-bit PNG first, whatever data.convert is\n") for line in lines)


@pytest.mark.parametrize("channels", [1, 3])
def test_other_colour_spaces_are_converted_only_on_request(channels: int, tmp_path: Path) -> None:
    for number, (name, mode) in enumerate({"a.jpg": "CMYK", "b.tif": "YCbCr", "c.tif": "LAB"}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        Image.new(mode, (8, 8)).save(folder / name)
        asked = {1: "gray", 3: "RGB"}[channels]
        line = refused(lambda folder=folder: train(folder, tmp_path, f"data.channels={channels}"))  # type: ignore[misc]
        assert f"{folder}/{name} is {mode} but data.channels={channels} asks for {asked}: set data.convert=true" in line


def test_what_is_turned_or_left_out_is_said_once(tmp_path: Path) -> None:
    """Two turned images, one animation, an empty class, a link round and round, a dangling one, and two files that are no images."""
    root = tmp_path / "[red]:cat:images"
    for name in ("cat", "dog"):
        images(root / name, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.jpg", "turned.png"):
        Image.new("L", (8, 8)).save(root / "cat" / name, exif=exif)
    frames = [Image.new("L", (8, 8), level) for level in (0, 200)]
    frames[0].save(root / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    (root / "bird" / "inner").mkdir(parents=True)
    (root / "dog" / "round").symlink_to(root)
    (root / "dog" / "nowhere").symlink_to("missing")
    (root / "notes.txt").write_text("")
    (root / "dog" / "photo.heic").write_text("")
    # A mistake that is found once the data is read saves this test the training.
    outcome = train(root, tmp_path, "action.classes=7")
    assert "action.classes=7 but" in outcome.err
    assert outcome.out.count("EXIF") == 1
    for phrase in (
        f"{root}: ",
        "links to a folder that contains them are left out: dog/round",
        "broken links are left out: dog/nowhere",
        "folders without images are left out: bird",
        "files without an image extension are left out: 2 (.heic, .txt)",
        "images turned as their EXIF orientation says: 2",
        "images with several frames or pages (the first one is used): 1",
    ):
        assert phrase in outcome.out, phrase
    lazily = read(root, tmp_path, memory_mb=0)
    assert lazily.code == 0
    assert lazily.out.count("is turned as its EXIF orientation says; so are others like it") == 1
    assert lazily.out.count("has several frames or pages (the first one is used); so have others like it") == 1


def test_nothing_is_said_of_a_clean_set(tmp_path: Path) -> None:
    outcome = read(images(tmp_path / "images"), tmp_path)
    assert outcome.code == 0
    assert "left out" not in outcome.out
    assert "EXIF" not in outcome.out


@contextmanager
def unprivileged() -> Iterator[None]:
    """Let this process be nobody, if it is root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_folder_is_no_empty_one() -> None:
    """A class folder that may not be listed, one that may not be entered, and an image that may not be read."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        root = Path(place)
        root.chmod(0o755)
        for name in ("listed", "entered", "read"):
            for part in ("cat", "dog"):
                images(root / name / part, 2)
        (root / "listed" / "dog").chmod(0o311)
        (root / "entered" / "dog").chmod(0o644)
        (root / "read" / "dog" / "000.png").chmod(0o200)
        for name, where in (("listed", "dog"), ("entered", "dog/00"), ("read", "dog/000.png")):
            with unprivileged(), pytest.raises(UserError) as caught:
                open_dataset(DataConfig(path=str(root / name)))
            assert f"{root}/{name}/{where}" in str(caught.value)
            assert "Permission denied" in str(caught.value)
        (root / "entered" / "dog").chmod(0o755)


def test_folders_that_cannot_be_listed_are_named_by_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        images(tmp_path / "images" / name, 2)
    scan = os.scandir

    def deny(path: str | Path) -> object:
        if str(path).endswith("/dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert f"cannot read {tmp_path}/images/dog: Permission denied" in refused(lambda: train(tmp_path / "images", tmp_path))


def test_names_of_any_bytes_are_escaped(tmp_path: Path) -> None:
    """A class and a file whose names hold escapes, brackets and bytes that are no UTF-8 are trained on, and named in print."""
    root = tmp_path / "[red]images[/nothing]"
    folder = os.fsencode(images(root / "cat\x1b[31m", 4))
    os.rename(folder + b"/000.png", folder + b"/\xff\n.png")
    outcome = read(root, tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"4 images of {root}" in outcome.out
    with open(folder + b"/\xff\n.png", "wb"):
        pass
    assert r"cat\x1b[31m/\udcff\n.png" in refused(lambda: train(root, tmp_path))


HEADER = "time,x,y\n"
ROWS = "".join(f"{time},{x},{x * x}\n" for time in (0, 1) for x in range(6))


def table(name: str, text: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = folder / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def arrays(**changes: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        contents = {"times": np.repeat([0, 1], 6), "points": np.arange(24.0).reshape(12, 2), **changes}
        np.savez(folder / "a.npz", **contents)  # type: ignore[arg-type]
        return folder / "a.npz"

    return write


def huge_npz(folder: Path) -> Path:
    """Write an archive whose points claim 80 TB."""
    file = arrays()(folder)
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 10), }"
    length = 128 - 10
    points = b"\x93NUMPY\1\0" + struct.pack("<H", length) + header.ljust(length - 1).encode() + b"\n"
    with zipfile.ZipFile(file) as archive:
        times = archive.read("times.npy")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("times.npy", times)
        archive.writestr("points.npy", points)
    return file


def pickled_npz(folder: Path) -> Path:
    return arrays(points=np.array([{}] * 12, dtype=object))(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (table("a.csv", ""), "a.csv is empty: expected a header and rows"),
        (table("a.csv", HEADER), "a.csv holds no rows"),
        (table("a.csv", HEADER + "0,1\n"), "a.csv, row 2: 2 values: expected 3, as in the header"),
        (table("a.csv", HEADER + ROWS + "\n0,1,2,3\n"), "a.csv, row 15: 4 values: expected 3"),
        (table("a.csv", HEADER + "0,1,nan\n1,2,3\n"), "a.csv, row 2, y: nan: expected numbers that are finite, at most 1e+30 (1 are not)"),
        (table("a.csv", HEADER + "0,1,2\n\n1,1e308,3\n"), "a.csv, row 4, x: 1e+308: expected numbers that are finite"),
        (table("a.csv", HEADER + "inf,1,2\n1,2,3\n"), "a.csv, row 2, time: inf: expected numbers that are finite"),
        (table("a.csv", HEADER + '0,"1,2\n' + ROWS * 3000), "a.csv, row "),
        (table("a.csv", HEADER + '0,"1,2\n' + ROWS), "is a quote open?"),
        (table("a.csv", HEADER + "0,1,2\x00\n1,2,3\n"), "a.csv, row 2"),
        (table("a.csv", HEADER + f"0,1,{'z' * 10_000}\n"), f"a.csv, row 2, y: '{'z' * 60}...' is not a number"),
        (table("a.csv", HEADER + "0,1,2\x1b[31m\n"), r"y: '2\\x1b[31m' is not a number"),
        (table("a.csv", "time;x;y\n0;1,5;2\n1;2;3\n"), "row 2, x: '1,5' is not a number (write a decimal point)"),
        (table("a.csv", "time,x,x\n0,1,2\n1,2,3\n"), "a.csv has several columns of the name x: rename them or leave them out"),
        (table("a.csv", ",time,x\n0,0,2\n1,1,3\n"), "a.csv: column 1 has no name (an index that pandas wrote?)"),
        (table("a.csv", "Time,x,y\n0,1,2\n1,2,3\n"), "data.time_key='time': "),
        (table("a.csv", ",".join(f"gene{i}" for i in range(5000)) + "\n"), "gene9 and 4,990 more"),
        (table("a.csv", "time,x,mué\n0,1,2\n".encode("latin-1")), "a.csv is not UTF-8 (byte 0xe9): save it as UTF-8"),
        (table("a.csv", (HEADER + ROWS).encode("utf-16")), "a.csv is UTF-16: save it as UTF-8"),
        (table("a.csv", HEADER + "0,1,2\n0,2,3\n"), "a.csv holds one time: expected several"),
        (table("a.h5ad", b"\x89HDF"), "file signature not found): expected an .h5ad or .zarr as AnnData writes it"),
        (table("a.parquet", b"PAR1"), "pandas.read_parquet(...).to_csv(..., index=False) writes a .csv"),
        (lambda folder: make_fifo(folder / "a.csv") or folder / "a.csv", "expected a .csv (or .tsv, .txt), .npz or .h5ad"),
        (lambda folder: folder, "expected a .csv (or .tsv, .txt), .npz or .h5ad"),
        (lambda folder: folder / ("x" * 300 + ".csv"), "File name too long"),
        (table("a.npz", b""), "cannot read "),
        (table("a.npz", b"\x93NUMPY"), "a.npz: File is not a zip file: expected an .npz as NumPy writes it"),
        (huge_npz, "the array points has the shape (1000000000000, 10) by its header, but only 128 bytes"),
        (pickled_npz, "the array points is of type object: expected real numbers"),
        (arrays(times=np.array(["a"] * 12)), "the array times is of type <U1: expected real numbers"),
        (arrays(points=np.ones((12, 2)) * 1j), "the array points is of type complex128: expected real numbers"),
        (arrays(points=np.ones(12)), "points of shape (12,): expected (N,) and (N, D)"),
        (arrays(times=np.zeros((12, 1))), "holds times of shape (12, 1)"),
        (arrays(points=np.full((12, 2), 1e200)), "row 0, points[:, 0]: 1e+200: expected numbers that are finite"),
        (arrays(points=np.ones((12, 1))), "data.dimension=2 but "),
    ],
)
def test_tables_that_cannot_be_read_cost_one_line(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert message in refused(lambda: train_on_table(make(tmp_path / "data"), tmp_path))


@pytest.mark.parametrize("damage", MEMBERS)
def test_damaged_members_of_an_npz(damage: str, tmp_path: Path) -> None:
    file = arrays()(tmp_path)
    damage_member(file, "points.npy", **MEMBERS[damage][0])  # type: ignore[arg-type]
    assert f"cannot read {file}: " in refused(lambda: train_on_table(file, tmp_path))


@pytest.mark.parametrize(
    "make",
    [
        table("a.csv", b"\xef\xbb\xbf" + (HEADER + ROWS).encode()),
        table("a.csv", (HEADER + ROWS).replace(",", ";")),
        table("a.csv", (HEADER + ROWS).replace(",", "\t")),
        table("a.tsv", (HEADER + ROWS).replace(",", "\t")),
        table("a.txt", ("time, x, y\n" + ROWS).replace("\n", "\r\n")),
        table("a.csv", ('"time","x","y"\n' + ROWS)),
    ],
    ids=["BOM", "semicolons", "tabs", "tsv", "spaces and CRLF", "quotes"],
)
def test_tables_of_other_dialects_are_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """All hold 6 points at each of 2 times; the message says so, not only how many there are at the first."""
    file = make(tmp_path)
    outcome = train_on_table(file, tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"12 points at 2 times of {file} (6 at the first)" in outcome.out


def test_numbers_that_single_precision_cannot_hold(tmp_path: Path) -> None:
    """A mass of 1e25 beside those of the first time, 1e-25."""
    file = table("a.csv", "time,x,y,m\n0,1,2,1e-25\n1,2,3,1e25\n0,1,1,1e-25\n")(tmp_path)
    assert "infinite in single precision" in refused(lambda: train_on_table(file, tmp_path, "data.mass_key=m", "dynamics.kind=unbalanced"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_bytes(b""), "it is none of PNG, JPEG"),
        (lambda path: path.write_bytes(png(GRAY)[:45]), "cannot read"),
        (lambda path: path.write_bytes(png(GRAY, (65_000, 65_000))), "refusing to decode"),
        (lambda path: path.write_bytes(png(np.zeros((8, 5000), dtype=np.uint8))), "5000x8 pixels"),
        (lambda path: path.write_bytes(png(DEEP)), "more than 8 bits a channel"),
        (make_fifo, "it is a pipe"),
        (lambda path: path.mkdir(), "not a regular file"),
    ],
)
def test_masks_that_cannot_be_read(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "mask.png")
    options = [*TINY, "path.kind=in-painting", "path.region=mask", f"path.mask={tmp_path}/mask.png"]
    line = refused(lambda: run_cli("train", "digits", "--run-dir", tmp_path / "run", *sets(options)))
    assert message in line
    assert "path.mask" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.size=1000000", "action.attention=[]"], "data.size=1000000: expected a number of at most 16384"),
        (["data.path=mnist", "data.root=~nobody-of-this-name/x"], "data.root='~nobody-of-this-name/x'"),
        (["data.path=mnist", "data.root=/dev/null"], "MNIST is not in /dev/null: set data.download=true to fetch it"),
    ],
)
def test_options_of_images_that_cannot_be_met(changes: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(lambda: run_cli("train", "digits", "--run-dir", tmp_path / "run", *sets([*TINY, *changes])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.origin=[0,0]", "data.axes=[[1,0],[1]]"], "data.axes has rows of 2, 1 numbers: expected rows of the same length"),
        (
            ["data.origin=[0,0]", "data.axes=[[1e308,1e308],[1e308,-1e308]]", "data.standardize=whiten"],
            "data.origin or data.axes holds numbers above 1e30",
        ),
        (["data.hold_out=7"], "a.csv has the times 0, 1, 2, 3, 4, 5, 6, 8, 9, 10 and 90 more"),
    ],
)
def test_options_of_tables_that_cannot_be_met(changes: list[str], message: str, tmp_path: Path) -> None:
    file = table("a.csv", HEADER + "".join(f"{time},{x},{x * x}\n" for time in range(101) if time != 7 for x in range(3)))(tmp_path)
    assert message in refused(lambda: train_on_table(file, tmp_path, *changes))


def test_populations_too_large_to_simulate(tmp_path: Path) -> None:
    changes = ["coupling.kind=independent", "data={kind: simulated, system: ornstein-uhlenbeck, particles: 100000000, snapshots: 1000}"]
    line = refused(lambda: run_cli("train", "cells", "--run-dir", tmp_path / "run", *sets(changes)))
    assert "data.particles=100000000 at data.snapshots=1000 times take 2,980 GiB, more than is free" in line
