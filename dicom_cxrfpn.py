"""A DICOM file -> 8-bit grey pixels, what its header says of the patient, and notes."""

import io
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_header_cxrfpn import kind_notes, read_patient
    from .dicom_tags_cxrfpn import text, whole
    from .dicom_values_cxrfpn import shown_values
    from .patient_cxrfpn import Patient, unique
    from .pixels_cxrfpn import RadiographError, check_size, grey_of_array, stretch_to_8_bits
except ImportError:
    from dicom_header_cxrfpn import kind_notes, read_patient
    from dicom_tags_cxrfpn import text, whole
    from dicom_values_cxrfpn import shown_values
    from patient_cxrfpn import Patient, unique
    from pixels_cxrfpn import RadiographError, check_size, grey_of_array, stretch_to_8_bits

# Of a DICOM file that inflates, and of any other file.
MAX_BYTES = 2**30
DICOM_SUFFIXES = (".dcm", ".dicom")
# The transfer syntax (0002,0010) of a DICOM file that is deflated as a whole.
DEFLATED_DICOM = re.compile(rb"\x02\x00\x10\x00.{4}1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)

# How a DICOM data set begins that lacks the mark: an element of group 2 or 8, explicit (VR) or implicit (length).
BARE_DICOM = re.compile(
    rb"[\x02\x08]\0[\x00-\x20]\0(?:[A-Z]{2}|[\x00-\x40]\0\0\0)|\0\x08\0[\x00-\x20][A-Z]{2}", re.DOTALL
)
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"

# The boxes of a JP2 file that may stand before its codestream, and the one that holds it.
JP2_BOXES = (b"jP  ", b"ftyp", b"jp2h", b"uuid", b"xml ", b"jp2c")


def is_dicom(data: bytes, name: str) -> bool:
    """Whether a file is to be read as DICOM: by its mark, its name or, since old archives lack both, its beginning."""
    return data[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES) or BARE_DICOM.match(data) is not None


def read_dicom(data: bytes, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the bytes of a DICOM file.

    Returns:
        pixels [H,W] uint8 with bone bright and padding black, and the other fields of a `Radiograph`: `age` (years),
        `sex`, `view_position` and `notes`.

    Raises:
        RadiographError: pydicom is not installed; no pixels, several frames, too large, or broken.
    """
    try:
        _check_inflated(data, name)
        dataset = _parse(data)
        _complete(dataset, name)
        _unwrap(dataset)
        _check_coded_size(dataset, name)
        pixels, notes = _grey(dataset, name)
        patient = read_patient(dataset)
        notes = unique((*patient.notes, *kind_notes(dataset), *notes))
    except RadiographError:
        raise
    except ImportError:
        raise RadiographError(f"{name}: is a DICOM file; install pydicom to read it") from None
    except Exception:  # pydicom and its decoders raise whatever a broken file leads them to
        raise RadiographError(f"{name}: the DICOM file is damaged and cannot be decoded; export it again") from None
    return pixels, {**patient.values(), "notes": notes}


def read_dicom_patient(data: bytes) -> Patient:
    """Return what the header of a DICOM file says of the patient, without decoding the pixels; unknown if broken."""
    try:
        return read_patient(_parse(data, stop_before_pixels=True))
    except Exception:  # a file that cannot be read is refused where its picture is asked for
        return Patient()


def _parse(data: bytes, **options: Any) -> Any:
    import pydicom

    # What pydicom warns of is read as viewers read it, noted, or refused in a line of ours.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a data set alone, as old archives keep them
        _, is_little_endian = dataset.original_encoding
        syntaxes = pydicom.uid.ExplicitVRBigEndian, pydicom.uid.ImplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntaxes[is_little_endian is not False]
    return dataset


def _complete(dataset: Any, name: str) -> None:
    """Refuse what holds no picture, or several; give the header what decoders need and writers leave out."""
    if "PixelData" not in dataset:
        kind = "is a DICOMDIR, the index of a folder" if "DirectoryRecordSequence" in dataset else "has no pixels"
        raise RadiographError(f"{name}: the DICOM file {kind}")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not rows or not columns:
        raise RadiographError(f"{name}: the DICOM header does not say how many rows and columns there are")
    check_size(columns, rows, name)
    frames, samples = whole(dataset, "NumberOfFrames", 1) or 1, whole(dataset, "SamplesPerPixel", 1)
    if frames > 1:
        raise RadiographError(f"{name}: has {frames} frames; give one radiograph a file")
    allocated = whole(dataset, "BitsAllocated", 8 if whole(dataset, "BitsStored", 16) <= 8 else 16)
    if samples not in (1, 3) or allocated not in (1, 8, 16, 32):
        raise RadiographError(f"{name}: pixels of {samples} samples and {allocated} bits are not read")
    stored = whole(dataset, "BitsStored", allocated)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.NumberOfFrames = rows, columns, samples, 1
    dataset.BitsAllocated, dataset.BitsStored = allocated, stored if 1 <= stored <= allocated else allocated
    dataset.PixelRepresentation = int(whole(dataset, "PixelRepresentation") == 1)
    if samples == 3:
        dataset.PlanarConfiguration = int(whole(dataset, "PlanarConfiguration") == 1)


def _grey(dataset: Any, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels as a viewer would show them, [H,W] uint8, and what is to be noted of them."""
    photometric = text(dataset, "PhotometricInterpretation")
    frame = frame_values(dataset, name)
    if photometric == "PALETTE COLOR":  # the values are places in a table of colours
        from pydicom.pixels import apply_color_lut

        frame = apply_color_lut(frame, dataset)
    if frame.ndim == 3:
        return grey_of_array(frame, name), ()
    try:
        shown = shown_values(frame, dataset)
    except ValueError as error:
        raise RadiographError(f"{name}: {error}") from None
    pixels = stretch_to_8_bits(shown.values, name, shown.padding)
    if shown.is_inverted:
        pixels = 255 - pixels
    if shown.padding is not None:
        pixels = np.where(shown.padding, np.uint8(0), pixels)
    return pixels, shown.notes


def _unwrap(dataset: Any) -> None:
    """Take the pixels of an encapsulated uncompressed file out of their capsule."""
    if dataset.file_meta.TransferSyntaxUID == ENCAPSULATED_UNCOMPRESSED:
        from pydicom.encaps import generate_frames
        from pydicom.uid import ExplicitVRLittleEndian

        dataset.PixelData = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def frame_values(dataset: Any, name: str) -> np.ndarray:
    """Decode the only frame of a data set.

    Returns:
        what is stored, unused bits included, [H,W] or, of colours, [H,W,3].

    Raises:
        RadiographError: the pixels are cut, or of a coding that no installed decoder knows.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
        subsampled = text(dataset, "PhotometricInterpretation") == "YBR_FULL_422"
        expected = -(-bits // 8) * 2 // 3 if subsampled else -(-bits // 8)
        if (there := len(dataset.PixelData)) < expected:
            raise RadiographError(f"{name}: is cut short: {there:,} of {expected:,} bytes of its pixels are there")
    if syntax == JPEGExtended12Bit and dataset.BitsStored > 8:
        return _decode_12_bit_jpeg(dataset, name)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise RadiographError(f"{name}: pixels coded as {syntax.name} are not read; save it uncompressed") from None
    # One of a colour space that it does not know decides nothing here: of one sample, the values are what is stored.
    colours = text(dataset, "PhotometricInterpretation") if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    options = {"correct_unused_bits": False, "allow_excess_frames": False}
    return decoder.as_array(dataset, photometric_interpretation=colours or "RGB", **options)[0]


def _decode_12_bit_jpeg(dataset: Any, name: str) -> np.ndarray:
    """Decode JPEG Extended of 12 bits by GDCM, which pydicom does not trust with it."""
    try:
        import gdcm
    except ImportError:
        raise RadiographError(f"{name}: 12-bit JPEG needs python-gdcm; install it to read the file") from None
    from pydicom.encaps import generate_frames

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "<u2").reshape(dataset.Rows, dataset.Columns)


def _check_inflated(data: bytes, name: str) -> None:
    """Refuse what would take all of the memory before pydicom, which has no limit, inflates it."""
    if DEFLATED_DICOM.search(data) is None:
        return
    # (0002,0000), the first element after the mark, says where the deflated part begins.
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    inflate, left, piece = zlib.decompressobj(-zlib.MAX_WBITS), MAX_BYTES, 2**14
    for place in range(start, len(data), piece):
        left -= len(inflate.decompress(data[place : place + piece]))  # at most 1032 times as long
        if left < 0:
            raise RadiographError(f"{name}: inflates to more than {MAX_BYTES >> 30} GB; save it uncompressed")


def _check_coded_size(dataset: Any, name: str) -> None:
    """Refuse a compressed frame of another size than its header's: decoders make room for what the frame says."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLELossless:  # runs say no size: their room is the header's
        return
    size = _coded_size(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    if size is None:
        raise RadiographError(f"{name}: its compressed pixels do not say their size; save it uncompressed")
    if size != (dataset.Columns, dataset.Rows):
        raise RadiographError(
            f"{name}: its pixels are {size[0]} x {size[1]}, but its header says {dataset.Columns} x {dataset.Rows}"
        )


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height as a JPEG, JPEG-LS or JPEG 2000 frame says them; None where it does not."""
    if not frame.startswith(b"\xff\xd8"):  # no JPEG
        place = _codestream(frame)
        if frame[place : place + 4] == b"\xff\x4f\xff\x51" and place + 16 <= len(frame):
            return struct.unpack_from(">II", frame, place + 8)
        return None
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # any number of them may stand before a marker
            place += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return width, height
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None


def _codestream(frame: bytes) -> int:
    """Where a JPEG 2000 codestream begins: behind the boxes of a JP2 file, which DICOM forbids and decoders take."""
    place = 0
    while (box := frame[place : place + 8])[4:] in JP2_BOXES:
        if box[4:] == b"jp2c":
            return place + (16 if box[:4] == b"\x00\x00\x00\x01" else 8)
        place += max(int.from_bytes(box[:4]), 8)
    return place
