"""One split of a source, decoded and held in memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from configuration_cxrfpn import encode_patient
from cxrfpn.data.schema import Row, SourceError
from image_processing_cxrfpn import crop_and_resize
from radiograph_cxrfpn import read_radiograph


@dataclass(frozen=True)
class Split:
    """N radiographs: pixels [N,S,S] uint8, patients [N,3] float32 (NaN is unknown), labels [N,14] float32."""

    pixels: Tensor
    patients: Tensor
    labels: Tensor
    image_ids: list[str]

    def __len__(self) -> int:
        return len(self.image_ids)


def load_split(rows: Iterable[Row], size: int, name: str) -> Split:
    """Decode every row once, into size x size grey pixels of the whole image.

    Raises:
        SourceError: there are no rows.
        RadiographError: an image cannot be read; the message names it.
    """
    pixels, patients, labels, image_ids = [], [], [], []
    for row in tqdm(rows, desc=f"reading {name}", unit=" images"):
        image = read_radiograph(row.image, row.image_id, least_side=size).pixels
        pixels.append(crop_and_resize(image, (size, size), 1.0))
        patients.append(encode_patient(row.age, row.sex, row.view_position))
        labels.append(row.label_vector())
        image_ids.append(row.image_id)
    if not image_ids:
        raise SourceError(f"the split {name} is empty")
    return Split(torch.from_numpy(np.stack(pixels)), torch.tensor(patients), torch.tensor(labels), image_ids)


def epoch_order(labels: Tensor, no_finding_share: float, seed: int, epoch: int) -> Tensor:
    """The rows that an epoch sees, in its own random order: every row with a finding, a share of those without."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(len(labels), generator=generator)
    healthy = order[labels[order].sum(dim=1) == 0]
    left_out = healthy[round(no_finding_share * len(healthy)) :]
    return order[~torch.isin(order, left_out)]
