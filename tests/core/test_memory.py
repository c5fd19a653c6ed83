"""Memory: what tensors take is counted exactly, and what is free heeds control groups."""

from pathlib import Path

import pytest
import torch

from amgen.core import memory
from amgen.core.memory import allowances, free_bytes, peak_bytes


def test_the_peak_is_counted() -> None:
    """4,000 bytes and 2,000 at once, then 2,000 twice; views and what was there before count for nothing."""
    before = torch.zeros(10**6)

    def work() -> None:
        first = torch.zeros(1000)
        second = first[::2].view(2, 250).t() + 1  # 2,000 bytes
        before[:10].view(2, 5)
        del first
        third = torch.zeros(500)
        del second, third

    assert peak_bytes(work) == 6000


def test_backward_passes_are_counted() -> None:
    """x -> sin -> exp -> sum: 4,000 bytes each, but for the sum; two are kept for the gradient, and going back makes others."""
    x = torch.zeros(1000, requires_grad=True)

    def forward() -> None:
        x.sin().exp()

    def whole() -> None:
        torch.autograd.grad(x.sin().exp().sum(), x)

    assert peak_bytes(forward) == 8000
    assert 12_000 <= peak_bytes(whole) <= 20_000


def test_memory_is_free_here() -> None:
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


def group(folder: Path, limit: tuple[str, str], use: tuple[str, int], cache: tuple[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (limit, use, ("memory.stat", f"anon 5\n{cache[0]} {cache[1]}")):
        (folder / name).write_text(f"{text}\n")


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    """Of the group and those around it; caches are given back on demand; the outermost one has no files."""
    (tmp_path / "cgroup").write_text("0::/jobs/one\n")
    group(tmp_path / "mount" / "jobs", ("memory.max", "9000"), ("memory.current", 5000), ("inactive_file", 700))
    group(tmp_path / "mount" / "jobs" / "one", ("memory.max", "max"), ("memory.current", 100), ("inactive_file", 0))
    assert list(allowances(tmp_path / "cgroup", tmp_path / "mount")) == [4700]
    (tmp_path / "mount" / "jobs" / "one" / "memory.max").write_text("3000\n")
    assert sorted(allowances(tmp_path / "cgroup", tmp_path / "mount")) == [2900, 4700]


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    """In a container the path is that of the machine outside, and the mount is the container's own group."""
    (tmp_path / "cgroup").write_text("7:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n")
    files = ("memory.limit_in_bytes", "8000"), ("memory.usage_in_bytes", 3000), ("total_inactive_file", 500)
    group(tmp_path / "mount" / "memory", *files)
    assert list(allowances(tmp_path / "cgroup", tmp_path / "mount")) == [5500]
    assert list(allowances(tmp_path / "nothing", tmp_path / "mount")) == []


@pytest.mark.parametrize("missing", [["memory.stat"], ["memory.current"], ["memory.max", "memory.stat"]])
def test_a_control_group_that_shows_less_bounds_what_it_can(missing: list[str], tmp_path: Path) -> None:
    """Without statistics there is no cache to count; without limit or use there is no bound."""
    (tmp_path / "cgroup").write_text("0::/one\n")
    group(tmp_path / "mount" / "one", ("memory.max", "9000"), ("memory.current", 5000), ("inactive_file", 700))
    for name in missing:
        (tmp_path / "mount" / "one" / name).unlink()
    assert list(allowances(tmp_path / "cgroup", tmp_path / "mount")) == ([4000] if missing == ["memory.stat"] else [])


def test_a_control_group_bounds_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "allowances", lambda: [10**12, 12345])
    assert free_bytes(torch.device("cpu")) == 12345
    monkeypatch.setattr(memory, "allowances", lambda: [-5])
    assert free_bytes(torch.device("cpu")) == 0
