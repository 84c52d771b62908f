"""The compressed frame of a DICOM file: which one it is, whether it fits its header, and what decodes it."""

import struct
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .dicom_tags_cxrfpn import Header, text
    from .pixels_cxrfpn import RadiographError
    from .structure_cxrfpn import bounded
except ImportError:
    from dicom_tags_cxrfpn import Header, text
    from pixels_cxrfpn import RadiographError
    from structure_cxrfpn import bounded

# The decoder of each coding, as pydicom calls it, and the module that it needs. Only one is tried: pydicom
# would go on to the next where one refuses a frame, and GDCM, which ends the process on some broken frames, is for
# what nothing else decodes.
JPEG, JPEG_2000, JPEG_LS, GDCM = ("pillow", "PIL"), ("pylibjpeg", "openjpeg"), ("pyjpegls", "jpeg_ls"), ("gdcm", "gdcm")
# Modules -> the packages to install.
PACKAGES = {"openjpeg": "pylibjpeg and pylibjpeg-openjpeg", "jpeg_ls": "pyjpegls", "gdcm": "python-gdcm"}
DECODERS = {
    "1.2.840.10008.1.2.4.50": JPEG,
    "1.2.840.10008.1.2.4.51": JPEG,
    "1.2.840.10008.1.2.4.57": GDCM,
    "1.2.840.10008.1.2.4.70": GDCM,
    "1.2.840.10008.1.2.4.80": JPEG_LS,
    "1.2.840.10008.1.2.4.81": JPEG_LS,
    "1.2.840.10008.1.2.4.90": JPEG_2000,
    "1.2.840.10008.1.2.4.91": JPEG_2000,
    "1.2.840.10008.1.2.4.201": JPEG_2000,
    "1.2.840.10008.1.2.4.202": JPEG_2000,
    "1.2.840.10008.1.2.4.203": JPEG_2000,
    "1.2.840.10008.1.2.5": ("pydicom", "pydicom"),
}
JPEG_LS_SYNTAXES = [syntax for syntax, decoder in DECODERS.items() if decoder == JPEG_LS]
RLE, JPEG_EXTENDED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.51"
# JPEG 2000 makes room for every tile before it decodes one; those of 256 x 256 of a full image are fewer.
MAX_TILES = 4096
# Looked at for the start of a frame, which seldom stands behind the tenth.
MAX_SEGMENTS = 70_000
# The boxes of a JP2 file that may stand before its codestream, and the one that holds it.
JP2_BOXES = (b"jP  ", b"ftyp", b"jp2h", b"uuid", b"xml ", b"jp2c")


@dataclass(frozen=True)
class Codestream:
    """What a compressed frame says of itself: its size in pixels, its components and the bits of each."""

    width: int
    height: int
    components: int
    bits: int
    tiles: int = 1


def frame_values(dataset: Header, name: str) -> np.ndarray:
    """Decode the only frame of a data set.

    A compressed frame is checked against the header first, since decoders make room for what the frame says.

    Args:
        dataset: of pydicom, of one frame; its compressed pixels become those of the frame that is decoded.
        name: what errors call it.

    Returns:
        what is stored, unused bits included, [H,W] or, of colours, [H,W,3].

    Raises:
        RadiographError: the pixels are cut, the frame disagrees with the header, or its decoder is not installed.
    """
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    # One of a colour space that it does not know decides nothing here: of one sample, the values are what is stored.
    colours = text(dataset, "PhotometricInterpretation") if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    options = {"correct_unused_bits": False, "photometric_interpretation": colours or "RGB"}
    if not syntax.is_encapsulated:
        _check_length(dataset, colours, name)
        return get_decoder(syntax).as_array(dataset, allow_excess_frames=False, **options)[0]
    if syntax not in DECODERS:
        raise RadiographError(f"{name}: pixels coded as {syntax.name} are not read; save it uncompressed")
    frame = _keep_one_frame(dataset, name)
    if syntax != RLE:  # runs say no size: their room is the header's
        _check_frame(frame, dataset, name)
    is_deep = syntax == JPEG_EXTENDED and dataset.BitsStored > 8
    plugin, package = GDCM if is_deep else DECODERS[syntax]
    if find_spec(package) is None:
        needed = PACKAGES.get(package, package)
        raise RadiographError(f"{name}: pixels coded as {syntax.name} need {needed}; install it to read them")
    try:
        if is_deep:
            return _decode_12_bit_jpeg(frame, dataset.Rows, dataset.Columns)
        return get_decoder(syntax).as_array(dataset, decoding_plugin=plugin, **options)[0]
    except MemoryError:
        raise
    except Exception:  # the decoders' own words help nobody
        raise RadiographError(
            f"{name}: its pixels cannot be decoded as {syntax.name}; they are damaged, or of a kind that is not read"
        ) from None


def _check_length(dataset: Header, colours: str, name: str) -> None:
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    expected = -(-bits // 8) * 2 // 3 if colours == "YBR_FULL_422" else -(-bits // 8)
    if (there := len(dataset.PixelData)) < expected:
        raise RadiographError(f"{name}: is cut short: {there:,} of {expected:,} bytes of its pixels are there")


def _decode_12_bit_jpeg(frame: bytes, rows: int, columns: int) -> np.ndarray:
    """Decode JPEG Extended of 12 bits by GDCM, which pydicom does not trust with it."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "<u2").reshape(rows, columns)


def _keep_one_frame(dataset: Header, name: str) -> bytes:
    """Return the first frame, and leave no other to decode."""
    from pydicom.encaps import encapsulate, generate_frames

    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    if dataset.file_meta.TransferSyntaxUID not in JPEG_LS_SYNTAXES:
        frame = bounded(frame, name)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    dataset.PixelData = encapsulate([frame])
    return frame


def _check_frame(frame: bytes, dataset: Header, name: str) -> None:
    said = read_codestream(frame)
    if said is None:
        raise RadiographError(f"{name}: its compressed pixels do not say their size; save it uncompressed")
    if (said.width, said.height) != (dataset.Columns, dataset.Rows):
        raise RadiographError(
            f"{name}: its pixels are {said.width} x {said.height}, but its header says "
            f"{dataset.Columns} x {dataset.Rows}"
        )
    if said.components != dataset.SamplesPerPixel:
        raise RadiographError(
            f"{name}: its pixels have {said.components} components, but its header says {dataset.SamplesPerPixel}"
        )
    if not 1 <= said.bits <= dataset.BitsAllocated:
        raise RadiographError(
            f"{name}: its pixels have {said.bits} bits, but its header has room for {dataset.BitsAllocated}"
        )
    if said.tiles > MAX_TILES:
        raise RadiographError(f"{name}: its pixels are cut into more than {MAX_TILES} tiles; save it uncompressed")


def read_codestream(frame: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 frame; None where it has none."""
    if frame.startswith(b"\xff\xd8"):
        return _read_jpeg(frame)
    return _read_jpeg_2000(frame, _jp2_codestream(frame))


def _read_jpeg(frame: bytes) -> Codestream | None:
    place = 2
    for _ in range(MAX_SEGMENTS):
        if place + 10 > len(frame) or frame[place] != 0xFF:
            break
        marker = frame[place + 1]
        if marker == 0xFF:  # any number of them may stand before a marker
            place += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            bits, height, width, components = struct.unpack_from(">BHHB", frame, place + 4)
            return Codestream(width, height, components, bits)
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None


def _read_jpeg_2000(frame: bytes, place: int) -> Codestream | None:
    if frame[place : place + 4] != b"\xff\x4f\xff\x51" or place + 43 > len(frame):
        return None
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components, depth = struct.unpack_from(
        ">8IHB", frame, place + 8
    )
    if not (tile_width and tile_height):
        return None
    tiles = -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height)
    return Codestream(right - left, bottom - top, components, (depth & 0x7F) + 1, tiles)


def _jp2_codestream(frame: bytes) -> int:
    """Where a JPEG 2000 codestream begins: behind the boxes of a JP2 file, which DICOM forbids and decoders take."""
    place = 0
    while (box := frame[place : place + 8])[4:] in JP2_BOXES:
        if box[4:] == b"jp2c":
            return place + (16 if box[:4] == b"\x00\x00\x00\x01" else 8)
        place += max(int.from_bytes(box[:4]), 8)
    return place
