"""Any input gives a radiograph or one line: arbitrary bytes, mutated files, arrays and patients."""

import math
import re
import warnings
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from cxrfpn.prediction.inputs import InputError, match_patients, read_patients
from demo.reading import patient_from_form
from patient_cxrfpn import Patient
from pixels_cxrfpn import RadiographError
from radiograph_cxrfpn import read_radiograph
from tests.hardening.corpus import drawing, sound_pictures
from tests.hardening.dicoms import sound_dicoms

# The same examples on every run, and no more of them than fit into a few seconds.
QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
NAMES = st.sampled_from(["a.png", "a.jpg", "a.tif", "a.dcm", "a"])
MARKS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"RIFF\0\0\1\0WEBP",
    bytes(128) + b"DICM",
]
MUTATED = ["grey.png", "deep.png", "palette.png", "grey.jpg", "progressive.jpg", "grey.webp", "grey.tif", "lzw.tif",
           "white_zero.tif", "deep.jp2", "deep.npy", "grey.png.gz", "padded.dcm", "packed_table.dcm", "no_sign.dcm",
           "raw_12.dcm", "rle.dcm", "jpeg.dcm", "jpeg_2000.dcm", "deflated.dcm", "table.dcm"]  # fmt: skip


def read_or_refused(source: object, name: str) -> None:
    """Grey levels that differ, or one short line that begins with the name."""
    try:
        pixels = read_radiograph(source, name, 142).pixels
    except RadiographError as error:
        said = str(error)
        assert said.startswith(f"{name}: ") and len(said) < 500 and not CONTROLS.search(said)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.min() < pixels.max()


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    dicoms = sound_dicoms(drawing())
    return sound_pictures() | {f"{name}.dcm": data for name, data in dicoms.items()}


@QUICK
@given(mark=st.sampled_from(MARKS), rest=st.binary(max_size=600), name=NAMES)
def test_arbitrary_bytes(mark, rest, name):
    read_or_refused(mark + rest, name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MUTATED)
@settings(QUICK, max_examples=40)
@given(data=st.data())
def test_mutated_files(sound, name, data):
    """Pieces overwritten, cut out, doubled and put elsewhere."""
    content = bytearray(sound[name])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 40)))
        kind = data.draw(st.sampled_from(["overwrite", "cut", "double", "insert"]))
        if kind == "overwrite":
            content[start:stop] = data.draw(st.binary(min_size=stop - start, max_size=stop - start))
        elif kind == "cut":
            del content[start:stop]
        elif kind == "double":
            content[start:start] = content[start:stop]
        else:
            content[start:start] = data.draw(st.binary(max_size=20))
    read_or_refused(bytes(content), name)


KINDS = st.one_of(
    numpy_strategies.boolean_dtypes(),
    numpy_strategies.integer_dtypes(endianness="?"),
    numpy_strategies.unsigned_integer_dtypes(endianness="?"),
    numpy_strategies.floating_dtypes(endianness="?"),
    numpy_strategies.complex_number_dtypes(),
    numpy_strategies.datetime64_dtypes(),
    numpy_strategies.unicode_string_dtypes(max_len=3),
)
SHAPES = st.one_of(
    numpy_strategies.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
    st.sampled_from([(300, 260), (1, 700), (700, 1), (260, 256, 3), (4, 256, 256)]),
)


@settings(QUICK, max_examples=300)
@example(np.array([[-1e308, 1e308]]))
@example(np.array([[0.0, 5e-324]]))
@example(np.array([[0.0, np.inf]]))
@example(np.array([[2**62, 2**62 + 1]]))
@example(np.full((300, 300), 2**64 - 1, np.uint64) - np.arange(300, dtype=np.uint64))
@example(np.where(np.arange(256 * 256).reshape(256, 256) % 2, 2**63 - 1, -(2**63)))
@given(numpy_strategies.arrays(KINDS, SHAPES))
def test_arbitrary_arrays(array):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an overflow, or a NaN made whole, would be a wrong picture
        read_or_refused(array, "array")


@settings(QUICK, max_examples=60)
@given(
    kind=st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool]),
    shape=st.lists(st.integers(0, 5), max_size=4),
    value=st.sampled_from([0.0, 1.0, math.nan, math.inf, 3e38]),
)
def test_arbitrary_tensors(kind, shape, value):
    tensor = torch.arange(math.prod(shape)).reshape(shape).to(kind)
    if kind.is_floating_point and tensor.numel():
        tensor.view(-1)[0] = value
    read_or_refused(tensor, "tensor")


def test_tensors_without_plain_values():
    grey = torch.arange(100.0).reshape(10, 10)
    read_or_refused(grey.requires_grad_(), "tensor")
    for tensor in (grey.detach().to_sparse(), torch.empty(10, 10, device="meta")):
        with pytest.raises(RadiographError, match="tensor: cannot be made an array"):
            read_radiograph(tensor, "tensor")


def test_files_that_are_open_in_a_wrong_way(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"plain text")
    with path.open() as text, pytest.raises(RadiographError, match="binary mode"):
        read_radiograph(text)
    with pytest.raises(RadiographError, match=r"a\.png: cannot be read \(.*closed file"):
        read_radiograph(text)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4), st.decimals(),
    st.lists(st.integers(), max_size=2), st.sampled_from(["63", "F", "m", " pa ", "AP", "nan", 10**400, "1" * 500]),
    st.sampled_from([np.float32("nan"), np.int64(63), np.zeros((20, 3)), Decimal("sNaN")]),
)  # fmt: skip


@settings(QUICK, max_examples=400)
@given(age=ANYTHING, sex=ANYTHING, view_position=ANYTHING)
def test_arbitrary_patients(age, sex, view_position):
    for patient in ({"age": age}, {"sex": sex}, {"view_position": view_position}):
        try:
            encoded = Patient(**patient).encode()
        except ValueError as error:
            assert len(str(error)) < 250 and not CONTROLS.search(str(error))
        else:
            assert all(math.isnan(number) or 0 <= number <= 1 for number in encoded)


@QUICK
@given(age=st.text(max_size=8))
def test_arbitrary_ages_on_the_page(age):
    try:
        years = patient_from_form(age, "F", "PA")["age"]
    except ValueError as error:
        assert "from 0 to 120" in str(error)
    else:
        assert years is None or 0 <= years <= 120


CELLS = st.one_of(st.text(max_size=6), st.sampled_from(["a.png", "63", "F", '"', "\n", "\0", ",,"]))
HEADERS = st.sampled_from(
    ["image,age\n", "image,age,sex,view_position\n", "Image Index,Patient Age\n", "\n", 'image,"a\nge"\n']
)


@QUICK
@given(header=HEADERS, rows=st.lists(st.lists(CELLS, max_size=5), max_size=4), tail=st.binary(max_size=6))
def test_arbitrary_tables_of_patients(tmp_path, header, rows, tail):
    table = tmp_path / "patients.csv"
    table.write_bytes((header + "\n".join(map(",".join, rows))).encode("utf-8", "surrogatepass") + tail)
    try:
        patients = read_patients(table)
    except InputError as error:
        assert not CONTROLS.search(str(error).removeprefix(f"{table}: "))
    else:
        inputs, _ = match_patients([tmp_path / "a.png"], patients)
        assert all(isinstance(value, str) and value for value in inputs[0].patient.values())
