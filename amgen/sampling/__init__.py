"""From a trained model to samples: requests, batches, jobs on many processes, and the way back to noise."""

from amgen.sampling.conditioning import labels_of, start_images
from amgen.sampling.generate import Observer, Prepared, Samples, evaluate_once, generate, generate_all, prepare
from amgen.sampling.model import Model, assemble, load
from amgen.sampling.request import Request
from amgen.sampling.solver import describe_solver, solver_of
from amgen.sampling.weights import effective_sample_size, resample

__all__ = [
    "Model",
    "Observer",
    "Prepared",
    "Request",
    "Samples",
    "assemble",
    "describe_solver",
    "effective_sample_size",
    "evaluate_once",
    "generate",
    "generate_all",
    "labels_of",
    "load",
    "prepare",
    "resample",
    "solver_of",
    "start_images",
]
