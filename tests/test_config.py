from pathlib import Path

import pytest

from amgen import config
from amgen.config import Config
from amgen.errors import UserError


@pytest.mark.parametrize("name", config.preset_names())
def test_presets_parse_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    options = config.load(name)
    file = tmp_path / "config.yaml"
    file.write_text(options.to_yaml())
    assert config.load(str(file)) == options


def test_cifar10_is_the_papers() -> None:
    options = config.load("cifar10")
    assert (options.action.width, options.action.multipliers, options.action.blocks) == (128, [1, 2, 2, 2], 2)
    assert (options.action.attention, options.action.dropout) == ([16, 8], 0.1)
    training = options.training
    assert (training.learning_rate, training.batch_size, training.clip, training.ema[0]) == (1e-4, 128, 1.0, 0.9999)
    assert training.warmup_images == 5_000 * 128
    assert training.images == 500_000 * 128


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.imges=3"], "unknown option 'training.imges' (did you mean 'images'?)"),
        (["trainin.images=3"], "unknown option 'trainin' (did you mean 'training'?)"),
        (["training.images=abc"], "training.images='abc': input should be a valid integer"),
        (["training.images='3'"], "training.images='3': input should be a valid integer"),
        (["training.images=-3"], "training.images=-3: input should be greater than 0"),
        (["training.learning_rate=.nan"], "finite number"),
        (["training.batch_size=10", "training.micro_batch=3"], "batch_size=10 is not a multiple of micro_batch=3"),
        (["training.weight_decay=0.1"], "weight_decay needs optimizer=adamw"),
        (["training.ema=[0.9,0.9]"], "names a rate twice"),
        (["training.decay=2"], "training.decay=2: input should be less than or equal to 1"),
        (["data.size=9"], "data.size=9 cannot be halved"),
        (["action.attention=[5]"], "action.attention=5 is not a resolution"),
        (["action.attention_heads=5"], "attention_heads=5 does not divide"),
        (["action.head=dott"], "action.head='dott': input should be 'dot', 'square' or 'pooled'"),
        (["sampling.solver=eular"], "unknown solver 'eular' (did you mean 'euler'?): choose one of ab2, ab3, adaptive-heun"),
        (["sampling.batch_size=0"], "batch_size=0: expected auto or a positive integer"),
        (["sampling.batch_size=all"], "batch_size='all': expected auto or a positive integer"),
        (["sampling.batch_size=8.0"], "batch_size=8.0: expected auto or a positive integer"),
        (["sampling.batch_size=true"], "batch_size=True: expected auto or a positive integer"),
        (["data.path.x=1"], "'path' is an option, not a section"),
        (["data"], "expected section.key=value"),
        (["seed=[1"], "not valid YAML"),
        (["training.images=2020-01-01"], "a value is of a type that options do not have"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load("digits", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'digit' \(did you mean 'digits'\?\)"):
        config.load("digit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "must hold sections"),
        ("seed: 1\nseed: 2", "given twice"),
        (b"\xff\xfe\x00", "cannot read"),
    ],
)
def test_broken_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=message):
        config.load(str(file))
    with pytest.raises(UserError, match="cannot read"):
        config.load(str(tmp_path / "missing.yaml"))


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("training: {learning_rate: 1e-4}")
    assert config.load(str(file)).training.learning_rate == 1e-4


def test_batch_sizes_of_sampling() -> None:
    """By default chosen when sampling; a resumed run may have another."""
    ours, theirs = config.load("digits"), config.load("digits", ["sampling.batch_size=8"])
    assert (ours.sampling.batch_size, theirs.sampling.batch_size) == ("auto", 8)
    assert config.change(theirs.sampling, {"batch_size": "auto"}) == ours.sampling
    assert ours.differences(theirs) == {}


def test_differences_are_those_that_alter_what_is_learned() -> None:
    ours = config.load("digits", ["training.decay=0"])
    theirs = config.load("digits", ["training.decay=0", "training.images=1", "data.workers=3", "seed=5", "action.width=8"])
    assert ours.differences(theirs) == {"seed": (0, 5), "action.width": (ours.action.width, 8)}


def test_every_option_has_a_line_of_help() -> None:
    def check(section: type[config.Section]) -> None:
        for name, field in section.model_fields.items():
            inner = config.sections(field)
            assert field.description or "" in inner, name
            for kind in inner.values():
                check(kind)

    check(Config)


def test_another_kind_begins_its_section_anew() -> None:
    """Whatever the order; the same kind keeps what is there."""
    assert config.load("digits", ["coupling.kind=ot"]).coupling.group == 64
    assert config.load("digits", ["coupling.kind=independent"]).coupling.model_dump() == {"kind": "independent"}
    vp = config.load("cifar10", ["path.beta_max=10", "path.kind=vp"]).path
    assert vp.model_dump() == {"kind": "vp", "beta_min": 0.1, "beta_max": 10.0}
    marginal = config.load("digits", ["loss.weight=1-t", "loss.form=marginal"]).loss
    assert marginal.model_dump() == {"form": "marginal", "weight": "1-t", "boundaries": "paired", "probes": 1}
    resolved = config.load("digits", ["dynamics.kind=unbalanced", "data.masses.end=[1,2]"])
    assert config.parse(resolved.model_dump(mode="json"), "test") == resolved


def test_differences_between_kinds_are_named() -> None:
    balanced, convex = config.load("digits"), config.load("digits", ["dynamics.kind=convex", "dynamics.power=3"])
    assert balanced.differences(convex) == {"dynamics.kind": ("balanced", "convex"), "dynamics.power": (None, 3.0)}


@pytest.mark.parametrize(
    ("overrides", "reason", "alternative"),
    [
        (["path.kind=colourisation"], "needs colours", "data.channels=3"),
        (["path.kind=super-resolution", "path.factor=9"], "leaves one pixel of 8", "smaller factor"),
        (["path.kind=super-resolution", "coupling.kind=ot"], "tell of the noise", "coupling.kind=independent"),
        (["path.kind=torus", "coupling.kind=ot"], "tell of the noise", "coupling.kind=independent"),
        (["path.kind=in-painting", "path.region=mask"], "go together", "give both or neither"),
        (["path.kind=in-painting", "path.region=mask", "path.mask=[xx,..]"], "2 rows of 2", "8 rows of data.size=8"),
        (["dynamics.kind=entropic", "path.kind=torus"], "Gaussian given its ends", "loss.form=marginal"),
        (["dynamics.kind=entropic", "coupling.kind=ot"], "Gaussian given the image", "loss.form=marginal"),
        (["dynamics.kind=entropic", "dynamics.schedule=constant"], "unbounded variance", "1-t or sqrt(a)"),
        (["dynamics.kind=entropic", "path.kind=torus", "loss.form=marginal"], "noise scale a_t", "dynamics.schedule=1-t"),
        (["dynamics.kind=entropic", "sampling.solver=heun"], "solves ODEs", "euler-maruyama"),
        (["sampling.solver=euler-maruyama"], "needs noise", "--noise-level 1"),
        (["sampling.noise_level=1"], "makes an SDE", "euler-maruyama"),
        (["sampling.noise_level=1", "path.kind=torus", "sampling.solver=sra1"], "the torus is not", "leave it at 0"),
        (["sampling.noise_level=1", "coupling.kind=ot", "sampling.solver=sra1"], "independent of the data", "coupling.kind=independent"),
        (["sampling.noise_level=1", "dynamics.kind=convex", "sampling.solver=sra1"], "for balanced dynamics", "leave it at 0"),
        (["sampling.noise_level=1", "dynamics.kind=entropic"], "their own noise", "leave it at 0"),
        (["loss.form=marginal", "loss.probes=2"], "Laplacian of entropic dynamics", "leave it out"),
        (["data.masses.end=[1,2]"], "cannot follow", "dynamics.kind=unbalanced"),
        (["dynamics.kind=unbalanced", "action.classes=10"], "must not be told the class", "action.classes=0"),
        (["dynamics.kind=unbalanced", "data.masses={start: [1], end: [1]}", "coupling.kind=ot"], "standard normal", "start=null"),
        (["sampling.guidance=2"], "also learned without classes", "action.label_dropout"),
        (["action.label_dropout=0.1"], "needs classes", "action.classes"),
        (["dynamics.kind=convex", "dynamics.power=1"], "dynamics.power=1", "greater than 1"),
        (["path.kind=in-painting", "path.mask=missing.png", "path.region=mask"], "cannot read the image", "missing.png"),
    ],
)
def test_impossible_combinations_are_refused_with_reason_and_alternative(overrides: list[str], reason: str, alternative: str) -> None:
    solver = (
        []
        if any("solver" in entry for entry in overrides) or "dynamics.kind=entropic" not in overrides
        else ["sampling.solver=euler-maruyama"]
    )
    coupling = [] if any("coupling" in entry for entry in overrides) else ["coupling.kind=independent"]
    with pytest.raises(UserError) as caught:
        config.load("digits", [*overrides, *solver, *coupling])
    assert reason in str(caught.value)
    assert alternative in str(caught.value)


def test_a_mask_is_read_into_the_configuration(tmp_path: Path) -> None:
    """From an image file, light pixels painted, so that the run directory does not depend on the file."""
    from PIL import Image

    image = Image.new("L", (8, 8))
    image.putpixel((2, 1), 255)
    image.save(tmp_path / "mask.png")
    options = ["coupling.kind=independent", "path.kind=in-painting", "path.region=mask", f"path.mask={tmp_path / 'mask.png'}"]
    resolved = config.load("digits", options)
    assert resolved.path.mask == ["........", "..x.....", *["........"] * 6]
    (tmp_path / "mask.png").unlink()
    assert config.parse(resolved.model_dump(mode="json"), "test") == resolved
