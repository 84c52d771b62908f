"""Reading a DICOM as a viewer shows it, beside pydicom's decoding and windowing alone."""

import io

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from benchmarks.ratio import Row, time_ratio
from dicom_cxrfpn import read_dicom
from pixels_cxrfpn import MAX_PIXELS
from radiograph_cxrfpn import read_radiograph

SIDE = 2048
ROUNDS = 20


def measure() -> list[Row]:
    """Compare the reader with pydicom on a 12-bit film of 2048 x 2048 with a window: decoded here, and by a worker."""
    data = _film()

    def by_pydicom() -> np.ndarray:
        dataset = pydicom.dcmread(io.BytesIO(data))
        return apply_voi_lut(dataset.pixel_array, dataset)

    what = f"a 12-bit DICOM of {SIDE} x {SIDE} with a window{{}} / pydicom's pixel_array and apply_voi_lut"
    rows = []
    for where, ours in (
        ("", lambda: read_dicom(data, "film.dcm", MAX_PIXELS)),
        (", through a worker process", lambda: read_radiograph(data, "film.dcm")),
    ):
        ratio, mine, other = time_ratio(ours, by_pydicom, ROUNDS)
        rows.append(Row(what.format(where), ratio, 1.3, f"({1000 * mine:.0f} ms / {1000 * other:.0f} ms)"))
    return rows


def _film() -> bytes:
    """Draw a smooth picture with grain, as a digital radiograph."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    grain = np.random.default_rng(0).normal(0, 20, (SIDE, SIDE))
    values = (1500 + 1000 * np.sin(3 * x) * np.cos(4 * y) + 500 * y + grain).clip(0, 4095).astype(np.uint16)
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = SIDE, SIDE, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2000, 3000
    dataset.PixelData = values.tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
