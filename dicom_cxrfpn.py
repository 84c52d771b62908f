"""A DICOM file -> 8-bit grey pixels, and what its header says of the patient."""

import io
import re
import struct
import zlib
from typing import Any

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .pixels_cxrfpn import RadiographError, check_size, grey_of_array, in_one_line
except ImportError:
    from pixels_cxrfpn import RadiographError, check_size, grey_of_array, in_one_line

# Of a DICOM file that inflates, and of any other file.
MAX_BYTES = 2**30
DICOM_SUFFIXES = (".dcm", ".dicom")
# The transfer syntax (0002,0010) of a DICOM file that is deflated as a whole.
DEFLATED_DICOM = re.compile(rb"\x02\x00\x10\x00.{4}1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)

# The boxes of a JP2 file that may stand before its codestream, and the one that holds it.
JP2_BOXES = (b"jP  ", b"ftyp", b"jp2h", b"uuid", b"xml ", b"jp2c")


def is_dicom(data: bytes, name: str) -> bool:
    """Whether a file is to be read as DICOM: by its mark, or, as old archives leave that out, by its name."""
    return data[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES)


def read_dicom(data: bytes, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the bytes of a DICOM file.

    Returns:
        pixels [H,W] uint8, the windowed grey levels with bone bright, and `age` (years), `sex` ("M", "F") and
        `view_position` ("PA", "AP"), each None where the header is silent or says something else.

    Raises:
        RadiographError: pydicom is not installed; no pixels, several frames, too large, or broken.
    """
    try:
        import pydicom
    except ImportError:
        raise RadiographError(f"{name}: is a DICOM file; install pydicom to read it") from None
    try:
        _check_inflated(data, name)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # a data set alone, as old archives keep them
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        header = _header(dataset, name)
        pixels = grey_of_array(_shown_values(dataset), name)
        if str(dataset.PhotometricInterpretation) == "MONOCHROME1":  # the lowest value is the brightest
            pixels = 255 - pixels
    except RadiographError:
        raise
    except Exception as error:  # pydicom and its decoders raise whatever a broken file leads them to
        raise RadiographError(f"{name}: the DICOM file cannot be decoded ({in_one_line(error)})") from None
    return pixels, header


def _shown_values(dataset: Any) -> np.ndarray:
    """The pixels as a viewer would show them: through their palette, or through their modality and window."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    values = dataset.pixel_array
    if str(dataset.PhotometricInterpretation) == "PALETTE COLOR":  # the values are places in a table of colours
        return apply_color_lut(values, dataset)
    return apply_voi_lut(apply_modality_lut(values, dataset), dataset)


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


def _header(dataset: Any, name: str) -> dict[str, Any]:
    if "PixelData" not in dataset:
        raise RadiographError(f"{name}: the DICOM file has no pixels")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise RadiographError(f"{name}: has {dataset.NumberOfFrames} frames; give one radiograph a file")
    check_size(int(dataset.Columns), int(dataset.Rows), name)
    _check_coded_size(dataset, name)
    return {
        "age": _age(str(dataset.get("PatientAge") or "")),
        "sex": _known(dataset.get("PatientSex"), ("M", "F")),
        "view_position": _known(dataset.get("ViewPosition"), ("PA", "AP")),
    }


def _age(text: str) -> float | None:
    """An Age String (DICOM PS3.5, AS): three digits and D, W, M or Y."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", text)
    if match is None:
        return None
    years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return round(years, 2) if years <= 120 else None


def _known(value: Any, allowed: tuple[str, ...]) -> str | None:
    text = str(value or "").strip().upper()
    return text if text in allowed else None
