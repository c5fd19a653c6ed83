"""Snapshots of simulated populations."""

import numpy as np
import torch

from amgen.config import SimulatedConfig
from amgen.core.errors import UserError
from amgen.core.memory import free_bytes
from amgen.core.randomness import Purpose, derive_seed
from amgen.data.systems import hydrogen
from amgen.data.systems.mixture import Mixture
from amgen.data.systems.ornstein_uhlenbeck import OrnsteinUhlenbeck
from amgen.data.tables import Snapshots


def rng_of(seed: int, index: int) -> np.random.Generator:
    """Return a random generator of NumPy for (seed, index); generators of different pairs are independent."""
    return np.random.default_rng(derive_seed(seed, Purpose.SIMULATION, index))


def simulate(options: SimulatedConfig) -> Snapshots:
    """Simulate the system that the options name.

    The times are equidistant, from 0 to 1, or to `hydrogen.SPAN` for hydrogen. Row i of every time is the same particle.

    Raises:
        UserError: if the points do not fit into memory.
    """
    # Two copies of the coordinates as float64: simulated and standardized.
    needed = 2 * 8 * options.particles * options.snapshots * options.dimension
    if needed > free_bytes(torch.device("cpu")):
        raise UserError(
            f"data.particles={options.particles} at data.snapshots={options.snapshots} times take {needed / 2**30:,.0f} GiB, "
            "more than is free: lower one of them"
        )
    rng, count = rng_of(options.seed, 0), options.particles
    times = np.linspace(0, hydrogen.SPAN if options.system == "hydrogen" else 1, options.snapshots)
    masses = [np.ones(count)] * len(times)
    if options.system == "hydrogen":
        points = hydrogen.trajectories(count, times, rng)
    elif options.system == "ornstein-uhlenbeck":
        points = OrnsteinUhlenbeck().trajectories(count, times, rng)
    else:
        mixture = Mixture()
        start, components = mixture.sample(count, rng)
        points, masses = np.stack([start] * len(times)), mixture.masses(times, components)
    description = f"{count:,} simulated particles ({options.system}, seed {options.seed})"
    return Snapshots(times.tolist(), list(points), masses, description, paired=True)
