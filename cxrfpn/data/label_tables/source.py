"""A label table as a source: its images lie in the table's folder, in any depth."""

import os
from collections.abc import Container, Iterator
from functools import cached_property
from pathlib import Path, PurePath

import pandas as pd

from cxrfpn.data.label_tables.table import LabelTable
from cxrfpn.data.schema import Row, SourceError
from cxrfpn.data.sources.columns import image_id_of, make_row
from cxrfpn.data.sources.files import in_runs, read_file


class LabelTableSource:
    """A part is a run of files. An image is found by its name, or by the trailing parts of its path that tell it."""

    def __init__(self, table: LabelTable) -> None:
        self.table, self.name = table, table.name

    def metadata(self) -> pd.DataFrame:
        """See `Source.metadata`."""
        return self.table.metadata.copy()

    def parts(self) -> list[str]:
        """See `Source.parts`."""
        return list(self._runs)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """See `Source.rows`."""
        paths = self._runs[part]
        table = self.table.metadata
        for record in table[table["image_id"].isin(paths)].itertuples(index=False):
            if wanted is None or record.image_id in wanted:
                image, error = read_file(Path(paths[record.image_id]))
                yield make_row(record, image, error=error)

    @cached_property
    def _runs(self) -> dict[str, dict[str, str]]:
        folder, files = self.table.file.parent, self._files
        paths = {image_id: files.get(self._key(image_id)) for image_id in self.table.metadata["image_id"]}
        if missing := [image_id for image_id, path in paths.items() if path is None]:
            raise SourceError(
                f"{folder}: {len(missing)} of {len(paths)} images of {self.table.file.name} are nowhere in it, "
                f"{missing[0]} the first; put the table into the images' folder"
            )
        return in_runs({image_id: path for image_id, path in paths.items() if path is not None})

    @cached_property
    def _files(self) -> dict[tuple[str, ...], str]:
        found = {}
        for where, _, names in os.walk(self.table.file.parent, followlinks=True):
            for name in names:
                path = str(PurePath(where, name))
                found[self._key(os.path.relpath(path, self.table.file.parent))] = path
        return found

    def _key(self, name: str) -> tuple[str, ...]:
        *folders, file = PurePath(name).parts
        return (*folders, image_id_of(file))[-self.table.id_parts :]
