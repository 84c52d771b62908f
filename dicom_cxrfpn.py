"""A DICOM file -> 8-bit grey pixels, what its header says of the patient, and notes."""

import io
import re
import warnings
import zlib

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_header_cxrfpn import kind_notes, read_patient
    from .dicom_tags_cxrfpn import Header, text, whole
    from .dicom_values_cxrfpn import shown_values
    from .frames_cxrfpn import frame_values
    from .patient_cxrfpn import Patient, unique
    from .pixels_cxrfpn import RadiographError, check_size, grey_of_array, printable, stretch_to_8_bits
except ImportError:
    from dicom_header_cxrfpn import kind_notes, read_patient
    from dicom_tags_cxrfpn import Header, text, whole
    from dicom_values_cxrfpn import shown_values
    from frames_cxrfpn import frame_values
    from patient_cxrfpn import Patient, unique
    from pixels_cxrfpn import RadiographError, check_size, grey_of_array, printable, stretch_to_8_bits

# Of a file, in bytes, inflated too.
MAX_BYTES = 2**30
# Of what stands before the pixels; and of a pixel, of three samples of 32 bits.
HEADER_BYTES, PIXEL_BYTES = 2**24, 12
GZIP = b"\x1f\x8b"
# Pieces that are read of a DICOM file besides one a kilobyte: two for each element, of which a radiograph has hundreds.
MAX_READS = 50_000
DICOM_SUFFIXES = (".dcm", ".dicom")
# How a DICOM data set begins that lacks the mark: an element of group 2 or 8, explicit (VR) or implicit (length).
BARE_DICOM = re.compile(
    rb"[\x02\x08]\0[\x00-\x20]\0(?:[A-Z]{2}|[\x00-\x40]\0\0\0)|\0\x08\0[\x00-\x20][A-Z]{2}", re.DOTALL
)
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"


class _DeflatedError(Exception):
    """Raised when pydicom is about to inflate the rest of a file, for which it has no limit."""


class _Counted(io.BytesIO):
    """A DICOM file in memory that pydicom, which reads each element by itself, may read so many pieces of."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name, self.left = name, MAX_READS + len(data) // 1024

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:  # asked for by pydicom of a deflated data set alone
            raise _DeflatedError
        self.left -= 1
        if self.left < 0:
            raise RadiographError(f"{self.name}: has more elements than a radiograph needs; save its pixels alone")
        return super().read(size)


def is_dicom(data: bytes, name: str) -> bool:
    """Return whether to read a file as DICOM: by its mark, its name or, as old archives lack both, its first bytes."""
    return data[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES) or BARE_DICOM.match(data) is not None


def read_dicom(data: bytes, name: str, max_pixels: int) -> tuple[np.ndarray, dict[str, object]]:
    """Read the bytes of a DICOM file.

    Returns:
        pixels [H,W] uint8 with bone bright and padding black, and the other fields of a `Radiograph`: `age` (years),
        `sex`, `view_position` and `notes`.

    Raises:
        RadiographError: pydicom is not installed; no pixels, several frames, too large, or broken.
    """
    try:
        dataset = _parse(data, name, min(MAX_BYTES, HEADER_BYTES + PIXEL_BYTES * max_pixels))
        _complete(dataset, name, max_pixels)
        _unwrap(dataset)
        pixels, notes = _grey(dataset, name, max_pixels)
        patient = read_patient(dataset)
        notes = unique((*patient.notes, *kind_notes(dataset), *notes))
    except (RadiographError, MemoryError):
        raise
    except ImportError:
        raise RadiographError(f"{name}: is a DICOM file; install pydicom to read it") from None
    except Exception:  # pydicom raises many kinds of error on broken files
        raise RadiographError(f"{name}: the DICOM file is damaged and cannot be decoded; export it again") from None
    return pixels, {**patient.values(), "notes": notes}


def read_dicom_patient(data: bytes, name: str) -> Patient | None:
    """Return what the header of a DICOM file, which may lie in gzip, says of the patient; unknown if it is broken.

    No pixel is decoded, and of a deflated file no more than HEADER_BYTES are inflated.

    Returns:
        None for any other file.
    """
    try:
        if data.startswith(GZIP):
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, HEADER_BYTES)
            name = re.sub(r"\.gz$", "", name, flags=re.IGNORECASE)
        return read_patient(_parse(data, name, None, stop_before_pixels=True)) if is_dicom(data, name) else None
    except Exception:  # a file that cannot be read is refused where its picture is asked for
        return Patient()


def _parse(data: bytes, name: str, most: int | None, **options: bool) -> Header:
    """Return pydicom's data set.

    Args:
        most: bytes that a deflated file may inflate to; None reads as much of it as a header takes.
        options: of pydicom's `dcmread`.
    """
    import pydicom

    # What pydicom warns of is read as viewers read it, noted, or refused in a line of ours.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    file = _Counted(data, name)
    try:
        dataset = pydicom.dcmread(file, force=True, **options)
    except _DeflatedError:
        inflated = _inflate(data[file.tell() :], name, most)
        dataset = pydicom.dcmread(_Counted(inflated, name), force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a data set alone, as old archives keep them
        _, is_little_endian = dataset.original_encoding
        syntaxes = pydicom.uid.ExplicitVRBigEndian, pydicom.uid.ImplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntaxes[is_little_endian is not False]
    return dataset


def _complete(dataset: Header, name: str, max_pixels: int) -> None:
    """Refuse what holds no picture, or several; give the header what decoders need and writers leave out."""
    if "PixelData" not in dataset:
        kind = "is a DICOMDIR, the index of a folder" if "DirectoryRecordSequence" in dataset else "has no pixels"
        raise RadiographError(f"{name}: the DICOM file {kind}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise RadiographError(f"{name}: pixels coded as {printable(syntax)} are not read; save it uncompressed")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not rows or not columns:
        raise RadiographError(f"{name}: the DICOM header does not say how many rows and columns there are")
    check_size(columns, rows, name, max_pixels)
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


def _grey(dataset: Header, name: str, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the pixels as a viewer would show them, [H,W] uint8, and what is to be noted of them."""
    photometric = text(dataset, "PhotometricInterpretation")
    frame = frame_values(dataset, name)
    if photometric == "PALETTE COLOR":  # the values are places in a table of colours
        from pydicom.pixels import apply_color_lut

        try:
            frame = apply_color_lut(frame, dataset)
        except Exception:  # pydicom raises many kinds
            raise RadiographError(f"{name}: its palette of colours is missing or broken; export it as grey") from None
    if frame.ndim == 3:
        return grey_of_array(frame, name, max_pixels), ()
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


def _unwrap(dataset: Header) -> None:
    """Take the pixels of an encapsulated uncompressed file out of their capsule."""
    if dataset.file_meta.TransferSyntaxUID == ENCAPSULATED_UNCOMPRESSED:
        from pydicom.encaps import generate_frames
        from pydicom.uid import ExplicitVRLittleEndian

        dataset.PixelData = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _inflate(data: bytes, name: str, most: int | None) -> bytes:
    """Inflate the data set of a deflated file, as explained at `_parse`; never more than is allowed."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflate.decompress(data, HEADER_BYTES if most is None else most)
    if most is not None and not inflate.eof:
        if len(content) < most:
            raise RadiographError(f"{name}: is cut short: its deflated data set does not end")
        raise RadiographError(f"{name}: inflates to more than {most >> 20} MB; save it uncompressed")
    return content
