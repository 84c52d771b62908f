"""What is checked of a DICOM is what is decoded: its size wherever it stands, and the frame that is read."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate_extended
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from dicom_cxrfpn import HEADER_BYTES, read_dicom, read_dicom_patient
from image_processing_cxrfpn import CxrFpnImageProcessor
from pixels_cxrfpn import RadiographError
from radiograph_cxrfpn import read_radiograph
from tests.hardening.dicoms import deflated_zeros, encapsulated, make_dicom, stored


def jpeg_2000(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True)
    return file.getvalue()


def moved_behind_pixels(data: bytes, *tags: bytes) -> bytes:
    """The DICOM with these elements of two bytes at its end."""
    for tag in tags:
        place = data.index(tag + b"US\2\0")
        data = data[:place] + data[place + 10 :] + data[place : place + 10]
    return data


@pytest.mark.parametrize("name", ["x.dcm", "x.png", "x.tif", "x.jpg"])
def test_the_limit_of_pixels_holds_for_every_kind_of_file(drawing, name):
    file = io.BytesIO()
    Image.fromarray(drawing).save(file, {"dcm": "PNG", "jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[name[2:]])
    data = stored(make_dicom(drawing, 8)) if name == "x.dcm" else file.getvalue()
    assert CxrFpnImageProcessor().read(data, name, max_pixels=drawing.size).pixels.shape == drawing.shape
    with pytest.raises(RadiographError, match=rf"^{name}: 160 x 200 pixels are more than 0.031999 million"):
        CxrFpnImageProcessor().read(data, name, max_pixels=drawing.size - 1)


def test_a_size_that_stands_behind_the_pixels_is_checked(drawing):
    data = moved_behind_pixels(stored(make_dicom(drawing, 8)), b"\x28\0\x10\0", b"\x28\0\x11\0")
    assert "Rows" not in dcmread(io.BytesIO(data), stop_before_pixels=True)
    assert np.array_equal(read_radiograph(data, "x.dcm").pixels, drawing)
    with pytest.raises(RadiographError, match="x.dcm: 160 x 200 pixels are more"):
        read_radiograph(data, "x.dcm", max_pixels=1000)


def test_the_frame_that_is_checked_is_the_one_that_is_decoded(drawing):
    """A table of offsets that leads to a second, larger frame."""
    dataset = encapsulated(drawing, JPEG2000Lossless, jpeg_2000(drawing))
    frames = [jpeg_2000(drawing), jpeg_2000(np.tile(drawing.T, (5, 5)))]
    dataset["PixelData"].value, offsets, lengths = encapsulate_extended(frames)
    dataset.ExtendedOffsetTable = struct.pack("<Q", struct.unpack("<2Q", offsets)[1])
    dataset.ExtendedOffsetTableLengths = struct.pack("<Q", struct.unpack("<2Q", lengths)[1])
    assert np.array_equal(read_radiograph(stored(dataset), "x.dcm").pixels, drawing)


def test_a_deflated_file_inflates_no_further_than_its_limit(drawing):
    """In this process, where no worker's limit would end it."""
    data = stored(make_dicom(drawing, 8, DeflatedExplicitVRLittleEndian))
    bomb = data[: 144 + struct.unpack_from("<I", data, 140)[0]] + deflated_zeros(2**30)
    assert np.array_equal(read_dicom(data, "x.dcm", drawing.size)[0], drawing)
    tracemalloc.start()
    with pytest.raises(RadiographError, match="^x.dcm: inflates to more than 16 MB"):
        read_dicom(bomb, "x.dcm", drawing.size)
    assert read_dicom_patient(bomb, "x.dcm").age is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * HEADER_BYTES
    with pytest.raises(RadiographError, match="^x.dcm: is cut short"):
        read_dicom(data[:-50], "x.dcm", drawing.size)
