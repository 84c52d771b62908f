"""Pictures that are no chest radiographs, from what packages ship for their own use: nothing of them is kept here.

| package | licence | pictures |
|---|---|---|
| scikit-image | BSD-3-Clause, pictures mostly public domain or CC0 | photographs, documents, microscopy, a fundus |
| scikit-learn | BSD-3-Clause, pictures CC BY | two photographs |
| matplotlib | PSF-like, pictures public domain | a portrait, an MR slice |
| pydicom | MIT | slices of CT and MR, ultrasound, nuclear medicine, screens |
| nibabel | MIT | slices of MR |
| nilearn | BSD-3-Clause, MNI templates free for use | slices of MR |
"""

import gzip
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from radiograph_cxrfpn import RadiographError, read_radiograph

# What to install for all of them.
PACKAGES = ("skimage", "sklearn", "matplotlib", "pydicom", "nibabel", "nilearn")
DOCUMENTS = ("page", "text", "logo", "logo2", "clock_motion", "color", "Minduka_Present_Blue_Pack", "phantom", "horse")
MICROSCOPY = ("ihc", "cell", "retina", "microaneurysms", "hubble_deep_field", "moon")
# Slices of a volume, in each of its three directions.
SLICES = 6
SMALLEST = 24


def real_pictures() -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (kind, file, pixels [H,W] uint8) of every picture; slices of a volume share its file.

    Raises:
        ValueError: a package is not installed.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ValueError(f"{', '.join(missing)} not installed, whose pictures are needed: pip install -e '.[gate]'")
    for folder, patterns in (
        (_folder("skimage") / "data", ("*.png", "*.jpg", "*.tif")),
        (_folder("sklearn") / "datasets" / "images", ("*.jpg",)),
        (_folder("matplotlib") / "mpl-data" / "sample_data", ("*.png", "*.jpg")),
        (_folder("pydicom") / "data" / "test_files", ("*.dcm",)),
    ):
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            pixels = _read(path)
            if pixels is not None:
                yield _kind(path), path.name, pixels
    slope = np.frombuffer(
        gzip.decompress((_folder("matplotlib") / "mpl-data/sample_data/s1045.ima.gz").read_bytes()), ">u2"
    )
    yield "CT and MR slices", "s1045.ima.gz", _grey(slope.reshape(256, 256))
    yield from _volumes()


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0])


def _read(path: Path) -> np.ndarray | None:
    try:
        pixels = read_radiograph(path).pixels
    except (RadiographError, ValueError, OSError):  # tests' files that are broken on purpose
        return None
    return pixels if min(pixels.shape) >= SMALLEST else None


def _kind(path: Path) -> str:
    if path.suffix == ".dcm":
        is_slice = path.name.startswith(
            ("CT", "MR", "J2K", "liver", "emri", "examples_overlay", "693", "Expl", "no_meta")
        )
        return "CT and MR slices" if is_slice else "ultrasound, scintigraphy, screens"
    if path.stem in DOCUMENTS:
        return "documents and drawings"
    return "microscopy, fundus, sky" if path.stem in MICROSCOPY else "photographs"


def _volumes() -> Iterator[tuple[str, str, np.ndarray]]:
    import nibabel

    tests, atlas = _folder("nibabel") / "tests" / "data", _folder("nilearn") / "datasets" / "data"
    names = (
        "anatomical.nii",
        "functional.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "reoriented_anat_moved.nii",
    )
    for path in [*(tests / name for name in names), *sorted(atlas.glob("*.nii.gz"))]:
        volume = np.asarray(nibabel.load(path).dataobj)
        volume = volume[..., 0] if volume.ndim == 4 else volume
        for axis in range(3):
            for share in np.linspace(0.25, 0.75, SLICES):
                cut = np.rot90(np.take(volume, int(share * volume.shape[axis]), axis))
                if min(cut.shape) >= SMALLEST and cut.std() > 0:
                    yield "CT and MR slices", path.name, _grey(cut)


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    return (255 * ((values - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
