"""How fast are images read? Batches of the training stream from memory, a folder and a zip, with and without worker processes.

The images are random JPEGs made for the purpose, or those of --data. The first half of the batches warms up; images/s are counted over the
other half. Takes a minute on one core.
"""

import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from timing import new_parser, parse, print_conditions, print_table, script
from torch.utils.data import DataLoader

from amgen.config import DataConfig
from amgen.data import Batch, TrainingStream, open_dataset, to_image, training_stream

MEMORY = {"": 0, ", in memory": 1 << 20}
"""Values of data.memory_mb by what the table says of them."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--data", type=str, help="folder or zip of RGB images, instead of random ones")
    parser.add_argument("--size", type=int, default=32, help="height and width that images are brought to, pixels")
    parser.add_argument("--images", type=int, default=2000, help="random images to make")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--batches", type=int, default=20, help="batches to read")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of worker processes")
    options = parse(parser, arguments)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        paths = [Path(options.data)] if options.data else make_images(Path(temporary), options.images, options.size)
        for path in paths:
            for words, memory in MEMORY.items():
                data = DataConfig(path=str(path), size=options.size, channels=3, resize="crop", convert=True, memory_mb=memory)
                stream = training_stream(open_dataset(data), 0)
                rates = [throughput(stream, options.batch, options.batches, workers) for workers in options.workers]
                rows.append([f"{path.suffix.lstrip('.') or 'folder'}{words}", *(f"{rate:,.0f}" for rate in rates)])
    print_table(["images/s", *(f"{count} workers" for count in options.workers)], rows)
    print_conditions(options, f"{options.size}x{options.size} RGB, {options.batches} batches of {options.batch}")


def make_images(folder: Path, count: int, size: int) -> list[Path]:
    """Write random JPEGs into a folder, and the same into a zip; return both."""
    images, file = folder / "images", folder / "images.zip"
    images.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(count):
            path = images / f"{index:06}.jpg"
            to_image(torch.randint(256, (3, size, size), dtype=torch.uint8)).save(path, quality=75)
            archive.write(path, path.name)
    return [images, file]


def throughput(stream: TrainingStream, batch: int, batches: int, workers: int) -> float:
    """Return images a second over the second half of the batches."""
    parts = [range(start * batch, (start + 1) * batch) for start in range(batches)]
    loader: DataLoader[Batch] = DataLoader(stream, batch_sampler=parts, collate_fn=unchanged, num_workers=workers)  # type: ignore[arg-type]
    start = 0.0
    for number, _ in enumerate(loader):
        if number == batches // 2:
            start = time.perf_counter()
    return (batches - batches // 2 - 1) * batch / (time.perf_counter() - start)


def unchanged(batch: Batch) -> Batch:
    """Return what is a batch already."""
    return batch


if __name__ == "__main__":
    main()
