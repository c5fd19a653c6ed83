import os
from pathlib import Path

import pytest
import torch
from helpers import TINY

from amgen import config
from amgen.config import Config


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="torch device for the tests of the mathematics")
    parser.addoption("--dtype", default="float64", help="torch dtype for the tests of the mathematics")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def amgen_data() -> Path:
    """Folder with real data, where the environment names one."""
    folder = os.environ.get("AMGEN_DATA")
    if not folder or not (Path(folder) / "cifar10-test.zip").exists():
        pytest.skip("AMGEN_DATA does not name a folder with cifar10-test.zip")
    return Path(folder)


@pytest.fixture
def tiny() -> Config:
    """A run on the digits that takes a second."""
    return config.load("digits", TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small model trained for a few steps; not to be written to."""
    from amgen.training.main import train

    run = tmp_path_factory.mktemp("trained") / "run"
    train(config.load("digits", TINY), run)
    return run
