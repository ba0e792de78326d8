"""Variable bundles: what they hold, and that damage is noticed."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_bundles
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_bundles import write_bundle

from tilewright.errors import ModelError, TilewrightError, UnknownNameError, UnsupportedError
from tilewright.frontends.tensorflow.bundle import open_bundle
from tilewright.frontends.tensorflow.crc32c import FOUR, P, crc32c
from tilewright.frontends.tensorflow.messages import BundleEntryProto

ARRAYS = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "dense/bias": np.arange(4, dtype=np.float64),
    "dense_1/kernel": np.arange(300, dtype=np.int64).reshape(20, 15),
    "dense_1/kernel/more": np.array(7, np.uint8),
    "half": np.array([1.5, -2], np.float16),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


# ---- the checksum


def test_checksums_that_are_published() -> None:
    # RFC 3720, B.4
    assert crc32c(memoryview(b"123456789")) == 0xE3069283
    assert crc32c(memoryview(bytes(32))) == 0x8A9136AA
    assert crc32c(memoryview(b"\xff" * 32)) == 0x62A8AB43
    assert crc32c(memoryview(bytes(range(32)))) == 0x46DD794E


@pytest.mark.parametrize("size", [2047, 2048, 2049, 2063, 45480, 45489, 100_001, (1 << 20) + 8, (1 << 21) + 3])
def test_checksums_of_long_data(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    whole = crc32c(memoryview(data))
    assert size > 3000 or whole == tensorflow_bundles.crc32c(data)
    flipped = bytearray(data)
    flipped[size // 3] ^= 16
    assert crc32c(memoryview(flipped)) != whole
    # Linear: the checksums of three strings of one length add up to that of their sum.
    other = np.random.default_rng(size + 1).bytes(size)
    total = np.frombuffer(data, np.uint8) ^ np.frombuffer(other, np.uint8)
    assert crc32c(memoryview(total.tobytes())) == whole ^ crc32c(memoryview(other)) ^ crc32c(memoryview(bytes(size)))


def test_short_and_long_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    data = memoryview(np.random.default_rng(0).bytes((1 << 20) + 70_001))
    quick = crc32c(data)
    monkeypatch.setattr("tilewright.frontends.tensorflow.crc32c.SHORT", 1 << 30)
    assert crc32c(data) == quick


def test_the_polynomial_of_four_terms_is_a_multiple() -> None:
    polynomial = sum(1 << exponent for exponent in P)
    remainder = sum(1 << exponent for exponent in FOUR)
    for degree in range(FOUR[0], P[0] - 1, -1):
        if remainder >> degree & 1:
            remainder ^= polynomial << degree - P[0]
    assert remainder == 0


# ---- bundles


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("big_endian", [False, True])
def test_variables(tmp_path: Path, shards: int, big_endian: bool) -> None:
    write_bundle(tmp_path / "variables", ARRAYS, shards=shards, big_endian=big_endian)
    bundle = open_bundle(tmp_path / "variables")
    assert sorted(bundle.entries) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        found = bundle.tensor(name)
        assert found.array is not None
        assert (found.array.dtype.newbyteorder("="), found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found.array, array)
    kernel = bundle.tensor("dense_1/kernel").array
    assert kernel is not None and not kernel.flags.owndata  # a view of the mapped file


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v", ARRAYS)
    with pytest.raises(UnknownNameError, match=r"no variable in v\.index is called 'dense/kern'; .*dense/kernel"):
        open_bundle(tmp_path / "v").tensor("dense/kern")


def damaged(tmp_path: Path, entry: dict[str, object]) -> Path:
    """A bundle whose one variable has an entry changed."""
    write_bundle(tmp_path / "v", {"w": np.arange(4, dtype=np.float32)})
    original = BundleEntryProto.FromString(open_bundle(tmp_path / "v").entries["w"])
    for key, value in entry.items():
        if key == "dims":
            del original.shape.dim[:]
            for dim in value if isinstance(value, list) else ():
                original.shape.dim.add(size=dim)
        elif key == "slices":
            original.slices.add()
        else:
            setattr(original, key, value)
    header = {b"": tensorflow_bundles.BundleHeaderProto(num_shards=1).SerializeToString()}
    index = tensorflow_bundles.table(header | {b"w": original.SerializeToString()})
    (tmp_path / "v.index").write_bytes(index)
    return tmp_path / "v"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"crc32c": 5}, r"variable 'w': its checksum in v\.data-00000-of-00001 is wrong; the file is damaged"),
        ({"offset": 4}, r"variable 'w': it should lie at bytes 4 to 20 of v\.data.*which has 16; copy the model"),
        ({"offset": -4}, "it should lie at bytes -4 to 12"),
        ({"shard_id": 1}, "it lies in shard 1 of 1"),
        ({"dims": [5]}, "declared float 5, which takes 20 bytes, but holds 16"),
        ({"dims": [-4]}, "a negative dimension"),
        ({"dims": [2**40]}, "beyond 2"),
        ({"slices": True}, "it is stored in slices"),
    ],
)
def test_entries_that_contradict_themselves(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    tensor = open_bundle(damaged(tmp_path, entry)).tensor("w")
    with pytest.raises(TilewrightError, match=message):
        _ = tensor.array


def test_a_missing_shard(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v", ARRAYS)
    (tmp_path / "v.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match=r"the file v\.data-00000-of-00001 is missing beside v\.index"):
        _ = open_bundle(tmp_path / "v").tensor("half").array


def test_names_that_share_nearly_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of the index make a name of thousands."""
    write_bundle(tmp_path / "v", {"a" * 4000 + str(number): np.zeros(1) for number in range(9)})
    assert len(open_bundle(tmp_path / "v").entries) == 9
    monkeypatch.setattr("tilewright.frontends.tensorflow.bundle.MAX_NAMES", 20_000)
    with pytest.raises(ModelError, match=r"v\.index is damaged \(its names take more than .* MiB"):
        open_bundle(tmp_path / "v")


def test_a_compressed_block(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v", {"w": np.zeros(1)})
    content = bytearray((tmp_path / "v.index").read_bytes())
    # The first block, of two entries, ends where its handle in the index block says; find its trailer.
    end = next(
        at for at in range(len(content) - 48)
        if int.from_bytes(content[at + 1 : at + 5], "little") == tensorflow_bundles.masked(bytes(content[: at + 1]))
    )  # fmt: skip
    content[end] = 1
    content[end + 1 : end + 5] = tensorflow_bundles.masked(bytes(content[: end + 1])).to_bytes(4, "little")
    (tmp_path / "v.index").write_bytes(content)
    with pytest.raises(UnsupportedError, match="the index of its variables is compressed"):
        open_bundle(tmp_path / "v")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of several blocks."""
    prefix = tmp_path_factory.mktemp("bundle") / "v"
    write_bundle(prefix, ARRAYS)
    return prefix


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_to_the_index_is_noticed(written: Path, data: st.DataObject) -> None:
    content = bytearray(written.with_name("v.index").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content = content[:at]
    written.with_name("damaged.index").write_bytes(content)
    try:
        found = open_bundle(written.with_name("damaged"))
    except TilewrightError:
        return
    # What nothing reads, such as the block of meta data, may be changed without notice.
    assert found.entries == open_bundle(written).entries
