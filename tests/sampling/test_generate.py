from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.model import checkpoints
from amgen.model.weights_file import digest


def test_images_do_not_depend_on_the_batch(trained: Path) -> None:
    """Batches of 1, 7 and 16, and a subset: equal to within one gray level (kernels round differently for other shapes)."""
    model = sampling.load(trained)

    def images(batch_size: int, indices: list[int]) -> torch.Tensor:
        options = config.change(model.config.sampling, {"batch_size": batch_size})
        return torch.cat([batch.images for batch in sampling.generate_all(model, options, indices, sampling.Request(seed=3))])

    whole = images(16, list(range(16))).int()
    for batch_size in (1, 7):
        assert (images(batch_size, list(range(16))).int() - whole).abs().max() <= 1
    assert (images(4, [5, 2]).int() - whole[[5, 2]]).abs().max() <= 1
    assert (whole[0] - whole[1]).abs().max() > 1


@pytest.mark.parametrize(("solver", "nfe"), [("euler", 3), ("midpoint", 6), ("heun", 6), ("rk4", 12)])
def test_evaluations_are_counted(solver: str, nfe: int, trained: Path) -> None:
    model = sampling.load(trained)
    options = config.change(model.config.sampling, {"solver": solver, "steps": 3})
    (batch,) = sampling.generate_all(model, options, range(4), sampling.Request(seed=0))
    assert batch.evaluations == nfe


def test_averaged_weights_are_the_default(trained: Path) -> None:
    averaged, raw = sampling.load(trained), sampling.load(trained, raw=True)
    assert (averaged.weights, raw.weights) == (f"ema-{averaged.config.training.ema[0]}", "action")
    assert not torch.equal(averaged.action.body.stem.weight, raw.action.body.stem.weight)
    assert not any(parameter.requires_grad for parameter in averaged.action.parameters())
    second = averaged.config.training.ema[1]
    assert sampling.load(trained, ema=second).weights == f"ema-{second}"
    with pytest.raises(UserError, match=r"no averaged weights of rate 0.5: choose one of"):
        sampling.load(trained, ema=0.5)


def test_a_model_says_which_weights_it_has(trained: Path) -> None:
    """By the checksum of the file that they were read from, or of the network if no checksum is given."""
    model = sampling.load(trained)
    weights = load_file(checkpoints.find(trained) / f"{model.weights}.safetensors")
    found = model.describe()
    assert list(found) == ["checkpoint", "weights", "weights_sha256", "images_trained"]
    assert found["weights_sha256"] == digest(weights)
    built = sampling.assemble(model.config, model.action, "action", 0, Path())
    assert built.weights_sha256 == digest(weights)
    assert model.in_words({"solver": "heun", **found}).split(", ")[3] == f"weights_sha256 {found['weights_sha256'][:12]}"


def test_labels(tmp_path: Path, tiny: config.Config) -> None:
    from amgen.training.main import train

    options = config.parse(config.apply_overrides(tiny.model_dump(mode="json"), ["action.classes=10"]), "test")
    train(options, tmp_path / "run")
    model = sampling.load(tmp_path / "run")
    for parameter in model.action.body.classes.parameters():
        parameter.data *= 30  # six steps have not taught it much
    (turn,) = sampling.generate_all(model, model.config.sampling, range(12), sampling.Request(seed=0))
    assert turn.labels is not None
    assert turn.labels.tolist() == [*range(10), 0, 1]
    (fixed,) = sampling.generate_all(model, model.config.sampling, range(12), sampling.Request(label=1))
    same = (fixed.images == turn.images).flatten(1).all(dim=1)
    assert same[[1, 11]].all()
    assert not same[[0, 2, 3]].any()
    with pytest.raises(UserError, match="knows the classes 0 to 9"):
        next(sampling.generate_all(model, model.config.sampling, range(2), sampling.Request(label=10)))


def test_label_of_an_unconditional_model(trained: Path) -> None:
    model = sampling.load(trained)
    with pytest.raises(UserError, match="trained without classes"):
        next(sampling.generate_all(model, model.config.sampling, range(2), sampling.Request(label=1)))


def test_divergence_is_an_error(trained: Path) -> None:
    from amgen.core.errors import Diverged

    model = sampling.load(trained)
    for parameter in model.action.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(Diverged, match="image 0 has values that are not finite"):
        next(sampling.generate_all(model, model.config.sampling, range(2), sampling.Request()))


def test_unknown_device(trained: Path) -> None:
    with pytest.raises(UserError, match="device='gpu' cannot be used here"):
        sampling.load(trained, device="gpu")
