"""Where findings lie: the box lists of NIH ChestX-ray14 -> fractions of the image."""

from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

from cxrfpn.data.schema import Box, SourceError
from cxrfpn.data.sources.columns import finding_named, image_id_of, read_csv

# The lists count pixels of the 1024 x 1024 images that the NIH published.
NIH_SIDE = 1024.0


def read_boxes(file: Path | BinaryIO, name: str) -> dict[str, tuple[Box, ...]]:
    """Image id -> its boxes, from BBox_List_2017.csv or a table of the same columns: image, finding, x, y, w, h.

    The columns are taken by their place: the NIH's header is `Image Index,Finding Label,Bbox [x,y,w,h],,,`.

    Args:
        name: what errors call the file.

    Raises:
        SourceError: an unknown finding, or no box, with its row.
    """
    table = read_csv(file, name)
    if table.shape[1] < 6:
        raise SourceError(f"{name}: has {table.shape[1]} columns; a list of boxes has image, finding, x, y, w, h")
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for row, (image, finding, *sides) in enumerate(table.iloc[:, :6].itertuples(index=False), start=2):
        try:
            x, y, width, height = (float(side) / NIH_SIDE for side in sides)
            known = finding_named(finding)
        except ValueError as error:
            raise SourceError(f"{name}, row {row}, image {image}: {error}") from None
        if known is None or width <= 0 or height <= 0:
            raise SourceError(f"{name}, row {row}, image {image}: a box of {finding}, {sides}, marks nothing")
        boxes[image_id_of(image)].append(Box(known, x, y, width, height))
    return {image: tuple(found) for image, found in boxes.items()}
