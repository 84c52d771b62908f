"""DICOM files, sound ones of every coding and broken ones of every kind, as bytes; the same every time."""

import base64
import io
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import gdcm
import jpeg_ls
import numpy as np
from PIL import Image
from pydicom import Dataset, Sequence, config, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

ENCAPSULATED = (JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless)
DIGITAL_RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"
# HIGH_THROUGHPUT_PIXELS as OpenJPH 0.26 encodes them in HTJ2K, which no encoder of the test dependencies writes.
HIGH_THROUGHPUT_PIXELS = np.linspace(0, 255, 1024).reshape(32, 32).astype(np.uint8)
HIGH_THROUGHPUT = base64.b64decode(
    "/0//UQApQAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBIUFBQ"
    "UFBQUFBQUFBQSEhI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAANcAAf+TwCXnAId0AMASQBLAEYD+J3MAJAGHdAAAYwDA"
    "EkATQBIA/BJzAJCQAENUAP4AAwDAEsAVsASAgxVDFAAASAAJIADyAhApxgYA/kADAMAWhAFogAAAAAAA4AAABoAWypUn6gBEIYQQQvzv"
    "gAAD37AAD2WLAMAuxgFsQCYAAAAAAAAAAAAA4H5OeeeeeeS8888888lKUpSlLAAL5tttttvrbbbbbbbbbbbbbYYCcNu2bdu2/f9xyEnv"
    "2Se/ZJ79knstWqEB/P9EfAUA/9k="
)


def make_dicom(pixels: np.ndarray, bits: int = 12, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """A small digital radiograph of unsigned pixels; keywords change its header, and None deletes from it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = DIGITAL_RADIOGRAPH
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.14"
    dataset.SOPClassUID, dataset.SOPInstanceUID = DIGITAL_RADIOGRAPH, "1.2.3.14"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16).newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")
    # Its type is said, since pydicom would ask the other tags, which may be missing.
    dataset.add_new("PixelData", "OB" if syntax in ENCAPSULATED else "OW", pixels.astype(kind).tobytes())
    for tag, value in tags.items():
        if value is None:
            delattr(dataset, tag)
        elif tag == "PixelData":
            dataset[tag].value = value
        else:
            setattr(dataset, tag, value)
    return dataset


def stored(dataset: Dataset) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom would rather not write what is broken
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def sound_dicoms(drawing: np.ndarray) -> dict[str, bytes]:
    """One of every coding, depth and photometric interpretation that radiographs come in."""
    deep = drawing.astype(np.uint16) * 16
    colour = np.dstack([drawing] * 3)
    planes = colour.transpose(2, 0, 1).tobytes()
    signed = (deep.astype(np.int16) - 2000).tobytes()
    sound = {f"raw_{bits}": make_dicom(drawing.astype(np.uint32) * (2**bits - 1) // 255, bits) for bits in (8, 12, 16)}
    sound |= {
        "implicit": make_dicom(deep, syntax=ImplicitVRLittleEndian),
        "big_endian": make_dicom(deep, syntax=ExplicitVRBigEndian),
        "deflated": make_dicom(deep, syntax=DeflatedExplicitVRLittleEndian),
        "monochrome1": make_dicom(deep, PhotometricInterpretation="MONOCHROME1"),
        "signed": make_dicom(deep, PixelRepresentation=1, PixelData=signed),
        "rgb": make_dicom(colour, 8, PlanarConfiguration=0),
        "planes": make_dicom(colour, 8, PlanarConfiguration=1, PixelData=planes),
        "rescaled": make_dicom(deep, RescaleSlope=2.5, RescaleIntercept=-1024),
        "windowed": make_dicom(deep, WindowCenter=2000, WindowWidth=3000),
        "windows": make_dicom(deep, WindowCenter=[2000, 1000], WindowWidth=[3000, 500]),
        "table": make_dicom(drawing, 8, VOILUTSequence=_table([256, 0, 16], range(0, 65536, 256))),
        "padded": make_dicom(np.pad(deep, 8, constant_values=65535), 16, PixelPaddingValue=65535),
        "padded_range": make_dicom(np.pad(deep, 8), 12, PixelPaddingValue=0, PixelPaddingRangeLimit=9),
        "packed_table": make_dicom(
            drawing, 8, VOILUTSequence=_table([256, 0, 8], np.arange(256, dtype=np.uint8).view("<u2"))
        ),
        "signed_table": make_dicom(
            deep, PixelRepresentation=1, PixelData=signed, VOILUTSequence=_table([4096, 63536, 16], range(0, 65536, 16))
        ),
        "modality_table": make_dicom(deep, ModalityLUTSequence=_table([4096, 0, 10], np.arange(4096) >> 2)),
        "sigmoid": make_dicom(deep, WindowCenter=2000, WindowWidth=1500, VOILUTFunction="SIGMOID"),
        "first_window_of_0": make_dicom(deep, WindowCenter=[0, 2000], WindowWidth=[0, 3000]),
        "inverse": make_dicom(deep, PresentationLUTShape="INVERSE"),
        "for_processing": make_dicom(deep, PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1),
        "too_few_bits": make_dicom(deep, 10),
        "high_bit": make_dicom(deep, HighBit=15),
        "no_sign": make_dicom(deep, PixelRepresentation=1),
        "wide": make_dicom(deep, BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=deep.astype("<u4").tobytes()),
        "capsule": encapsulated(deep, "1.2.840.10008.1.2.1.98", deep.astype("<u2").tobytes(), bits=12),
        "strange_patient": make_dicom(drawing, 8, PatientAge="99", PatientSex="?", ViewPosition="LATERAL"),
        "jpeg": encapsulated(drawing, JPEGBaseline8Bit, _jpeg(drawing)),
        "lossless_jpeg": encapsulated(deep, JPEGLosslessSV1, lossless_jpeg(deep), bits=12),
    }
    for name, syntax in (("rle", RLELossless), ("jpeg_2000", JPEG2000Lossless), ("jpeg_ls", JPEGLSLossless)):
        sound[name] = make_dicom(deep)
        sound[name].compress(syntax, generate_instance_uid=False)
    files = {name: stored(dataset) for name, dataset in sound.items()}
    plain = files["implicit"]
    return files | {"bare": plain[plain.index(b"\x08\x00\x16\x00") :], "no_preamble": files["raw_12"][132:]}


def broken_dicoms(drawing: np.ndarray) -> dict[str, tuple[bytes, bool | None]]:
    """Each with what has to become of it: True read, False refused, None either."""
    deep = drawing.astype(np.uint16) * 16
    changes: dict[str, tuple[dict[str, Any], bool | None]] = {
        "no_pixels": ({"PixelData": None}, False),
        "empty_pixels": ({"PixelData": b""}, False),
        "odd_pixels": ({"PixelData": deep.tobytes()[:-3]}, False),
        "more_pixels": ({"PixelData": deep.tobytes() * 2}, True),
        "no_rows": ({"Rows": None}, False),
        "zero_rows": ({"Rows": 0}, False),
        "zero_by_zero": ({"Rows": 0, "Columns": 0, "PixelData": b""}, False),
        "huge": ({"Rows": 65535, "Columns": 65535}, False),
        "strip": ({"Rows": 1, "Columns": 65535}, False),
        "no_depth": ({"BitsAllocated": None}, True),
        "depth_of_7": ({"BitsAllocated": 7, "BitsStored": 7}, False),
        "depth_of_0": ({"BitsAllocated": 0}, False),
        "depth_of_64": ({"BitsAllocated": 64}, False),
        "stored_more_than_allocated": ({"BitsStored": 31, "HighBit": 30}, True),
        "stored_nothing": ({"BitsStored": 0}, True),
        "no_samples": ({"SamplesPerPixel": None}, True),
        "two_samples": ({"SamplesPerPixel": 2}, False),
        "no_representation": ({"PixelRepresentation": None}, True),
        "no_interpretation": ({"PhotometricInterpretation": None}, True),
        "unknown_interpretation": ({"PhotometricInterpretation": "SEPIA"}, True),
        "palette_without_table": ({"PhotometricInterpretation": "PALETTE COLOR"}, False),
        "frames": ({"NumberOfFrames": 2, "PixelData": deep.tobytes() * 2}, False),
        "million_frames": ({"NumberOfFrames": 1_000_000}, False),
        "no_frames": ({"NumberOfFrames": 0}, True),
        "slope_of_nan": ({"RescaleSlope": "NaN", "RescaleIntercept": "0"}, True),
        "slope_of_0": ({"RescaleSlope": 0, "RescaleIntercept": 0}, True),
        "slope_too_large": ({"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, False),
        "slope_alone": ({"RescaleSlope": 2}, True),
        "window_of_0": ({"WindowCenter": 2000, "WindowWidth": 0}, True),
        "window_of_nan": ({"WindowCenter": "NaN", "WindowWidth": "NaN"}, True),
        "window_far_away": ({"WindowCenter": 1_000_000, "WindowWidth": 1}, True),
        "window_without_width": ({"WindowCenter": 2000}, True),
        "window_function": ({"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTFunction": "MAGIC"}, True),
        "empty_table": ({"VOILUTSequence": Sequence([Dataset()])}, True),
        "short_table": ({"VOILUTSequence": _table([4096, 0, 16], [0, 1])}, True),
        "table_of_no_bits": ({"VOILUTSequence": _table([256, 0, 0], range(256))}, True),
        "short_modality_table": ({"ModalityLUTSequence": _table([4096, 0, 16], [0, 1])}, True),
        "black": ({"PixelData": bytes(deep.nbytes)}, False),
        "age_of_words": ({"PatientAge": "OLD"}, True),
        "age_of_999": ({"PatientAge": "999Y"}, True),
        "many_sexes": ({"PatientSex": ["M", "F"]}, True),
        "long_name": ({"PatientName": "x" * 60_000}, True),
    }
    before, config.settings.writing_validation_mode = config.settings.writing_validation_mode, config.IGNORE
    reading, config.settings.reading_validation_mode = config.settings.reading_validation_mode, config.IGNORE
    try:
        broken = {name: (stored(make_dicom(deep, **tags)), good) for name, (tags, good) in changes.items()}
    finally:
        config.settings.writing_validation_mode, config.settings.reading_validation_mode = before, reading
    return broken | _broken_bytes(drawing, deep)


def _broken_bytes(drawing: np.ndarray, deep: np.ndarray) -> dict[str, tuple[bytes, bool | None]]:
    """What pydicom would not write: codings that lie, lengths without end, bombs."""
    plain = stored(make_dicom(deep))
    header = plain[: plain.index(b"\xe0\x7f\x10\x00")]
    other_syntax = header.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0") + plain[len(header) :]
    deflated = stored(make_dicom(deep, syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + struct.unpack_from("<I", deflated, 140)[0]  # after the file's meta information
    giant = bytearray(_jpeg(drawing))
    frame = giant.index(b"\xff\xc0") + 5
    giant[frame : frame + 4] = b"\xea\x60\xea\x60"  # 60000 x 60000
    frames = {
        "jpeg_of_another_size": (JPEGBaseline8Bit, _jpeg(drawing[:40, :40]), None),
        "jpeg_that_claims_a_giant": (JPEGBaseline8Bit, bytes(giant), None),
        "jpeg_of_text": (JPEGBaseline8Bit, b"Dear colleague", False),
        "jpeg_2000_of_text": (JPEG2000Lossless, b"Dear colleague", False),
        "jpeg_ls_of_text": (JPEGLSLossless, b"Dear colleague", False),
        "rle_of_text": (RLELossless, b"Dear colleague" * 9, False),
        "jpeg_of_nothing": (JPEGBaseline8Bit, bytes(2), False),
        "jpeg_2000_in_colour": (JPEG2000Lossless, _jpeg_2000(np.dstack([drawing] * 3)), False),
        "jpeg_ls_of_120_components": (JPEGLSLossless, _jpeg_ls_of(drawing, 120), False),
    }
    coded = {
        name: (stored(encapsulated(drawing, syntax, frame)), good) for name, (syntax, frame, good) in frames.items()
    }
    no_tables = lossless_jpeg(deep).replace(b"\xff\xc4", b"\x99\x2c")  # GDCM ends the process on it
    endless = b"\xff\xff\xff\xff"
    return coded | {
        "mark_only": (bytes(128) + b"DICM", False),
        "lossless_jpeg_without_tables": (stored(encapsulated(deep, JPEGLosslessSV1, no_tables, bits=12)), False),
        "pixels_without_end": (header + b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff", False),
        "pixels_of_4_gigabytes": (header + b"\xe0\x7f\x10\x00OW\0\0\xf0\xff\xff\xff" + bytes(64), False),
        "sequence_without_end": (header + b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff", False),
        "nested_deep": (header + 3000 * (b"\x28\x00\x10\x30SQ\0\0" + endless + b"\xfe\xff\x00\xe0" + endless), False),
        "unknown_syntax": (other_syntax, False),
        "inflates_to_2_gigabytes": (deflated[:start] + deflated_zeros(2**31), False),
        "deflated_noise": (deflated[:start] + np.random.default_rng(14).bytes(500), False),
        "rows_of_text": (plain.replace(b"\x28\x00\x10\x00US\x02\0", b"\x28\x00\x10\x00LO\x02\0"), False),
        "group_length": (plain[:140] + struct.pack("<I", 2**32 - 1) + plain[144:], None),
    }


def deflated_zeros(count: int) -> bytes:
    """A raw deflate stream of so many zero bytes, at a thousandth of the size; one block of it is made and repeated."""
    deflate, block = zlib.compressobj(wbits=-zlib.MAX_WBITS), 2**22
    repeated = deflate.compress(bytes(block)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return count // block * repeated + deflate.compress(bytes(count % block)) + deflate.flush()


def encapsulated(pixels: np.ndarray, syntax: str, frame: bytes, bits: int = 8, **tags: Any) -> Dataset:
    """A radiograph whose header describes the pixels, and whose compressed frame may be any."""
    dataset = make_dicom(pixels, bits, syntax, PixelData=encapsulate([frame]), **tags)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _jpeg_2000(pixels: np.ndarray) -> bytes:
    """A bare codestream."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True)
    return file.getvalue()


def _jpeg_ls_of(pixels: np.ndarray, components: int) -> bytes:
    """A JPEG-LS frame that claims so many components."""
    frame = bytearray(jpeg_ls.encode(pixels).tobytes())
    frame[frame.index(b"\xff\xf7") + 9] = components
    return bytes(frame)


def lossless_jpeg(pixels: np.ndarray) -> bytes:
    """The frame of 12-bit pixels as lossless JPEG."""
    return _frame_by_gdcm(pixels, gdcm.TransferSyntax.JPEGLosslessProcess14_1)


def jpeg_of_12_bits(pixels: np.ndarray) -> bytes:
    """The frame of 12-bit pixels as JPEG Extended, which loses a little."""
    return _frame_by_gdcm(pixels, gdcm.TransferSyntax.JPEGExtendedProcess2_4, is_lossless=False)


def _frame_by_gdcm(pixels: np.ndarray, syntax: int, is_lossless: bool = True) -> bytes:
    """A frame of a coding that GDCM alone writes; it takes and makes files only."""
    codec = gdcm.JPEGCodec()
    codec.SetLossless(is_lossless)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.dcm")
        path.write_bytes(stored(make_dicom(pixels)))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetUserCodec(codec)
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


def _table(descriptor: list[int], levels: Any) -> Sequence:
    """A look-up table as a sequence of one item."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", "US", [int(level) for level in levels])
    return Sequence([item])
