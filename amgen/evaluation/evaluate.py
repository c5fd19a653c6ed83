"""Scoring a model: on every process images go from the sampler to the features, touching no disk, and figures come of the features."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.core.progress import Progress
from amgen.core.randomness import Purpose, permutation
from amgen.dynamics import Unbalanced
from amgen.evaluation import metrics, names
from amgen.evaluation.features import FeatureExtractor
from amgen.evaluation.metrics import Figure
from amgen.evaluation.moments import Moments
from amgen.evaluation.names import METRICS, UNWEIGHTED
from amgen.evaluation.reference import Reference
from amgen.evaluation.report import Evaluation
from amgen.evaluation.restoration import Restoration, figures
from amgen.evaluation.restoration import baselines as baselines_of
from amgen.model.build import build_masses
from amgen.sampling import (
    Model,
    Request,
    Samples,
    describe_solver,
    effective_sample_size,
    generate,
    generate_all,
    initial_drift,
    resample,
)
from amgen.visualization.grids import save_grid

DEFAULT_NUM = 10_000
FEW = 10_000
"""Fewer generated images than these and a distance is not to be compared with published ones."""
PAIRS = 16
"""Generated images shown beside the training images that they are nearest to."""


@dataclass(frozen=True)
class MetricOptions:
    """What to measure.

    Attributes:
        metrics: some of METRICS.
        kid_subsets: random subsets that KID is averaged over.
        kid_subset_size: images in each.
    """

    metrics: Sequence[str] = ("fid",)
    kid_subsets: int = 100
    kid_subset_size: int = 1_000

    def describe(self) -> dict[str, Any]:
        """Return what tells these choices from others."""
        kid = {"kid_subsets": self.kid_subsets, "kid_subset_size": self.kid_subset_size} if "kid" in self.metrics else {}
        return {"metrics": [name for name in METRICS if name in self.metrics], **kid}


def chosen_metrics(text: str, extractor: FeatureExtractor, reference: Reference, weighted: bool = False) -> tuple[str, ...]:
    """Read names such as fid,kid; `all` means all that the features, the reference and images that may carry weights can give.

    Raises:
        UserError: for an unknown name.
    """
    if text == "all":
        return tuple(name for name in METRICS if not (_lacking(name, extractor, reference) or (weighted and name in UNWEIGHTED)))
    return names.metrics(text)


def _lacking(metric: str, extractor: FeatureExtractor, reference: Reference) -> str:
    """Say what a metric lacks, or nothing."""
    if metric not in ("fid", "is") and reference.features is None:
        return f"the features of the real images, and {reference.description} holds their moments alone"
    if metric == "is" and extractor.logits(torch.zeros(1, extractor.dimension)) is None:
        return f"features with classes, which features={extractor.name} have not"
    return ""


class Evaluator:
    """Scores models against one reference on one kind of features.

    Every process calls it with the same arguments and takes its part of the images and of the figures; each gets the whole result.

    Args:
        extractor: the features.
        reference: the real images.
        choices: what to measure.
        processes: those that share the work.
        held_out: real images that no model was trained on, to compare the nearest training images of generated ones with.

    Raises:
        UserError: for a metric that the reference or the features cannot give, or held-out images that serve nothing.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Reference,
        metric_options: MetricOptions = MetricOptions(),
        processes: Processes = Processes(),  # noqa: B008 (immutable)
        held_out: Reference | None = None,
    ):
        self.extractor, self.reference, self.metric_options, self.processes, self.held_out = (
            extractor,
            reference,
            metric_options,
            processes,
            held_out,
        )
        for name in metric_options.metrics:
            if reason := _lacking(name, extractor, reference):
                raise UserError(f"metrics={name} need {reason}: leave it out")
        if held_out is not None and "nearest" not in metric_options.metrics:
            raise UserError("held-out images are for metrics=nearest: add it, or leave them out")
        if held_out is not None and (held_out.features is None or len(held_out.features) < 2):
            raise UserError(f"held-out images ({held_out.description}) must be images, and at least 2")

    def __call__(
        self,
        model: Model,
        options: SamplingConfig,
        num: int | None = None,
        request: Request = Request(),  # noqa: B008 (immutable)
    ) -> Evaluation:
        """Generate `num` images, by default as many as real ones but at most 10,000, and measure them.

        Raises:
            UserError: if there are too few images for what is to be measured, or features are not finite.
            Diverged: if an image comes out with values that are not finite.
        """
        refused = [name for name in self.metric_options.metrics if name in UNWEIGHTED]
        if refused and isinstance(model.dynamics, Unbalanced):
            raise UserError(f"metrics={refused[0]} need images that count the same, and those of unbalanced dynamics do not: leave it out")
        if request.label is not None and self.reference.about.get("label") != request.label:
            raise UserError(
                f"label={request.label} is what is drawn, and the real images ({self.reference.description}) are not those of that class: "
                "compare with them alone"
            )
        num = min(self.reference.count or DEFAULT_NUM, DEFAULT_NUM) if num is None else num
        self.check(num)
        clock = Clock()
        generated = self._generate(model, options, num, request, clock)
        features, reference, warnings = self._weighed(model, generated, request.seed)
        measures = self._measures(generated, features, reference, request.seed)
        progress = Progress(len(measures), "parts", processes=self.processes, doing="measuring")
        parts = []
        for place, measure in self.processes.share(list(enumerate(measures))):
            parts.append((place, measure()))
            progress.advance(1)
        figures = [figure for _, found in sorted(self.processes.gather(parts), key=lambda part: part[0]) for figure in found]
        clock.lap("measuring")
        if num < FEW and "fid" in self.metric_options.metrics:
            warnings.append(f"distances of {num:,} images are biased upwards: compare them at equal n alone, or by the floor")
        if num <= self.extractor.dimension and "fid" in self.metric_options.metrics:
            warnings.append(
                f"{num:,} images do not determine a covariance of {self.extractor.dimension:,} dimensions: the standard error and the "
                "extrapolation are rough"
            )
        return Evaluation(
            figures=figures,
            generated=num,
            real=reference.count,
            reference=reference.description,
            features=self.extractor.describe(),
            model=model.describe(),
            sampling={
                **describe_solver(options),
                "NFE": generated.evaluations,
                "seed": request.seed,
                "label": request.label,
                "guidance": None if options.guidance == 1 else options.guidance,
                "start": None if request.images is None else request.images.source.description,
            },
            seconds=clock.seconds,
            warnings=warnings,
            choices=self._choices(request),
        )

    def _choices(self, request: Request) -> dict[str, Any]:
        """Return what was asked for beside numbers, features and sampling: metrics, and hashes of the images that take part."""
        start = None if request.images is None else request.images.source.fingerprint()
        held_out = None if self.held_out is None else self.held_out.identity
        sets = {"reference": self.reference.identity, "held_out": held_out, "start": start}
        return {**self.metric_options.describe(), **{name: value for name, value in sets.items() if value is not None}}

    def check(self, num: int) -> None:
        """Refuse what `num` images cannot give, before they are made."""
        real = None if self.reference.features is None else len(self.reference.features)
        names.check_counts(self.metric_options.metrics, num, real, self.metric_options.kid_subset_size)

    def _generate(self, model: Model, options: SamplingConfig, num: int, request: Request, clock: "Clock") -> "_Generated":
        """Return the features of the generated images, made and extracted on all processes."""
        nfe = 0
        features = torch.zeros(num, self.extractor.dimension)
        log_weights = torch.zeros(num, 1, dtype=torch.float64)
        restored = _Restored(model, request, self.extractor, num) if model.path.conditional else None

        def work(batch: Sequence[int]) -> int:
            rows = slice(batch[0], batch[-1] + 1)
            samples = generate(model, options, batch, request)
            if samples.log_weights is not None:
                log_weights[rows, 0] = samples.log_weights.cpu()
            clock.lap("generating")
            features[rows] = self.extractor(samples.images)
            clock.lap("extracting")
            if restored is not None:
                restored.add(samples)
                clock.lap("baselines")
            return samples.evaluations

        def probe(batch: Sequence[int]) -> None:
            initial_drift(model, options, batch, request)
            self.extractor(torch.zeros(len(batch), *model.config.image_shape, dtype=torch.uint8))  # may take more memory than the model

        progress = Progress(num, "images", processes=self.processes, doing="generating and extracting features")
        for batch, evaluations in in_batches(work, range(num), options.batch_size, probe, model.device, self.processes):
            nfe = max(nfe, evaluations)
            progress.advance(len(batch))
        self.processes.merge(features)
        wrong = (~torch.isfinite(features).all(dim=1)).nonzero()
        if len(wrong):
            raise UserError(f"features={self.extractor.name} of image {int(wrong[0])} are not finite: choose others")
        weighted = isinstance(model.dynamics, Unbalanced)
        weights = self.processes.merge(log_weights)[:, 0].tolist() if weighted else None
        nfe = max(self.processes.gather([nfe]))
        if restored is not None:
            restored.merge(self.processes)
        clock.lap("waiting")
        return _Generated(features, nfe, weights, restored)

    def _weighed(self, model: Model, generated: "_Generated", seed: int) -> tuple[Tensor, Reference, list[str]]:
        """Turn weights into numbers: draw generated images by their weights, and real ones by their mass at t = 1."""
        if generated.log_weights is None:
            return generated.features, self.reference, []
        features = generated.features[resample(generated.log_weights, seed)]
        size = effective_sample_size(generated.log_weights)
        notes = [
            f"the images carry weights: figures are of as many drawn by weight, effective sample size {size:,.1f}; "
            "their standard errors are not known"
        ]
        reference, dataset = self.reference, self.reference.dataset
        if dataset is None or reference.indices is None or model.config.data.masses is None:
            return features, reference, [*notes, "the reference is taken as it is, whatever masses the model was trained towards"]
        masses = build_masses(model.config, dataset.class_counts())
        assert masses is not None
        mass = masses.end[dataset.labels[list(reference.indices)]]
        return features, reference.chosen(resample(mass.log().tolist(), seed)), notes

    def _measures(self, generated: "_Generated", features: Tensor, reference: Reference, seed: int) -> list[Callable[[], list[Figure]]]:
        """Return the work that makes figures, in the order of the report; `features` count each image by its weight."""
        real, extractor, metric_options = reference.features, self.extractor, self.metric_options
        weighted = generated.log_weights is not None  # images that repeat tell less than their number
        numbers = f"{len(features):,} generated against {_number(reference.count)} real images"

        def frechet() -> list[Figure]:
            own = Moments.of(features)
            error = None if weighted else metrics.frechet_error(features, own, reference.moments)
            return [Figure(extractor.metric, metrics.distance(own, reference.moments), error, numbers)]

        def by_number() -> list[Figure]:
            found = metrics.frechet_by_number(features, reference.moments, seed)
            note = "extrapolated from " + ", ".join(f"{value:.4g} at n = {number:,}" for number, value in found)
            return [Figure(f"{extractor.metric} at infinite n", metrics.at_infinity(found), None, note, {"by_n": found})]

        def matched() -> list[Figure]:
            assert real is not None
            found = metrics.matched_distance(features, real, seed)
            floor = f"{found.floor:.4g} +- {found.floor_error:.2g}"
            note = f"{found.ratio:.2f} times the floor {floor} (real against real; errors over {found.splits} splits)"
            details = {**asdict(found), "ratio": found.ratio if math.isfinite(found.ratio) else None}
            return [Figure(f"{extractor.metric} at n = {found.n:,} a side", found.generated, found.generated_error, note, details)]

        def kernel() -> list[Figure]:
            assert real is not None
            subsets, size = metric_options.kid_subsets, metric_options.kid_subset_size
            value, error = metrics.kernel_distance(features, real, subsets, size, seed)
            note = f"{subsets} subsets of {size:,} images"
            return [Figure(extractor.figure("KID"), value, error, note, {"subsets": subsets, "subset_size": size})]

        def inception() -> list[Figure]:
            logits = extractor.logits(features)
            assert logits is not None
            value, error = metrics.inception_score(logits, seed)
            note = f"{metrics.SPLITS} parts of {len(features):,} images"
            return [Figure(extractor.figure("IS"), value, None if weighted else error, note, lower_is_better=False)]

        def shares() -> list[Figure]:
            assert real is not None
            precision, recall = metrics.precision_recall(features, real)
            note = f"{metrics.NEIGHBOURS} neighbours, {numbers}"
            pair = {"precision": precision, "recall": recall}
            return [Figure(extractor.figure(name), value, None, note, lower_is_better=False) for name, value in pair.items()]

        def nearest() -> list[Figure]:
            return [self._nearest(generated.features, seed)]

        several = {"fid": [frechet, by_number], "kid": [kernel], "is": [inception], "prc": [shares], "nearest": [nearest]}
        if real is not None and not weighted:
            several["fid"].append(matched)
        restored = [] if generated.restored is None else generated.restored.measures(reference.moments, "fid" in metric_options.metrics)
        return [measure for name in METRICS if name in metric_options.metrics for measure in several[name]] + restored

    def _nearest(self, features: Tensor, seed: int) -> Figure:
        """Compare how near generated and held-out real images are to training images, the reference.

        Without held-out images, training images take their place, each without itself.
        """
        training, held_out = self.reference.features, self.held_out
        assert training is not None
        if held_out is None:
            chosen = permutation(seed, Purpose.EVALUATION_SPLIT, -3, len(training))[: len(features)]
            real, skip, what = training[chosen], chosen.tolist(), "training images are to the other ones"
        else:
            assert held_out.features is not None
            real, skip, what = held_out.features, None, f"held-out images ({held_out.description}) are"
        near, places = metrics.nearest(features, training)
        usual = metrics.nearest(real, training, skip)[0]
        share, error = metrics.share_closer(near, usual)
        note = f"chance that a generated image is nearer to a training image than {what}: 0.5 is like new data, 1 a copy"
        indices = self.reference.indices
        assert indices is not None
        nearest = near.argsort()[:PAIRS].tolist()
        details = {
            "median_generated": float(near.median()),
            "median_real": float(usual.median()),
            "real": len(real),
            "pairs": [[index, indices[int(places[index])], float(near[index])] for index in nearest],
        }
        return Figure(self.extractor.figure("nearness to training images"), share, error, note, details, lower_is_better=None)


@dataclass
class _Generated:
    """What came of generating, the same on all processes.

    Attributes:
        features: float32 (N, D).
        evaluations: gradients of the action for the hungriest batch (NFE).
        log_weights: N numbers, or None where all images count the same.
        restored: how well images were restored, beside ways without training; None where nothing was to be restored.
    """

    features: Tensor
    evaluations: int
    log_weights: list[float] | None
    restored: "_Restored | None"


class _Restored:
    """Compares restored images, and what methods without training make of what is given of them, with the truth."""

    def __init__(self, model: Model, request: Request, extractor: FeatureExtractor, num: int):
        self.model, self.request, self.extractor, self.num = model, request, extractor, num
        self.scores = Restoration()
        names = baselines_of(model, [0], request)
        self.features = {name: torch.zeros(num, extractor.dimension) for name in names}

    def add(self, samples: Samples) -> None:
        """Score a batch."""
        assert samples.truths is not None
        self.scores.add(samples.indices, samples.images, samples.truths)
        for name, images in baselines_of(self.model, samples.indices, self.request).items():
            self.scores.add(samples.indices, images, samples.truths, name)
            self.features[name][list(samples.indices)] = self.extractor(images)

    def merge(self, processes: Processes) -> None:
        """Give every process the scores of all."""
        self.values = dict(processes.gather(list(self.scores.values().items())))
        for table in self.features.values():
            processes.merge(table)

    def measures(self, real: Moments, distances: bool) -> list[Callable[[], list[Figure]]]:
        """Return the work that makes figures: PSNR and SSIM, and Fréchet distances of the baselines."""
        shape = self.model.config.image_shape

        def frechet(name: str, features: Tensor) -> list[Figure]:
            return [Figure(f"{self.extractor.metric} of {name}", metrics.distance(Moments.of(features), real))]

        tables = self.features if distances else {}
        return [*(partial(frechet, *entry) for entry in tables.items()), lambda: figures(self.values, shape)]


class Clock:
    """Divides the time that passes among what it is spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last call to `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def check_pairs(file: Path, metric_options: MetricOptions, reference: Reference) -> None:
    """Refuse a picture of pairs that could not be drawn."""
    if "nearest" not in metric_options.metrics:
        raise UserError(f"--neighbours {file} shows what metrics=nearest found: add it")
    if reference.dataset is None:
        raise UserError(f"--neighbours {file}: the images of {reference.description} are not at hand: give images with --data")


def save_pairs(file: Path, model: Model, options: SamplingConfig, request: Request, evaluation: Evaluation, reference: Reference) -> None:
    """Picture the generated images that are nearest to training images, each above its neighbour; they are drawn again from their seeds.

    `check_pairs` tells whether that can be done.
    """
    pairs = next(figure.details["pairs"] for figure in evaluation.figures if "pairs" in figure.details)
    assert reference.dataset is not None
    drawn = [samples.images for samples in generate_all(model, options, [index for index, _, _ in pairs], request)]
    save_grid(file, [torch.cat(drawn), reference.dataset.images([index for _, index, _ in pairs])], len(pairs) // 2)


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
