"""The pictures that the gate is fitted and measured on, as its features: radiographs, children's, and others."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from cxrfpn.data.manipulated import UNFIT, crop, vary
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.schema import Source
from cxrfpn.data.sources import open_source
from gate_cxrfpn import features
from radiograph_cxrfpn import read_radiograph
from tools.non_chest import KINDS
from tools.real_pictures import real_pictures

FILMS, PHANTOMS, CHILDREN = "radiographs", "phantoms", "children"
# The radiographs of each split, the phantoms, the children's of each split, and the drawn pictures of each kind.
COUNTS = {FILMS: 1000, PHANTOMS: 150, CHILDREN: 600, "drawn": 120}
# Crops of each real picture to fit on, of which there are few.
CROPS = 6
FOLDS = 5
# The share that what fits has among the pictures that are fitted on.
FIT_SHARE = 0.5


@dataclass(frozen=True)
class Pictures:
    """N pictures: features [N,F], kinds [N], the patient or file [N] that each belongs to, and its fold [N].

    `fits` [N] says which the gate should let pass, `real` [N] which are pictures of packages that are no crops.
    """

    features: NDArray[np.float32]
    kind: NDArray[np.str_]
    group: NDArray[np.str_]
    fits: NDArray[np.bool_]
    real: NDArray[np.bool_]

    @property
    def fold(self) -> NDArray[np.intp]:
        """The fold of each picture, by its patient or file."""
        _, codes = np.unique(self.group, return_inverse=True)
        return (np.random.default_rng(0).permutation(codes.max() + 1) % FOLDS)[codes]

    def kinds(self) -> list[str]:
        """Return the kinds that the gate should reject."""
        return list(dict.fromkeys(self.kind[~self.fits].tolist()))

    def weights(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the chance of each of some pictures to be drawn: kinds count alike, and what fits FIT_SHARE."""
        kind, fits = self.kind[rows], self.fits[rows]
        _, codes, counts = np.unique(kind, return_inverse=True, return_counts=True)
        weights = 1 / counts[codes]
        for which, share in ((fits, FIT_SHARE), (~fits, 1 - FIT_SHARE)):
            weights[which] *= share / weights[which].sum()
        return weights / weights.sum()


def gather(split: str, source: str, children: Path) -> Pictures:
    """Read or draw the pictures of a split, "train" or "test"; pictures of packages come with "train".

    Args:
        source: radiographs, whatever `open_source` opens.
        children: a folder of parquet with the columns image and source; those of Kermany's are children's.
    """
    random, rows = np.random.default_rng(split == "test"), []
    for patient, pixels in _films(open_source(source), split, COUNTS[FILMS]):
        rows.append((features(pixels), FILMS, patient, True, False))
        if split == "train":
            rows.append((features(vary(pixels, random)), FILMS, patient, True, False))
        for kind, manipulate in UNFIT.items():
            rows.append((features(np.ascontiguousarray(manipulate(pixels, random))), kind, patient, False, False))
    drawn = PhantomSource(COUNTS[PHANTOMS] * 8, seed=0)
    for patient, pixels in _films(drawn, split, COUNTS[PHANTOMS]):  # type: ignore[arg-type]  # its name cannot be set
        rows.append((features(pixels), PHANTOMS, f"phantom {patient}", True, False))
    for name, pixels in _children(children, split):
        rows.append((features(pixels), CHILDREN, name, False, False))
    for kind, draw in KINDS.items():
        for number in range(COUNTS["drawn"]):
            drawn = draw(np.random.default_rng([split == "test", number, *kind.encode()]))
            rows.append((features(read_radiograph(drawn).pixels), f"{kind} (drawn)", f"{kind} {number}", False, False))
    if split == "train":
        for kind, file, pixels in real_pictures():
            rows.append((features(pixels), kind, file, False, True))
            for _ in range(CROPS if min(pixels.shape) > 100 else 0):
                rows.append((features(np.ascontiguousarray(crop(pixels, random))), kind, file, False, False))
    return Pictures(*(np.array(column) for column in zip(*rows, strict=True)))


def _films(source: Source, split: str, count: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    table = source.metadata()
    table = table[table["split"] == split]
    table = table.sample(min(count, len(table)), random_state=0).set_index("image_id")
    with tqdm(total=len(table), desc=f"{source.name}, {split}", unit=" images", mininterval=5) as bar:
        for part in source.parts():
            for row in source.rows(part, set(table.index)):
                bar.update()
                yield str(table.loc[row.image_id, "patient_id"]), read_radiograph(row.content()).pixels


def _children(folder: Path, split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Half of the children to fit on and half to measure on, as far as names tell them apart."""
    found: dict[Path, list[str]] = {}
    for path in sorted(folder.glob("*.parquet")):
        names = pq.read_table(path, columns=["image_id"], filters=[("source", "in", _kermany(path))])
        found[path] = names.column("image_id").to_pylist()
    children = sorted({_child(name) for names in found.values() for name in names})
    if not children:
        raise ValueError(f"{folder}: has no children's radiographs (rows of parquet whose source names Kermany)")
    half = set(children[split == "test" :: 2])
    images = sorted(name for names in found.values() for name in names if _child(name) in half)
    chosen = set(images[:: max(1, len(images) // COUNTS[CHILDREN])])
    for path in found:
        for row in pq.read_table(path, filters=[("image_id", "in", chosen)]).to_pylist():
            yield _child(row["image_id"]), read_radiograph(row["image"]["bytes"]).pixels


def _child(image_id: str) -> str:
    """Return who is on an image: its number, where the name has one."""
    number = re.search(r"person\d+|NORMAL2?-IM-\d+|IM-\d+", image_id)
    return number[0] if number else image_id


def _kermany(path: Path) -> list[str]:
    sources = pq.read_table(path, columns=["source"]).column("source").unique().to_pylist()
    return [name for name in sources if "kermany" in name.lower()] or [""]
