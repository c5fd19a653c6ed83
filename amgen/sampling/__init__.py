"""Generate images or points with a trained model.

`Model` and `load` are for single processes. Below them, a `SamplingConfig` says how to generate (solver, guidance, noise level, batch size)
and a `Request` says what to generate (seed, classes, start images); `generate_all` takes both.

- `model`, `request`: Model and load; Request
- `generate`, `trajectory`, `populations`: images or points in batches; each step of a few images; a population at chosen times
- `conditioning`, `solver`, `weights`: classes and start images; the solver; log-weights of unbalanced dynamics
- `inversion`, `codes`: from images to latent codes, and files of latent codes
- `job`, `writer`: `amgen sample`: many images, written to a folder
"""

from amgen.sampling.conditioning import labels_of, start_batch, start_images
from amgen.sampling.generate import InitialState, Observer, Samples, generate, generate_all, initial_drift, initial_state
from amgen.sampling.model import Model, assemble, load
from amgen.sampling.populations import SimulatedPopulation, simulate_population
from amgen.sampling.request import Request
from amgen.sampling.solver import describe_solver, solver_of
from amgen.sampling.weights import effective_sample_size, resample

__all__ = [
    "InitialState",
    "Model",
    "Observer",
    "Request",
    "Samples",
    "SimulatedPopulation",
    "assemble",
    "describe_solver",
    "effective_sample_size",
    "generate",
    "generate_all",
    "initial_drift",
    "initial_state",
    "labels_of",
    "load",
    "resample",
    "simulate_population",
    "solver_of",
    "start_batch",
    "start_images",
]
