"""How fast are images read? Batches of the training stream from memory, a folder and a zip, with and without worker processes.

The images are random JPEGs made for the purpose, or those of --data. Half of the batches warm up; images/s are counted over the other half.
"""

import argparse
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from amgen.config import DataConfig
from amgen.data import Batch, TrainingStream, open_dataset, to_image, training_stream


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or zip of RGB images, instead of random ones")
    parser.add_argument("--size", type=int, default=32, help="height and width that they are brought to, pixels")
    parser.add_argument("--images", type=int, default=2000, help="random images to make")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    print(f"{options.size}x{options.size} RGB, batches of {options.batch}: images/s")
    print(f"{'':24}" + "".join(f"{f'{count} workers':>12}" for count in options.workers))
    with tempfile.TemporaryDirectory() as temporary:
        paths = [options.data] if options.data else make_images(Path(temporary), options.images, options.size)
        for path in paths:
            for memory in (1 << 20, 0):
                data = DataConfig(path=str(path), size=options.size, channels=3, resize="crop", convert=True, memory_mb=memory)
                stream = training_stream(open_dataset(data), 0)
                rates = [throughput(stream, options.batch, options.batches, workers) for workers in options.workers]
                name = f"{Path(path).suffix.lstrip('.') or 'folder'}{', in memory' if memory else ''}"
                print(f"{name:24}" + "".join(f"{rate:12,.0f}" for rate in rates), flush=True)


def make_images(folder: Path, count: int, size: int) -> list[Path]:
    """Write random JPEGs into a folder, and the same into a zip."""
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
