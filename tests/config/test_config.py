import math
import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from amgen import config
from amgen.config import Config
from amgen.config.wording import choice_of, sections
from amgen.core.errors import UserError


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
    assert (training.learning_rate, training.batch_size, training.clip, training.ema[0]) == (1e-4, 128, 1.0, 887_000)
    assert training.warmup_images == 5_000 * 128
    assert training.images == 500_000 * 128


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.imges=3"], "unknown option 'training.imges' (did you mean 'images'?)"),
        (["trainin.images=3"], "unknown option 'trainin' (did you mean 'training'?)"),
        (["training.images=abc"], "training.images='abc': expected an integer"),
        (["training.images='3'"], "training.images='3': expected an integer"),
        (["training.images=-3"], "training.images=-3: expected a number greater than 0"),
        (["training.learning_rate=.nan"], "finite number"),
        (["training.batch_size=10", "training.micro_batch=3"], "batch_size=10 is not a multiple of micro_batch=3"),
        (["training.weight_decay=0.1"], "weight_decay needs optimizer=adamw"),
        (["training.ema=[0.9,0.9]"], "names a rate twice"),
        (["training.decay=2"], "training.decay=2: expected a number of at most 1"),
        (["data.size=9"], "data.size=9 cannot be halved"),
        (["action.attention=[5]"], "action.attention=5 is not a resolution"),
        (["action.attention_heads=5"], "attention_heads=5 does not divide"),
        (["action.head=dott"], "action.head='dott': expected 'dot', 'square' or 'pooled'"),
        (["sampling.solver=eular"], "unknown solver 'eular' (did you mean 'euler'?): choose one of ab2, ab3, adaptive-heun"),
        (["sampling.batch_size=0"], "batch_size=0: expected auto or a positive integer"),
        (["sampling.batch_size=all"], "batch_size='all': expected auto or a positive integer"),
        (["sampling.batch_size=8.0"], "batch_size=8.0: expected auto or a positive integer"),
        (["sampling.batch_size=true"], "batch_size=True: expected auto or a positive integer"),
        (["data.path.x=1"], "'path' is an option, not a section"),
        (["data"], "expected section.key=value"),
        (["seed=[1"], "not valid YAML"),
        (["training.images=2020-01-01"], "training.images='2020-01-01': expected an integer"),
        (["training.images=!!binary YQ=="], "a value is of a type that options cannot have: bytes"),
        (["path=vp"], "path='vp': path is a section, not an option: give its options, such as path.kind=vp"),
        (["path=vp", "path.beta_max=3"], "path='vp': path is a section"),
        (["training=3"], "training=3: training is a section"),
        (["path.kind=vpp"], "path.kind: unknown kind 'vpp' (did you mean 'vp'?): choose one of colourisation, heat, in-painting"),
        (["path.kind=[a]"], "path.kind=['a']: expected one of linear, vp"),
        (["data..path=x"], "expected section.key=value"),
        ([".".join("a" * 5000) + "=1"], "expected section.key=value"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load("digits", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "most"),
    [
        ("data.size=16385", 16_384),
        ("action.width=65537", 65_536),
        ("action.blocks=1001", 1000),
        ("action.attention_heads=65537", 65_536),
        ("sampling.grid=10001", 10_000),
        ("evaluation.num=1000000001", 10**9),
        (f"training.images={10**15 + 1}", 10**15),
        (f"action.attention=[{10**15 + 1}]", 10**15),
    ],
)
def test_upper_bounds_are_checked(override: str, most: int) -> None:
    """Bounds of an option itself, and those of the type of all counts."""
    with pytest.raises(UserError, match=f"expected a number of at most {most}$"):
        config.load("digits", [override])


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
    """The default `auto` chooses when sampling; a resumed run may have another batch size."""
    ours, theirs = config.load("digits"), config.load("digits", ["sampling.batch_size=8"])
    assert (ours.sampling.batch_size, theirs.sampling.batch_size) == ("auto", 8)
    assert config.change(theirs.sampling, {"batch_size": "auto"}) == ours.sampling
    assert ours.differences(theirs) == {}


def test_differences_are_those_that_change_what_is_learned() -> None:
    ours = config.load("digits", ["training.decay=0"])
    theirs = config.load("digits", ["training.decay=0", "training.images=1", "data.workers=3", "seed=5", "action.width=8"])
    assert ours.differences(theirs) == {"seed": (0, 5), "action.width": (ours.action.width, 8)}


def test_every_option_has_a_line_of_help() -> None:
    def check(section: type[config.Section]) -> None:
        for name, field in section.model_fields.items():
            inner = sections(field)
            assert field.description or "" in inner, name
            for kind in inner.values():
                check(kind)

    check(Config)


def test_another_kind_drops_the_options_of_the_old_one() -> None:
    """In any order of the overrides. An override with the same kind keeps the options."""
    assert config.load("digits", ["coupling.kind=ot"]).coupling.group == 64
    assert config.load("digits", ["coupling.kind=independent"]).coupling.model_dump() == {"kind": "independent"}
    vp = config.load("cifar10", ["path.beta_max=10", "path.kind=vp"]).path
    assert vp.model_dump() == {"kind": "vp", "beta_min": 0.1, "beta_max": 10.0}
    marginal = config.load("digits", ["loss.weight=1-t", "loss.form=marginal"]).loss
    assert marginal.model_dump() == {"form": "marginal", "weight": "1-t", "boundaries": "paired", "cells": 0, "probes": 1}
    resolved = config.load("digits", ["dynamics.kind=unbalanced", "data.masses.end=[1,2]"])
    assert config.parse(resolved.model_dump(mode="json"), "test") == resolved


def test_differences_between_kinds_are_named() -> None:
    balanced, convex = config.load("digits"), config.load("digits", ["dynamics.kind=convex", "dynamics.power=3"])
    assert balanced.differences(convex) == {"dynamics.kind": ("balanced", "convex"), "dynamics.power": (None, 3.0)}


@pytest.mark.parametrize(
    ("overrides", "reason", "alternative"),
    [
        (["path.kind=colourisation"], "needs colours", "data.channels=3"),
        (["path.kind=super-resolution", "path.factor=9"], "leaves one pixel of data.size=8", "smaller factor"),
        (["path.kind=super-resolution", "coupling.kind=ot"], "noise must be independent", "coupling.kind=independent"),
        (["path.kind=torus", "coupling.kind=ot"], "noise must be independent", "coupling.kind=independent"),
        (["path.kind=in-painting", "path.region=mask"], "go together", "give both or neither"),
        (["path.kind=in-painting", "path.region=mask", "path.mask=[xx,..]"], "2 rows of 2", "8 rows of data.size=8"),
        (["dynamics.kind=entropic", "path.kind=torus"], "Gaussian given its ends", "loss.form=marginal"),
        (["dynamics.kind=entropic", "coupling.kind=ot"], "Gaussian given the image", "loss.form=marginal"),
        (["dynamics.kind=entropic", "dynamics.schedule=constant"], "unbounded variance", "1-t or sqrt(a)"),
        (["dynamics.kind=entropic", "path.kind=torus", "loss.form=marginal"], "noise scale a_t", "dynamics.schedule=1-t"),
        (["dynamics.kind=entropic", "sampling.solver=heun"], "solves ODEs", "euler-maruyama"),
        (["sampling.solver=euler-maruyama"], "solves SDEs", "--noise-level 1"),
        (["sampling.noise_level=1"], "makes the dynamics an SDE", "euler-maruyama"),
        (["sampling.noise_level=1", "path.kind=torus", "sampling.solver=sra1"], "path.kind=torus is not", "leave it at 0"),
        (["sampling.noise_level=1", "coupling.kind=ot", "sampling.solver=sra1"], "independent of the data", "coupling.kind=independent"),
        (["sampling.noise_level=1", "dynamics.kind=convex", "sampling.solver=sra1"], "for balanced dynamics", "leave it at 0"),
        (["sampling.noise_level=1", "dynamics.kind=entropic"], "noise of their own", "leave it at 0"),
        (["loss.form=marginal", "loss.probes=2"], "Laplacian of entropic dynamics", "leave it out"),
        (["data.masses.end=[1,2]"], "cannot model", "dynamics.kind=unbalanced"),
        (["dynamics.kind=unbalanced", "action.classes=10"], "cannot be conditioned on one", "action.classes=0"),
        (["dynamics.kind=unbalanced", "data.masses={start: [1], end: [1]}", "coupling.kind=ot"], "standard normal", "start=null"),
        (["sampling.guidance=2"], "also trained without classes", "action.label_dropout"),
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
    """From an image file, in which light pixels are generated. The run directory then does not depend on the file."""
    from PIL import Image

    image = Image.new("L", (8, 8))
    image.putpixel((2, 1), 255)
    image.save(tmp_path / "mask.png")
    options = ["coupling.kind=independent", "path.kind=in-painting", "path.region=mask", f"path.mask={tmp_path / 'mask.png'}"]
    resolved = config.load("digits", options)
    assert resolved.path.mask == ["........", "..x.....", *["........"] * 6]
    (tmp_path / "mask.png").unlink()
    assert config.parse(resolved.model_dump(mode="json"), "test") == resolved


WRONG = ["x" * 100_000, "", "x", [], ["x"], [[1]], {}, {"x": 1}, None, True, 2**62, -(2**62), 0.5, -0.5, math.inf, math.nan]
LIBRARY_WORDS = re.compile(
    r"pydantic|lambda|input should|union_tag|discriminator|literal_error|valid (integer|number|string|list)|tagged|_type\b|instance of|"
    r"mapping|object at|json|validat",
    re.IGNORECASE,
)


def every_option() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the key of each option of each kind of section, and the options that choose the kind."""

    def below(section: type[BaseModel], prefix: str, others: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
        for name, field in section.model_fields.items():
            yield prefix + name, others
            for kind, inner in sections(field).items():
                yield from below(inner, f"{prefix}{name}.", {choice_of(sections(field)): kind} if kind else {})

    yield from below(Config, "", {})


@pytest.mark.parametrize("value", WRONG, ids=[repr(value)[:12] for value in WRONG])
def test_any_value_of_any_option_is_refused_without_library_words(value: object) -> None:
    """Or accepted, if it is valid. The message names the key, and shortens the value."""
    refused = 0
    for key, others in every_option():
        *parents, leaf = key.split(".")
        options: dict[str, Any] = {}
        inner = options
        for parent in parents:
            inner[parent] = {}
            inner = inner[parent]
        inner |= {**others, leaf: value}
        try:
            config.parse(options, "test")
        except UserError as error:
            refused += 1
            message = str(error)
            assert not LIBRARY_WORDS.search(message), message
            assert "\n" not in message
            assert len(message) < 700, message
            missing = re.search(r"(\S+) is missing", message)
            assert missing or leaf in message or (parents and parents[-1] in message), (key, message)
    assert refused > 20


def test_refusals_say_what_was_given_and_what_is_expected() -> None:
    """One wrong value for each type of option; the messages are derived from the types and bounds."""
    expected = {
        "training.images=1.5": "training.images=1.5: expected an integer",
        "training.images=[1]": "training.images=[1]: expected an integer",
        "training.learning_rate=fast": "training.learning_rate='fast': expected a number",
        "training.learning_rate=.inf": "training.learning_rate=inf: expected a finite number",
        "training.weight_decay=-1": "training.weight_decay=-1: expected a number of at least 0",
        "training.compile=1": "training.compile=1: expected true or false",
        "training.ema=0.9": "training.ema=0.9: expected a list, such as [1, 2]",
        "training.ema=[]": "training.ema=[]: expected at least 1 values, not 0",
        "training.ema=[0.9,x]": "training.ema.1='x': expected a number",
        "training.betas=[0.9]": "training.betas",
        "training.optimizer=sgd": "training.optimizer='sgd': expected 'adam' or 'adamw'",
        "data.path=5": "data.path=5: expected text (in quotes, where it reads as a number)",
        "data.path=''": "data.path='': expected text that is not empty",
        "data.masses.start=[1]": "data.masses.end is missing",
        "data.masses=5": "data.masses=5: data.masses is a section, not an option: give its options, such as data.masses.start=",
        "sampling.solver=[heun]": "sampling.solver=['heun']: expected text",
        "coupling.group=1000000000": "coupling.group=1000000000: expected a number of at most 16384",
        f"data.path=[{'x' * 70_000}]": "data.path=['xxxxxxx",
    }
    for override, message in expected.items():
        with pytest.raises(UserError) as caught:
            config.load("digits", [override])
        assert message in str(caught.value)
        assert len(str(caught.value)) < 400


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in pairwise("abcdefghijklm")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "it holds more than 200,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: {c: *a}}", "contains itself"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 20 deep"),
        ("a: " + "{a: " * 3000 + "}" * 3000, "nested more than 20 deep"),
        ("a: &a [[[[[[[[[x]]]]]]]]]\nb: &b [[[[[[[[*a]]]]]]]]\nc: [[[[*b]]]]", "nested more than 20 deep"),
        (f"seed: {'9' * 5000}", "not valid YAML: a number has too many digits"),
        (f"seed: 0x{'f' * 5000}", "an integer has 20,000 bits"),
        ("seed: 18446744073709551616", "an integer has 65 bits"),
        ("seed: !!timestamp 2020-13-45", "month must be in 1..12"),
        ("1: 2", "the key '1' is not a string"),
        ("yes: 2", "the key 'yes' is not a string"),
        ("~: 2", "the key '~' is not a string"),
        ("[1, 2]: 2", "the key a list or mapping is not a string"),
        ("? {a: 1}\n: 2", "the key a list or mapping is not a string"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("a: !!set {x, y}", "a type that options cannot have: set"),
        ('data: {path: "a\\0b"}', "holds the character 0"),
        ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
        ("x" * 70_000, "must hold sections"),
        ("'" + "x" * 70_000, "not valid YAML"),
    ],
)
def test_no_text_hangs_or_fills_the_memory(text: str, message: str, tmp_path: Path) -> None:
    """In a file and as the value of --set: an error of one line, within a second (the limit leaves room for a busy machine)."""
    file = tmp_path / "x.yaml"
    file.write_text(text)
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        config.load(str(file))
    errors = [str(caught.value)]
    with pytest.raises(UserError) as caught:
        config.load("digits", [f"seed={{{text}}}" if text.startswith(("?", "[", "1", "yes", "~")) else f"seed={text}"])
    errors.append(str(caught.value))
    assert message in errors[0]
    for error in errors:
        assert "\n" not in error
        assert len(error) < 600
    assert time.process_time() - start < 2


def test_anchors_are_copied(tmp_path: Path) -> None:
    """An override of one use does not change the others, and mappings can be merged."""
    file = tmp_path / "x.yaml"
    file.write_text("training: &t {images: 64}\nevaluation: {<<: {num: 5}, every: 0}\n")
    assert config.load(str(file)).evaluation.num == 5
    file.write_text("a: &a {x: 1}\nb: *a\n")
    options = config.apply_overrides(config.read_yaml(str(file)), ["a.x=2"])
    assert options == {"a": {"x": 2}, "b": {"x": 1}}


def test_dates_are_strings(tmp_path: Path) -> None:
    """A folder may have a date as its name, and the written options are read back unchanged."""
    file = tmp_path / "x.yaml"
    file.write_text(config.load("digits", ["data.path=2020-01-01"]).to_yaml())
    assert config.load(str(file)).images.path == "2020-01-01"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: os.truncate(path.write_text("") or path, 2**30), "it has 1,073,741,824 bytes: expected at most 4,194,304"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: path.write_bytes("data: {path: é}".encode("latin-1")), "it is not UTF-8 text"),
        (lambda path: path.write_bytes(b"a: \0"), "special characters are not allowed"),
    ],
)
def test_files_that_are_not_text_are_refused_at_once(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    make(file)
    with pytest.raises(UserError) as caught:
        config.load(str(file))
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("seed: 3", encoding="utf-8-sig")
    assert config.load(str(file)).seed == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (lambda path: path.write_text("no image"), "it is none of"),
        (lambda path: Image.new("1", (20_000, 1)).save(path, "png"), "is 20000x1 pixels: expected at most 4,096"),
    ],
)
def test_a_mask_that_is_not_an_image_is_refused(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "mask")
    with pytest.raises(UserError, match=message):
        config.load("digits", ["path.kind=in-painting", "path.region=mask", f"path.mask={tmp_path / 'mask'}"])
