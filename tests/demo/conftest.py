"""DICOM files of any header, as bytes."""

import io
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def dicom(drawing: np.ndarray) -> Callable[..., bytes]:
    """Make a DICOM file of the drawing at 16 bits; keywords change its header."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def make(syntax: str = ExplicitVRLittleEndian, **header: object) -> bytes:
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # computed radiography
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.Rows, dataset.Columns = drawing.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelData = (drawing.astype(np.uint16) * 200).tobytes()
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return make
