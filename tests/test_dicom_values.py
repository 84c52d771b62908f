"""DICOM pixels as the standard and the pixels say: the right picture by plain numpy beside what is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, Sequence, config
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from pixels_cxrfpn import RadiographError
from radiograph_cxrfpn import Radiograph, read_radiograph
from tests.hardening.dicoms import make_dicom, stored

BITS = "The header is wrong about the pixels' bits"
BORDER = 12


@pytest.fixture(scope="module")
def film(drawing: np.ndarray) -> np.ndarray:
    """The drawing, darker towards its top, as 12 bits with grain, [200,160] int."""
    lit = drawing * np.linspace(0.2, 1, len(drawing))[:, None]
    lit = (lit - lit.min()) * (4080 / (lit.max() - lit.min()))
    return (lit + np.random.default_rng(0).normal(0, 10, drawing.shape)).clip(0, 4095).astype(int)


@pytest.fixture(autouse=True)
def lenient_writing(monkeypatch: pytest.MonkeyPatch):
    """Let pydicom write what a header must not say."""
    for name in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(config.settings, name, config.IGNORE)


def read(values: np.ndarray, bits: int = 16, **tags: Any) -> Radiograph:
    """Write values [H,W] into a file of 16-bit pixels, and read it; keywords are its header's."""
    tags.setdefault("PixelData", (values & 0xFFFF).astype("<u2").tobytes())
    padding = {keyword: value for keyword, value in tags.items() if keyword.startswith("PixelPadding")}
    others = {keyword: value for keyword, value in tags.items() if keyword not in padding}
    dataset = make_dicom(values & 0xFFFF, bits, **{"BitsAllocated": 16, **others})
    for keyword, value in padding.items():
        dataset.add_new(keyword, "US" if value >= 0 else "SS", value)
    return read_radiograph(stored(dataset), "film.dcm")


def assert_shows(radiograph: Radiograph, right: np.ndarray, *notes: str) -> None:
    """Assert that the picture is the right one, up to its range, and which notes there are, by how they begin."""
    assert np.corrcoef(radiograph.pixels.ravel(), right.ravel())[0, 1] > 0.999
    assert [note[: len(words)] for note, words in zip(radiograph.notes, notes, strict=True)] == list(notes)
    assert len(np.unique(radiograph.pixels)) > 200  # of 256: nothing is squeezed


def table(descriptor: list[int], data: Any, vr: str = "US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if descriptor[1] >= 0 else "SS", descriptor)
    item.add_new("LUTData", vr, data if isinstance(data, bytes) else [int(value) for value in data])
    return Sequence([item])


def bordered(film: np.ndarray, value: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The film with a border of this value, and what is to be seen: the same with a black border."""
    inside = np.zeros(film.shape, bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    shown = np.where(inside, film - film[inside].min(), 0)
    return np.where(inside, film, value), shown


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
@pytest.mark.parametrize(
    ("value", "bits", "offset", "tags"),
    [
        (65535, 16, 0, {"PixelPaddingValue": 65535}),
        (0, 16, 0, {"PixelPaddingValue": 0}),
        (63536, 12, 0, {"PixelPaddingValue": 63536}),  # not of the stored bits
        (60123, 16, 0, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        (-32768, 16, -2000, {"PixelPaddingValue": -32768, "PixelRepresentation": 1}),
        (-32768, 16, -2000, {"PixelPaddingValue": 32768, "PixelRepresentation": 1}),  # the same bits, written unsigned
        (-2048, 12, -2047, {"PixelPaddingValue": -2048, "PixelRepresentation": 1}),
        (-30000, 16, 0, {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -29000, "PixelRepresentation": 1}),
    ],
)
def test_padding_is_black_and_none_of_the_range(film, photometric, window, value, bits, offset, tags):
    film = film.clip(1, 4094)  # a value of padding inside the film would be padding
    if photometric == "MONOCHROME1":
        film = 4095 - film
    values, _ = bordered(film + offset, value)
    _, right = bordered(4095 - film if photometric == "MONOCHROME1" else film, 0)
    if window:
        window = {**window, "WindowCenter": 2048 + offset}
    radiograph = read(values, bits, PhotometricInterpretation=photometric, **tags, **window)
    assert_shows(radiograph, right)
    assert (radiograph.pixels[:BORDER] == 0).all() and radiograph.pixels.max() == 255


def test_padding_is_none_of_the_range_of_a_large_film(film):
    """From 256 pixels a side on, the range is measured on squares: none of those that padding reaches into."""
    values, right = bordered(film.repeat(3, axis=0).repeat(3, axis=1), 65535)
    radiograph = read(values, PixelPaddingValue=65535)
    assert_shows(radiograph, right)
    assert (radiograph.pixels[:BORDER] == 0).all()


def test_padding_is_compared_before_the_modality_and_noted_where_it_is_most(film):
    values, right = bordered(film, 5000)
    assert_shows(read(values, PixelPaddingValue=5000, RescaleSlope=2, RescaleIntercept=-5000), right)
    mostly = np.where(np.arange(200)[:, None] < 130, 5000, film)
    shown = np.where(np.arange(200)[:, None] < 130, 0, film - film[130:].min())
    assert_shows(read(mostly, PixelPaddingValue=5000), shown, "Padding fills 65% of the picture.")
    with pytest.raises(RadiographError, match="film.dcm: every pixel is padding"):
        read(np.full((20, 20), 7), PixelPaddingValue=7)


LEVELS = np.arange(4096)
RAMP = 8000 + 12 * LEVELS


@pytest.mark.parametrize(
    ("offset", "descriptor", "data", "vr"),
    [
        (0, [4096, 0, 8], LEVELS >> 4, "US"),  # 8-bit entries, one in a word
        (0, [4096, 0, 8], bytes(value >> 4 for value in range(4096)), "OW"),  # two in a word
        (0, [4096, 0, 8], np.frombuffer(bytes(value >> 4 for value in range(4096)), "<u2"), "US"),
        (0, [4095, 0, 8], bytes(value >> 4 for value in range(4095)) + b"\0", "OW"),  # of an odd number
        (0, [4096, 0, 10], LEVELS >> 2, "US"),
        (0, [4096, 0, 16], RAMP, "US"),
        (0, [4096, 0, 16], RAMP.astype("<u2").tobytes(), "OW"),
        (0, [0, 0, 16], LEVELS.repeat(16), "US"),  # 0 stands for 65,536 entries
        (0, [4090, 6, 16], RAMP[6:], "US"),
        (-2000, [4096, -2000, 16], RAMP, "US"),
        (-2000, [4096, 63536, 16], RAMP, "US"),  # the first value written unsigned
        (0, [4096, 0, 16], RAMP[:4000], "US"),  # shorter than it says
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_of_any_length_depth_and_packing(film, sequence, photometric, offset, descriptor, data, vr):
    values = (film if descriptor[0] else film * 16) + offset
    data = data if isinstance(data, bytes) else np.asarray(data, int) % 65536
    tags = {"PixelRepresentation": int(offset < 0), "PhotometricInterpretation": photometric}
    right = film if photometric == "MONOCHROME2" else 4095 - film
    assert_shows(read(values, **{sequence: table(descriptor, data, vr)}, **tags), right)


def test_a_table_in_a_big_endian_file(film):
    words = RAMP.astype(">u2").tobytes()
    dataset = make_dicom(film, 16, ExplicitVRBigEndian, VOILUTSequence=table([4096, 0, 16], words, "OW"))
    assert_shows(read_radiograph(stored(dataset)), film)


@pytest.mark.parametrize(
    ("tags", "right"),
    [
        ({"WindowCenter": [0, 2048], "WindowWidth": [0, 4096]}, lambda film: film),
        ({"WindowCenter": [9e5, 2000], "WindowWidth": [2, 3000]}, lambda film: film.clip(500, 3500)),
        ({"WindowCenter": 2000, "WindowWidth": 1000.5}, lambda film: film.clip(1499.75, 2499.75)),
        ({"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}, lambda f: f.clip(1500, 2500)),
        ({"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "MAGIC"}, lambda f: f.clip(1500, 2499)),
        (
            {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
            lambda film: 1 / (1 + np.exp(-4 * (film - 2000) / 1500)),
        ),
        (
            {"RescaleSlope": "0.0002", "RescaleIntercept": "0", "WindowCenter": "0.4", "WindowWidth": "0.6"},
            lambda film: (film * 0.0002).clip(0.1, 0.7),
        ),
        ({"RescaleSlope": None, "RescaleIntercept": None}, lambda film: film),
        ({"RescaleSlope": None, "RescaleIntercept": "-1000", "WindowCenter": None, "WindowWidth": ""}, lambda f: f),
        ({"RescaleSlope": "-1", "RescaleIntercept": "4095"}, lambda film: 4095 - film),
        (
            {"VOILUTSequence": table([4096, 0, 16], [7, 7]), "WindowCenter": 2000, "WindowWidth": 3000},
            lambda film: film.clip(500, 3500),
        ),
    ],
)  # fmt: skip
def test_windows_and_rescaling_as_a_viewer_takes_them(film, tags, right):
    dataset = make_dicom(film, 16)
    for keyword, value in tags.items():
        if value in (None, ""):  # there, and empty
            dataset.add_new(keyword, "DS", value)
        else:
            setattr(dataset, keyword, value)
    assert_shows(read_radiograph(stored(dataset)), right(film))


def test_what_cannot_be_used_is_left_out_with_a_note(film):
    far = read(film, WindowCenter=1_000_000, WindowWidth=1)
    assert_shows(far, film, "No window in the header shows the picture")
    assert_shows(read(film, RescaleSlope=0, RescaleIntercept=0), film, "The header's rescale slope or intercept")
    with pytest.raises(RadiographError, match="its rescaled values are not finite"):
        read(film, RescaleSlope="1e308", RescaleIntercept="1e308")


def test_an_enhanced_file_of_one_frame(film):
    """What concerns a frame stands in sequences of its own, shared by all frames or one for each."""

    def group(macro: str, **tags: Any) -> Dataset:
        inner, outer = Dataset(), Dataset()
        for keyword, value in tags.items():
            setattr(inner, keyword, value)
        setattr(outer, macro, Sequence([inner]))
        return outer

    dataset = make_dicom(film - 1000, 16, PixelRepresentation=1, NumberOfFrames=1)
    dataset["PixelData"].value = (film - 1000).astype("<i2").tobytes()
    rescale = group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=2000)
    window = group("FrameVOILUTSequence", WindowCenter=2000, WindowWidth=3000)
    dataset.SharedFunctionalGroupsSequence = Sequence([rescale])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([window])
    assert_shows(read_radiograph(stored(dataset)), (film * 2).clip(500, 3500))


@pytest.mark.parametrize(
    ("photometric", "tags", "is_negative", "notes"),
    [
        ("MONOCHROME2", {"PresentationLUTShape": "IDENTITY"}, False, ()),
        ("MONOCHROME1", {"PresentationLUTShape": "INVERSE"}, True, ()),
        ("MONOCHROME2", {"PresentationLUTShape": "INVERSE"}, True, ("The header says MONOCHROME2 with an INVERSE",)),
        ("MONOCHROME1", {"PresentationLUTShape": "IDENTITY"}, True, ("The header says MONOCHROME1 with an IDENTITY",)),
        (None, {}, False, ("The header does not say whether low values",)),
        ("MONOCHROME2", {"PixelIntensityRelationshipSign": -1}, False, ()),
        ("MONOCHROME1", {"PixelIntensityRelationshipSign": 1}, True, ()),
        ("MONOCHROME2", {"PixelIntensityRelationshipSign": 1}, False, ("The header contradicts itself",)),
        ("MONOCHROME2", {"PresentationIntentType": "FOR PRESENTATION"}, False, ()),
        *(
            (photometric, {"PresentationIntentType": "FOR PROCESSING", **sign}, is_negative, ("The pixels are FOR",))
            for photometric, sign, is_negative in [
                ("MONOCHROME2", {}, False),
                ("MONOCHROME1", {}, True),
                ("MONOCHROME2", {"PixelIntensityRelationshipSign": 1}, True),
                ("MONOCHROME2", {"PixelIntensityRelationshipSign": -1}, False),
                ("MONOCHROME1", {"PixelIntensityRelationshipSign": 1}, True),
            ]
        ),
    ],
)  # fmt: skip
def test_the_film_is_never_shown_as_its_negative(film, photometric, tags, is_negative, notes):
    values = 4095 - film if is_negative else film
    assert_shows(read(values, PhotometricInterpretation=photometric, **tags), film, *notes)


@pytest.mark.parametrize(
    ("bits", "offset", "tags", "notes"),
    [
        (10, 0, {}, (BITS,)),
        (8, 0, {}, (BITS,)),
        (12, 0, {"HighBit": 15}, (BITS,)),  # lie low
        (12, 0, {"PixelRepresentation": 1}, (BITS,)),  # not signed
        (16, -2000, {}, (BITS,)),  # signed
        (12, -2000, {}, (BITS,)),
        (16, -2000, {"PixelRepresentation": 1}, ()),
        (12, -2048, {"PixelRepresentation": 1}, ()),
        (14, 0, {}, ()),
    ],
)
def test_bits_that_the_header_gets_wrong_are_read_as_they_are(film, bits, offset, tags, notes):
    assert_shows(read(film + offset, bits, **tags), film, *notes)


def test_bits_that_lie_high_or_hold_an_overlay_are_taken_as_the_header_says(film):
    assert_shows(read(film << 4, 12, HighBit=15), film)
    overlay = (np.random.default_rng(1).random(film.shape) < 0.02).astype(int) << 13
    assert_shows(read(film | overlay, 12), film)
    signs_cut_off = (film - 2048) & 0xFFF
    assert_shows(read(signs_cut_off, 12, PixelRepresentation=1), film)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless])
def test_bits_are_read_as_they_are_in_other_codings(film, syntax):
    dataset = make_dicom(film, 12, ExplicitVRLittleEndian if syntax == RLELossless else syntax)
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 10, 9
    assert_shows(read_radiograph(stored(dataset)), film, BITS)


@pytest.mark.parametrize("signed", [False, True])
def test_pixels_of_32_bits(film, signed):
    values = film * 70_000 - signed * 2**27
    dataset = make_dicom(film, 16, BitsAllocated=32, BitsStored=32, HighBit=31, PixelRepresentation=int(signed))
    dataset["PixelData"].value = values.astype("<i4" if signed else "<u4").tobytes()
    assert_shows(read_radiograph(stored(dataset)), film)


def test_encapsulated_uncompressed_and_files_without_preamble_or_suffix(film, tmp_path: Path):
    plain = make_dicom(film, 12)
    data = stored(plain)
    bare = tmp_path / "IM0001"
    bare.write_bytes(data[132:])  # the file's meta information is left, without its mark
    assert_shows(read_radiograph(bare), film)
    bare.write_bytes(data[data.index(b"\x08\x00\x16\x00") :])  # a data set alone
    assert_shows(read_radiograph(bare), film)
    wrapped = make_dicom(film, 12, "1.2.840.10008.1.2.1.98", PixelData=encapsulate([film.astype("<u2").tobytes()]))
    wrapped["PixelData"].VR, wrapped["PixelData"].is_undefined_length = "OB", True
    assert_shows(read_radiograph(stored(wrapped)), film)


def test_what_cannot_be_shown_is_refused_with_the_reason(film):
    unknown = stored(make_dicom(film, 12)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    for data, words in [
        (unknown, "pixels coded as 1.2.840.10008.1.2.9 are not read"),
        (stored(make_dicom(film, 12, PhotometricInterpretation="PALETTE COLOR")), "its palette of colours is missing"),
        (stored(make_dicom(film, 12, Rows=None)), "does not say how many rows and columns"),
        (stored(make_dicom(film, 12, BitsAllocated=24)), "pixels of 1 samples and 24 bits are not read"),
        (stored(make_dicom(film, 12))[:-1000], "is cut short: 63,000 of 64,000 bytes of its pixels are there"),
    ]:
        with pytest.raises(RadiographError, match=words):
            read_radiograph(data, "film.dcm")


def test_pydicoms_own_files_are_read_or_refused_in_a_line_of_ours():
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    pictures, refusals = {}, {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "TINY" not in str(path)):
        name = path.relative_to(folder).as_posix()
        try:
            pictures[name] = read_radiograph(path, name).pixels
        except RadiographError as error:
            refusals[name] = str(error)
    assert len(pictures) > 60
    ours = ("has no pixels", "the index of a folder", "rows and columns", " frames; give one", "not an image",
            "is cut short", "is damaged", "save it uncompressed", "its header says")  # fmt: skip
    odd = {name: line for name, line in refusals.items() if not any(words in line for words in ours)}
    assert not odd and all(line.startswith(f"{name}: ") and "\n" not in line for name, line in refusals.items())
    for name in ("JPGExtended.dcm", "JPEG-lossy.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "zipMR.gz"):
        assert name in pictures, refusals.get(name)
    assert np.corrcoef(pictures["JPEG-lossy.dcm"].ravel(), pictures["JPEG2000.dcm"].ravel())[0, 1] > 0.9
    same = [pictures[name] for name in ("MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "zipMR.gz")]
    assert all((picture == same[0]).all() for picture in same)


@pytest.mark.parametrize(
    ("tags", "patient"),
    [
        ({"PatientAge": "81"}, (81, None, None)),
        ({"PatientAge": "006M", "PatientSex": "F", "ViewPosition": "AP SUPINE"}, (0.5, "F", "AP")),
        ({"PatientAge": "OLD", "PatientSex": "O", "ViewPosition": "?"}, (None, None, None)),
        ({"PatientAge": "000Y"}, (None, None, None)),
        ({"PatientAge": "000Y", "PatientBirthDate": "20190101", "StudyDate": "20190301"}, (0.1615, None, None)),
        ({"PatientBirthDate": "19600615", "StudyDate": "20200615"}, (60.0, None, None)),
        ({"PatientBirthDate": "1960.06.15", "AcquisitionDate": "20200615"}, (60.0, None, None)),
        ({"PatientBirthDate": "19000101", "StudyDate": "19500101"}, (None, None, None)),  # an anonymiser's date
        ({"PatientBirthDate": "20200615", "StudyDate": "19600615"}, (None, None, None)),
    ],
)
def test_the_patient_of_a_header(film, tags, patient):
    radiograph = read(film, **tags)
    age, sex, view_position = patient
    assert (radiograph.sex, radiograph.view_position) == (sex, view_position) and not radiograph.notes
    assert radiograph.age == (age if age is None else pytest.approx(age, abs=1e-3))


def test_what_is_no_frontal_chest_radiograph_by_its_header_is_noted(film):
    view = Dataset()
    view.CodeMeaning = "left lateral"
    for tags, words in [
        ({"ViewPosition": "LATERAL"}, "The view is lateral"),
        ({"ViewCodeSequence": Sequence([view])}, "The view is lateral"),
        ({"PatientOrientation": ["A", "F"]}, "The view is lateral"),
        ({"ViewPosition": "RAO"}, "The view is oblique"),
        ({"Modality": "CT"}, "The header says that the modality is CT"),
        ({"BodyPartExamined": "HAND"}, "The header says that the body part is HAND"),
        ({"PatientAge": "414Y"}, "The age '414Y' is outside"),
    ]:
        assert_shows(read(film, **tags), film, words)
    view.CodeMeaning = "postero-anterior"
    frontal = read(film, ViewCodeSequence=Sequence([view]), PatientOrientation=["L", "F"], Modality="DX")
    assert frontal.view_position == "PA" and not frontal.notes


def test_the_three_real_headers_give_their_ages(nih_mini: Path):
    ages = {path.name: read_radiograph(path).age for path in (nih_mini / "originals").glob("*.dcm")}
    assert ages == {"nih.dcm": 81, "rsna-pa.dcm": 62, "rsna-pa-tagged-monochrome1.dcm": 62}
