"""Files that crash, stall or fill their decoder cost one line each; the process and the files beside them are well."""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jpeg_ls
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

import decoding_cxrfpn
from pixels_cxrfpn import RadiographError
from predict import main
from radiograph_cxrfpn import read_radiograph
from tests.hardening.dicoms import (
    HIGH_THROUGHPUT,
    HIGH_THROUGHPUT_PIXELS,
    encapsulated,
    jpeg_of_12_bits,
    lossless_jpeg,
    make_dicom,
    stored,
)
from tests.security import ordered

FUZZED = 1500  # frames of each coding


@pytest.fixture(scope="module")
def sound(drawing) -> bytes:
    """A radiograph as lossless JPEG, which GDCM decodes."""
    deep = drawing.astype(np.uint16) * 16
    return stored(encapsulated(deep, JPEGLosslessSV1, lossless_jpeg(deep), bits=12))


@pytest.fixture
def workers(monkeypatch) -> decoding_cxrfpn._Workers:
    """Workers of this test alone."""
    workers = decoding_cxrfpn._Workers()
    monkeypatch.setattr(decoding_cxrfpn, "_workers", workers)
    yield workers
    workers.stop()


@pytest.fixture
def obedient(monkeypatch, workers) -> decoding_cxrfpn._Workers:
    """The same, which obey files that order them to crash."""
    monkeypatch.setattr(decoding_cxrfpn, "WORKER", Path(ordered.__file__))
    return workers


def test_a_file_that_ends_its_decoder_is_the_only_one_that_suffers(obedient, sound, drawing):
    """In threads, as archives are read."""

    def read(index: int) -> str | np.ndarray:
        try:
            return read_radiograph(sound + (ordered.CRASH if index % 3 == 0 else b""), f"{index}.dcm").pixels
        except RadiographError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        for index, outcome in enumerate(pool.map(read, range(9))):
            if index % 3 == 0:
                assert outcome.startswith(f"{index}.dcm: its compressed pixels cannot be decoded safely")
            else:
                assert np.array_equal(outcome, drawing)


def test_a_file_that_hangs_spins_or_fills_its_decoder_is_given_up(obedient, monkeypatch, sound):
    monkeypatch.setattr(decoding_cxrfpn, "limits_of", lambda _: {"cpu_seconds": 1, "memory": 2**30})
    with pytest.raises(RadiographError, match="x.dcm: .*cannot be decoded within 1 seconds"):
        read_radiograph(sound + ordered.SPIN, "x.dcm")
    with pytest.raises(RadiographError, match="x.dcm: needs too much memory"):
        read_radiograph(sound + ordered.FILL, "x.dcm")
    with pytest.raises(RadiographError, match="x.dcm: .*cannot be decoded within 1 seconds"):
        read_radiograph(sound + ordered.HANG, "x.dcm")


@pytest.mark.parametrize(
    ("syntax", "form", "options"), [(JPEG2000Lossless, "JPEG2000", {"no_jp2": True}), (JPEGBaseline8Bit, "JPEG", {})]
)
def test_a_frame_of_three_components_under_a_header_of_one_is_refused(drawing, syntax, form, options):
    file = io.BytesIO()
    Image.fromarray(np.dstack([drawing] * 3)).save(file, form, **options)
    with pytest.raises(RadiographError, match=r"^x.dcm: its pixels have 3 components, but its header says 1$"):
        read_radiograph(stored(encapsulated(drawing, syntax, file.getvalue())), "x.dcm")


@pytest.mark.parametrize("bits", [0, 17, 38])
def test_a_frame_of_more_bits_than_its_header_has_room_for_is_refused(sound, bits):
    frame = bytearray(sound)
    frame[sound.index(b"\xff\xc3") + 4] = bits
    with pytest.raises(RadiographError, match=f"its pixels have {bits} bits, but its header has room for 16"):
        read_radiograph(bytes(frame), "x.dcm")


def test_a_frame_of_a_million_tiles_is_refused(drawing):
    file = io.BytesIO()
    Image.fromarray(drawing).save(file, "JPEG2000", no_jp2=True)
    frame = bytearray(file.getvalue())
    frame[24:32] = b"\0\0\0\1\0\0\0\1"  # XTsiz and YTsiz
    with pytest.raises(RadiographError, match="cut into more than 4096 tiles"):
        read_radiograph(stored(encapsulated(drawing, JPEG2000, bytes(frame))), "x.dcm")


def test_a_file_that_needs_too_much_memory_is_refused(monkeypatch, workers, drawing):
    monkeypatch.setattr(decoding_cxrfpn, "limits_of", lambda _: {"cpu_seconds": 9, "memory": 2**29})
    pixels = np.zeros((5000, 5000), np.uint16)
    pixels[0] = 4095
    with pytest.raises(RadiographError, match="^x.dcm: needs too much memory"):
        read_radiograph(stored(make_dicom(pixels, RescaleSlope=2.5, WindowCenter=2000, WindowWidth=900)), "x.dcm")
    assert read_radiograph(stored(make_dicom(drawing, 8)), "y.dcm").pixels.shape == drawing.shape


def test_a_worker_that_died_between_two_files_is_replaced(workers, sound):
    read_radiograph(sound, "x.dcm")
    worker = workers.idle[0].process
    worker.kill()
    worker.wait()
    assert read_radiograph(sound, "x.dcm").pixels.any()


def test_a_frame_of_high_throughput_jpeg_2000_is_read_exactly():
    file = stored(encapsulated(HIGH_THROUGHPUT_PIXELS, HTJ2KLossless, HIGH_THROUGHPUT))
    assert np.array_equal(read_radiograph(file, "x.dcm").pixels, HIGH_THROUGHPUT_PIXELS)


def test_one_worker_reads_one_file_after_the_other(workers, sound):
    for _ in range(5):
        read_radiograph(sound, "x.dcm")
    assert len(workers.idle) == 1


def test_a_forked_process_has_workers_of_its_own(workers, sound, drawing):
    read_radiograph(sound, "x.dcm")
    child = os.fork()
    if child == 0:  # no assertion, nor pytest, may run on here
        same = all(np.array_equal(read_radiograph(sound, "x.dcm").pixels, drawing) for _ in range(20))
        decoding_cxrfpn._workers.stop()
        os._exit(0 if same else 1)
    for _ in range(20):
        assert np.array_equal(read_radiograph(sound, "x.dcm").pixels, drawing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_worker_holds_no_token_and_no_torch(monkeypatch, workers, sound):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    read_radiograph(sound, "x.dcm")
    place = Path("/proc", str(workers.idle[0].process.pid))
    assert b"hf_secret" not in (place / "environ").read_bytes()
    loaded = (place / "maps").read_text()
    assert "numpy" in loaded and "torch" not in loaded


def test_predict_and_archives_go_on_after_a_crash(obedient, package, sound, tmp_path, monkeypatch, capsys):
    files = {"a.dcm": sound, "b.dcm": sound + ordered.CRASH, "c.dcm": sound}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("sys.argv", ["predict.py", str(tmp_path), "--model", str(package), "--format", "json"])
    assert main() == 2
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in record for record in records] == [False, True, False]

    (tmp_path / "table.csv").write_text("\n".join(["image", *files]))
    arguments = ["--source", f"csv:{tmp_path / 'table.csv'}", "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["predict.py", *arguments, "--model", str(package)])
    assert main() == 0
    assert "1 of 3 images could not be read" in capsys.readouterr().err


def coded_frames(drawing: np.ndarray) -> dict[str, bytes]:
    """A sound DICOM of every coding that can be made here."""
    deep = drawing.astype(np.uint16) * 16
    jpeg = io.BytesIO()
    Image.fromarray(drawing).save(jpeg, "JPEG", progressive=True)
    files = {
        "raw": make_dicom(deep, syntax=ExplicitVRLittleEndian),
        "jpeg": encapsulated(drawing, JPEGBaseline8Bit, jpeg.getvalue()),
        "jpeg_extended": encapsulated(drawing, JPEGExtended12Bit, jpeg.getvalue()),
        "lossless_jpeg": encapsulated(deep, JPEGLosslessSV1, lossless_jpeg(deep), bits=12),
        "jpeg_of_12_bits": encapsulated(deep, JPEGExtended12Bit, jpeg_of_12_bits(deep), bits=12),
        "near_lossless": encapsulated(
            deep, JPEGLSNearLossless, bytes(jpeg_ls.encode_array(deep, lossy_error=9)), bits=12
        ),
        "high_throughput": encapsulated(HIGH_THROUGHPUT_PIXELS, HTJ2KLossless, HIGH_THROUGHPUT),
    }
    for name, syntax in (("rle", RLELossless), ("jpeg_2000", JPEG2000Lossless), ("jpeg_ls", JPEGLSLossless)):
        files[name] = make_dicom(deep)
        files[name].compress(syntax, generate_instance_uid=False)
    return {name: stored(dataset) for name, dataset in files.items()}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """The file with a few bytes of its frame changed, half of them in the frame's header, and some cut out."""
    start = data.index(b"\xe0\x7f\x10\x00") + 20
    changed = bytearray(data)
    length = 80 if random.random() < 0.5 else len(data) - start
    for place in random.integers(start, min(start + length, len(data)), random.integers(1, 6)):
        changed[place] = random.integers(0, 256)
    if random.random() < 0.15:
        place = random.integers(start, len(data))
        del changed[place : place + random.integers(1, 40)]
    return bytes(changed)


@pytest.mark.slow
def test_thousands_of_mutated_frames_of_every_coding_are_read_or_refused(drawing):
    """One that crashes its worker is refused too; this process reads on."""
    random = np.random.default_rng(25)
    for name, data in coded_frames(drawing[::2, ::2]).items():
        read, sound = 0, HIGH_THROUGHPUT_PIXELS if name == "high_throughput" else drawing[::2, ::2]
        assert read_radiograph(data, "x.dcm").pixels.shape == sound.shape, name
        for _ in range(FUZZED):
            try:
                read += read_radiograph(mutated(data, random), "x.dcm").pixels.any()
            except RadiographError as error:
                assert str(error).startswith("x.dcm: ") and str(error).isprintable(), name
        assert 0 < read < FUZZED, name
