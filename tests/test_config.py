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
        (["sampling.solver=eular"], "unknown solver 'eular' (did you mean 'euler'?): choose one of dopri5, euler"),
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


def test_differences_are_those_that_alter_what_is_learned() -> None:
    ours = config.load("digits", ["training.decay=0"])
    theirs = config.load("digits", ["training.decay=0", "training.images=1", "data.workers=3", "seed=5", "action.width=8"])
    assert ours.differences(theirs) == {"seed": (0, 5), "action.width": (ours.action.width, 8)}


def test_every_option_has_a_line_of_help() -> None:
    def check(section: type[config.Section]) -> None:
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, config.Section):
                check(field.annotation)
            else:
                assert field.description, name

    check(Config)
