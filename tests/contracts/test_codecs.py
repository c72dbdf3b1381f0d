"""What every codec promises. A new file in fleetfl/codecs is tested here without an edit.

How near it comes is for the codec to say (`Config.fidelity`); each setting is tried at its ends.
"""

import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import fleetfl.codecs
from fleetfl.codecs import AnyCodec, CodecConfig, CodecError, Fidelity, Guarded, decoder
from fleetfl.plugins import available
from fleetfl.vectors import Layout

pytestmark = pytest.mark.contracts
KINDS = available("fleetfl.codecs")
GOLDEN = Path(__file__).parents[1] / "golden" / "codecs"
LAYOUT = Layout(
    (("a", (8, 64)), ("b", (96, 4)), ("bias", (10,)), ("empty", (0, 3)), ("temperature", ()))
)
"""Shapes as adapters have them, and the odd ones: 907 values."""


def default(kind: str) -> CodecConfig:
    return importlib.import_module(f"fleetfl.codecs.{kind}").Config()


def settings(kind: str) -> list[CodecConfig]:
    """The default ones, and each setting at its ends or choices, one at a time."""
    Config = type(default(kind))
    tried = [Config()]
    for name, field in Config.model_fields.items():
        outcomes: list[Any] = []
        if name != "kind" and get_origin(field.annotation) is Literal:
            outcomes += get_args(field.annotation)
        for bound in field.metadata:
            outcomes += [getattr(bound, end) for end in ("ge", "le") if hasattr(bound, end)]
        tried += [Config(**{name: end}) for end in outcomes]
    return tried


def normal(layout: Layout, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=layout.size) * scale).astype(np.float32)


def length(vector: np.ndarray, norm: str) -> float:
    if norm == "max":
        return float(np.abs(vector).max(initial=0))
    return float(np.linalg.norm(vector.astype(np.float64)))


def require_near(back: np.ndarray, vector: np.ndarray, stated: Fidelity) -> None:
    assert back.dtype == np.float32
    assert back.shape == vector.shape
    bound = stated.error * length(vector, stated.norm) * (1 + 1e-5)
    assert length(back.astype(np.float64) - vector, stated.norm) <= bound
    if not stated.error:
        np.testing.assert_array_equal(back.view(np.uint32), vector.view(np.uint32))


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 10_001])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_round_trip_within_the_stated_error(kind, size, scale):
    layout = Layout.flat(size)
    vector, codec = normal(layout, scale), default(kind).build(layout)
    require_near(codec.decode(codec.encode(vector)), vector, default(kind).fidelity)


def test_round_trip_of_a_million_values(kind):
    layout = Layout.flat(1_000_000)
    vector, codec = normal(layout), default(kind).build(layout)
    require_near(codec.decode(codec.encode(vector)), vector, default(kind).fidelity)


def test_every_setting_keeps_what_it_states(kind):
    for config in settings(kind):
        for layout in (LAYOUT, Layout.flat(10_001)):
            vector, codec = normal(layout), config.build(layout)
            require_near(codec.decode(codec.encode(vector)), vector, config.fidelity)


def test_zeros_stay_zeros(kind):
    for layout in (LAYOUT, Layout.flat(0)):
        codec = default(kind).build(layout)
        zeros = np.zeros(layout.size, np.float32)
        np.testing.assert_array_equal(codec.decode(codec.encode(zeros)), zeros)


def test_one_value_among_zeros_stays_the_largest(kind):
    codec, vector = default(kind).build(LAYOUT), np.zeros(LAYOUT.size, np.float32)
    vector[600] = -3.0
    back = codec.decode(codec.encode(vector))
    assert np.abs(back).argmax() == 600
    assert back[600] < 0


def test_decoder_of_the_kind_reads_any_settings(kind):
    for config in settings(kind):
        codec = config.build(LAYOUT)
        body = codec.encode(normal(LAYOUT))
        np.testing.assert_array_equal(decoder(kind, LAYOUT).decode(body), codec.decode(body))


def test_same_vector_gives_the_same_body(kind):
    bodies = {default(kind).build(LAYOUT).encode(normal(LAYOUT)) for _ in range(3)}
    assert len(bodies) == 1


def test_unbiased_codecs_are_right_on_average(kind):
    """The mean of n decoded vectors is off by the error of one over sqrt(n), and by any bias."""
    num_seeds = 300
    vector = np.random.default_rng(4).standard_t(3, LAYOUT.size).astype(np.float32)
    for config in settings(kind):
        if config.fidelity.unbiased:
            total = np.zeros(LAYOUT.size)
            for seed in range(num_seeds):
                codec = config.model_copy(update={"seed": seed}).build(LAYOUT)
                total += codec.decode(codec.encode(vector))
            off = length(total / num_seeds - vector, "l2") / length(vector, "l2")
            assert off <= 1.1 * config.fidelity.error / num_seeds**0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(kind, bad):
    layout = Layout.flat(300)
    vector = np.ones(300, np.float32)
    vector[17] = bad
    with pytest.raises(CodecError, match="value 17 of 300"):
        default(kind).build(layout).encode(vector)


def test_largest_finite_values_come_near_or_are_refused(kind):
    vector = np.full(300, np.finfo(np.float32).max, np.float32)
    codec = default(kind).build(Layout.flat(300))
    with contextlib.suppress(CodecError):
        assert np.isfinite(codec.decode(codec.encode(vector))).all()


def require_sound(kind: str, layout: Layout, body: bytes) -> None:
    """A CodecError, or a vector that may be used; float32 carries any bits."""
    with contextlib.suppress(CodecError):
        vector = decoder(kind, layout).decode(body)
        assert vector.shape == (layout.size,)
        assert vector.dtype == np.float32
        if default(kind).fidelity.error:
            assert np.isfinite(vector).all()


@pytest.mark.parametrize("size", [0, 1, 906, 908, 100_000])
def test_bodies_of_another_layout_give_codec_error_or_finite_values(kind, size):
    require_sound(kind, Layout.flat(size), default(kind).build(LAYOUT).encode(normal(LAYOUT)))


@cache
def bodies(kind: str) -> list[bytes]:
    """One for each of `settings`."""
    return [config.build(LAYOUT).encode(normal(LAYOUT)) for config in settings(kind)]


@hypothesis_settings(deadline=None)
@given(cut=st.integers(0, 4000), value=st.integers(0, 255), which=st.integers(0, 99))
@pytest.mark.parametrize("kind_name", KINDS)
def test_damaged_bodies_give_codec_error_or_finite_values(kind_name, cut, value, which):
    whole = bodies(kind_name)
    body = bytearray(whole[which % len(whole)])
    at = cut % max(1, len(body))
    body[at : at + 1] = bytes([value])
    for damaged in (bytes(body), bytes(body[:at]), bytes(body) + b"\1"):
        require_sound(kind_name, LAYOUT, damaged)


@hypothesis_settings(deadline=None)
@given(noise=st.binary(max_size=400))
@pytest.mark.parametrize("kind_name", KINDS)
def test_noise_gives_codec_error_or_finite_values(kind_name, noise):
    require_sound(kind_name, LAYOUT, noise)


def test_decoding_noise_takes_no_more_memory_than_the_vector_deserves(kind):
    rng, layout = np.random.default_rng(2), Layout.flat(10_000)
    decoder(kind, layout).decode(default(kind).build(layout).encode(normal(layout)))
    tracemalloc.start()
    try:
        for _ in range(50):
            require_sound(kind, layout, rng.bytes(2000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * layout.size


def test_input_is_left_as_it_is_and_the_result_is_ones_own(kind):
    vector = normal(LAYOUT)
    before = vector.copy()
    vector.flags.writeable = False  # as arrays that crossed Ray are
    codec = default(kind).build(LAYOUT)
    body = codec.encode(vector)
    np.testing.assert_array_equal(vector, before)
    back = codec.decode(body)
    back *= 2
    np.testing.assert_array_equal(2 * codec.decode(body), back)


def golden_bodies() -> Iterator[tuple[dict[str, Any], bytes]]:
    for entry in json.loads((GOLDEN / "bodies.json").read_text()):
        yield entry, (GOLDEN / entry["body"]).read_bytes()


def sha256(vector: np.ndarray) -> str:
    return hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()


def decoded(entry: dict[str, Any], body: bytes) -> np.ndarray:
    layout = Layout(tuple((str(i), tuple(shape)) for i, shape in enumerate(entry["shapes"])))
    return decoder(entry["kind"], layout).decode(body)


def test_golden_bodies_decode_to_the_bits_they_always_did(kind):
    mine = [(entry, body) for entry, body in golden_bodies() if entry["kind"] == kind]
    assert mine, f"no golden body: python tests/golden/codecs/write.py {kind}"
    for entry, body in mine:
        assert sha256(decoded(entry, body)) == entry["sha256"], entry["settings"]


OTHER_PROCESS = """
import ast, hashlib, sys
import numpy as np
from fleetfl.codecs import decoder
from fleetfl.vectors import Layout
layout = Layout(ast.literal_eval(sys.argv[2]))
vector = decoder(sys.argv[1], layout).decode(sys.stdin.buffer.read())
print(hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest())
"""


def test_process_without_vector_instructions_decodes_the_same_bits(kind):
    layout = Layout((("a", (64, 300)), ("b", (300, 64)), ("c", (701,))))
    codec = default(kind).build(layout)
    body = codec.encode(normal(layout))
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    elsewhere = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(extensions)}
    argv = [sys.executable, "-c", OTHER_PROCESS, kind, repr(layout.shapes)]
    printed = subprocess.run(argv, input=body, env=elsewhere, capture_output=True, check=True)
    assert printed.stdout.decode().strip() == sha256(codec.decode(body))


def test_new_file_is_picked_up_by_its_presence(tmp_path, monkeypatch):
    source = Path(fleetfl.codecs.__file__).with_name("float32.py").read_text()
    (tmp_path / "acme.py").write_text(source.replace('"float32"', '"acme"'))
    (tmp_path / "_parts.py").write_text("")
    monkeypatch.setattr(fleetfl.codecs, "__path__", [*fleetfl.codecs.__path__, str(tmp_path)])
    assert set(available("fleetfl.codecs")) == {*KINDS, "acme"}
    config = TypeAdapter(AnyCodec).validate_python({"kind": "acme"})
    body = config.build(LAYOUT).encode(normal(LAYOUT))
    np.testing.assert_array_equal(decoder("acme", LAYOUT).decode(body), normal(LAYOUT))
    sys.modules.pop("fleetfl.codecs.acme")
    decoder.cache_clear()


def adversarial(layout: Layout) -> Iterator[np.ndarray]:
    """What packs badly: noise of several kinds, at every density, and values that differ by magnitudes."""
    dice = np.random.default_rng(5)
    size = layout.size
    yield from (normal(layout, scale) for scale in (1e-30, 1.0, 1e30))
    yield np.ones(size, np.float32)
    yield np.where(np.arange(size) % 2, np.float32(1), np.float32(-1))
    yield np.exp(dice.uniform(-60, 60, size)).astype(np.float32) * np.sign(normal(layout))
    yield dice.integers(0, 2**23, size, np.uint32).view(np.float32)  # subnormal
    for density in (0.003, 0.02, 0.1, 0.3, 0.36, 0.5, 0.7, 0.9, 0.99):
        yield np.where(dice.random(size) < density, normal(layout), np.float32(0))
    for step in (2, 3, 4, 5):
        yield np.where(np.arange(size) % step == step - 1, np.float32(1), np.float32(0))
    for rank in (1, 3):
        factors = dice.normal(size=(size, rank)) * 4.0 ** np.arange(rank)
        yield factors.sum(axis=1).astype(np.float32)


SHAPES = {
    "odd": LAYOUT,
    "none": Layout.flat(0),
    "one": Layout.flat(1),
    "seven": Layout.flat(7),
    "flat": Layout.flat(3001),
    "square": Layout((("w", (60, 60)),)),
    "many small": Layout(tuple((f"t{n}", (3, n % 5)) for n in range(90))),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_body_of_any_setting_is_longer_than_the_kind_says(kind, shape):
    Config: Any = type(default(kind))
    most, tried, vectors = decoder(kind, shape).max_body_bytes, settings(kind), adversarial(shape)
    if kind == "spectral":  # searches for what fits, which takes its time
        tried = [Config(max_bytes=n, depth=0.01, dead_zone=0.0) for n in (64, 10**6)]
        vectors = islice(vectors, 1, None, 6)
    if kind == "top_signs":
        tried += [Config(keep=keep) for keep in (0.01, 0.3, 0.36, 0.5, 0.8, 1)]
    codecs = [config.build(shape) for config in tried]
    assert {codec.max_body_bytes for codec in codecs} == {most}
    for vector, codec in product(vectors, codecs):
        with contextlib.suppress(CodecError):
            assert len(codec.encode(vector)) <= most


def test_the_largest_body_is_in_proportion_to_the_layout(kind):
    """Of 38,794 values, float32's is 155,177 bytes, and no other's is longer."""
    assert decoder(kind, Layout.flat(38_794)).max_body_bytes <= 4 * 38_794 + 1


def test_a_longer_body_is_refused_unread(kind):
    codec = decoder(kind, LAYOUT)
    with pytest.raises(CodecError, match="bytes, expected at most"):
        codec.decode(codec.encode(normal(LAYOUT)) + bytes(codec.max_body_bytes))


@pytest.mark.parametrize(
    "after", [b"\0", b"\1", b"\0" * 8, b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"]
)
def test_bytes_after_a_body_are_refused(kind, after):
    for config in settings(kind):
        for vector in (normal(LAYOUT), np.zeros(LAYOUT.size, np.float32)):
            body = config.build(LAYOUT).encode(vector)
            if not body:  # then what follows is the body
                continue
            with pytest.raises(CodecError):
                decoder(kind, LAYOUT).decode(body + after)


class Odd:
    """A codec of somebody else's, that raises, or gives, what it likes."""

    def __init__(self, gives: Any) -> None:
        self.gives = gives

    def encode(self, vector: np.ndarray) -> bytes:
        return self.decode(b"")

    def decode(self, body: bytes) -> Any:
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


ODD = [
    IndexError(),
    KeyError("x"),
    RecursionError(),
    MemoryError(),
    AssertionError(),
    UnicodeError(),
]


@pytest.mark.parametrize("gives", ODD, ids=repr)
def test_whatever_a_codec_raises_is_a_codec_error(gives):
    odd: Any = Odd(gives)
    codec = Guarded(odd, 3)
    with pytest.raises(CodecError, match=type(gives).__name__):
        codec.decode(b"abc")
    with pytest.raises(CodecError, match=type(gives).__name__):
        codec.encode(np.zeros(3, np.float32))


@pytest.mark.parametrize("gives", [None, [1.0], np.zeros(3), np.zeros(4, np.float32)], ids=repr)
def test_whatever_else_a_codec_gives_is_a_codec_error(gives):
    odd: Any = Odd(gives)
    with pytest.raises(CodecError):
        Guarded(odd, 3).decode(b"abc")
