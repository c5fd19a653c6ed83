"""Data sets known by name: the digits that come with amgen, and those that torchvision reads."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np

from amgen.config import DataConfig
from amgen.core.errors import UserError, printable
from amgen.core.files import locked, make_folder
from amgen.data.sources import ArraySource

SERVER_TIMEOUT = 15.0
"""Seconds to wait for a server that sends nothing."""


def digits() -> ArraySource:
    """Return the embedded 8x8 handwritten digits (UCI, CC BY 4.0; see NOTICE.md)."""
    with resources.files("amgen.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return ArraySource(images, labels.tolist(), [str(digit) for digit in range(10)], "the embedded digits")


def _torchvision(class_name: str, options: DataConfig, size: str, host: str, say: Callable[[str], None] | None) -> ArraySource:
    """Return the training images of a torchvision data set in `data.root`; download them if they are missing and `data.download` is true.

    Args:
        class_name: name in torchvision.datasets.
        options: where the data set is, and whether to download it.
        size: size of the download, for messages.
        host: server of the download, for messages.
        say: takes a line before a download.

    Raises:
        UserError: if the data set is missing, damaged or cannot be downloaded.
    """
    from torchvision import datasets

    try:
        root = Path(options.root).expanduser()
    except RuntimeError as error:  # there is no such home
        raise UserError(f"data.root={options.root!r}: {error}") from None
    where = printable(str(root))
    read = getattr(datasets, class_name)
    offline = "copy it there as torchvision lays it out, or set data.path to a folder or zip of images"
    downloading = False
    try:
        try:
            dataset = read(root, train=True, download=False)
        except RuntimeError:  # it is missing or incomplete
            if not options.download:
                raise UserError(
                    f"{class_name} is not in {where}: set data.download=true to fetch it ({size} from {host}), {offline}"
                ) from None
            try:
                make_folder(root)
            except UserError as error:
                raise UserError(f"data.root={options.root}: {error} (data.root)") from None
            # The first process of a machine downloads. The others wait for the lock, and then find the data set there.
            with locked(root / ".lock", wait=True), _default_timeout(SERVER_TIMEOUT):
                if say is not None:
                    say(f"fetching {class_name}, {size} from {host}, into {where}")
                downloading = True
                dataset = read(root, train=True, download=True)
        images = np.asarray(dataset.data)
        labels = np.asarray(dataset.targets).tolist()
        return ArraySource(images, labels, list(dataset.classes), f"{class_name} in {where}")
    except UserError:
        raise
    # For damaged files and failed downloads torchvision raises what its readers raise: URLError, AssertionError, EOFError, ReadError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if downloading:
            raise UserError(f"could not fetch {class_name} from {host} into {where}: {reason}: {offline}") from None
        raise UserError(f"{class_name} in {where} is damaged ({reason}): remove it and set data.download=true, or {offline}") from None


@contextmanager
def _default_timeout(seconds: float) -> Iterator[None]:
    """Limit how long connections wait; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


NAMED: dict[str, Callable[[DataConfig, Callable[[str], None] | None], ArraySource]] = {
    "digits": lambda options, say: digits(),
    "mnist": lambda options, say: _torchvision("MNIST", options, "12 MB", "ossci-datasets.s3.amazonaws.com", say),
    "fashion-mnist": lambda options, say: _torchvision(
        "FashionMNIST", options, "31 MB", "fashion-mnist.s3-website.eu-central-1.amazonaws.com", say
    ),
    "cifar10": lambda options, say: _torchvision("CIFAR10", options, "170 MB", "www.cs.toronto.edu", say),
}
"""Functions that open each data set from its options; the second argument takes a line about a download."""
