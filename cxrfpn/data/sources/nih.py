"""NIH ChestX-ray14 as the NIH publishes it: a table, lists, boxes, and images in folders or archives."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

import pandas as pd
from tqdm import tqdm

from cxrfpn.data.schema import Box, Row, SourceError
from cxrfpn.data.sources.boxes import read_boxes
from cxrfpn.data.sources.columns import checked, image_id_of, make_row, read_csv, spelled, tabulate
from cxrfpn.data.sources.files import files_in, in_runs, read_file

TABLE = "Data_Entry*.csv*"
LISTS = {"train": "train_val_list*.txt*", "test": "test_list*.txt*"}
BOX_LIST = "BBox_List*.csv*"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
# Of an image in an archive, inflated; the NIH's are below 4 MB.
MAX_MEMBER_BYTES = 256 * 2**20


class NihSource:
    """A part is a run of files, or an archive, which is read from its beginning to its end.

    The table may be that of 2017 (ages such as 058Y) or of v2020; lists and boxes are used where they are. Without any
    image there is still the metadata, which is all that scoring needs. An image that lies in a folder is not looked
    for in the archives, so that archives may stay beside what was unpacked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"nih:{folder}"

    def metadata(self) -> pd.DataFrame:
        """See `Source.metadata`."""
        return self._table.copy()

    def parts(self) -> list[str]:
        """See `Source.parts`."""
        return list(self._places)

    def rows(self, part: str, wanted: Container[str] | None = None) -> Iterator[Row]:
        """See `Source.rows`."""
        ids = {path: image_id for image_id, path in self._places[part].items() if wanted is None or image_id in wanted}
        table = self._table[self._table["image_id"].isin(set(ids.values()))]
        records = {record.image_id: record for record in table.itertuples(index=False)}
        loose = ((path, *read_file(Path(path))) for path in ids)
        files = _read_members(self.folder / part, ids) if _is_archive(part) else loose
        for path, image, error in files:
            record = records[ids[path]]
            yield make_row(record, image, self._boxes.get(record.image_id, ()), error)

    @cached_property
    def _table(self) -> pd.DataFrame:
        # Of two tables the later is taken: v2020 corrects the ages of 2017, and sorts after it.
        path = self._found(TABLE)
        if path is None:
            raise SourceError(f"{self.folder}: holds no {TABLE}, the table that the NIH publishes with the images")
        raw = read_csv(path, path.name)
        fields = spelled(raw.columns)
        if lacking := [field for field in ("image_id", "patient_id", "findings") if field not in fields]:
            raise SourceError(f"{path}: has no column {', '.join(lacking)}; it has {', '.join(raw.columns)}")
        columns = {field: raw[column].tolist() for field, column in fields.items()}
        table = tabulate(columns, path.name, first_row=2)
        table["split"] = self._splits(table["image_id"])
        return checked(table)

    def _splits(self, image_ids: pd.Series) -> pd.Series | None:
        """Return the official side of every image; None where there are no lists."""
        paths = {side: self._found(pattern) for side, pattern in LISTS.items()}
        if not any(paths.values()):
            return None
        lists = []
        for side, path in paths.items():
            if path is None:
                raise SourceError(f"{self.folder}: holds one of the official lists, but no {LISTS[side]}")
            images = read_csv(path, path.name, header=None)[0]
            lists.append(pd.Series(side, index=images.str.strip().str.removesuffix(".png")))
        side_of = pd.concat(lists)
        if side_of.index.has_duplicates:
            twice = side_of.index[side_of.index.duplicated()][0]
            raise SourceError(f"{self.folder}: {twice} is listed twice in the official lists; it belongs on one side")
        splits = pd.Series(image_ids.map(side_of).to_numpy(), index=image_ids.index)
        if (lacking := splits.isna()).any():
            (file, row), image_id = splits.index[lacking][0], image_ids[lacking].iloc[0]
            raise SourceError(f"{file}, row {row}: image {image_id} is in neither of the official lists")
        return splits

    @cached_property
    def _boxes(self) -> dict[str, tuple[Box, ...]]:
        path = self._found(BOX_LIST)
        return read_boxes(path, path.name) if path else {}

    def _found(self, pattern: str) -> Path | None:
        paths = (path for path in self._files if fnmatch(path.name, pattern))
        return max(paths, default=None, key=lambda path: path.name)

    @cached_property
    def _files(self) -> list[Path]:
        """Every file of the folder, in any depth."""
        if not self.folder.is_dir():
            raise SourceError(f"{self.folder}: no such folder")
        return sorted(files_in(self.folder))

    @cached_property
    def _places(self) -> dict[str, dict[str, str]]:
        """Part -> image id -> path of the file, or of the member of the archive."""
        missing = dict.fromkeys(self._table["image_id"])

        def claim(images: dict[str, str]) -> dict[str, str]:
            """Those of the images that were still missing, which they are no more."""
            return {image_id: path for image_id, path in images.items() if missing.pop(image_id, self) is not self}

        places = in_runs(claim(_loose_images(self._files)))
        archives = [path for path in self._files if _is_archive(path.name)]
        if missing and archives:
            # A .tar.gz has no list of its members: it is read through once for their names (at 400 MB/s).
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                listings = tqdm(pool.map(_members, archives), "listing archives", len(archives), delay=2)
                for archive, members in zip(archives, listings, strict=True):
                    found = claim(members)
                    if found:
                        places[archive.relative_to(self.folder).as_posix()] = found
        if not places:
            raise SourceError(f"{self.folder}: holds none of the images that its table lists; unpack or put them there")
        if missing:
            first = next(iter(missing))
            row = int((self._table["image_id"] == first).to_numpy().argmax()) + 2
            raise SourceError(
                f"{self.folder}: image {first}, row {row} of the table, is nowhere in the folder, nor are "
                f"{len(missing) - 1} others; put them there, or take their rows out of the table"
            )
        return places


def _loose_images(files: list[Path]) -> dict[str, str]:
    """Image id -> path, sorted by the former."""
    images: dict[str, str] = {}
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            image_id = image_id_of(path.name)
            if image_id in images:
                raise SourceError(f"{path}: the same image lies in {images[image_id]}; remove one of them")
            images[image_id] = str(path)
    return dict(sorted(images.items()))


def _is_archive(name: str) -> bool:
    return name.lower().endswith((*TAR_SUFFIXES, ".zip"))


def _members(archive: Path) -> dict[str, str]:
    """Image id -> path within the archive."""
    with _one_line_errors(archive):
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as file:
                names = file.namelist()
        else:
            with tarfile.open(archive, "r:*") as file:
                names = [member.name for member in file if member.isfile()]
    return {image_id_of(PurePosixPath(name).name): name for name in names if name.lower().endswith(IMAGE_SUFFIXES)}


def _read_members(archive: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes, str | None]]:
    """Path and content of the wanted members, in the archive's order; or, of one that is too large, the reason."""
    with _one_line_errors(archive):
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as file:
                for entry in file.infolist():
                    if entry.filename in wanted:
                        yield entry.filename, *_read_entry(file, entry)
            return
        with tarfile.open(archive, "r|*") as file:
            for member in file:
                if member.name in wanted and (content := file.extractfile(member)) is not None:
                    yield member.name, *_read_member(content)
                file.members = []  # type: ignore[attr-defined]  # it would keep all of them


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[bytes, str | None]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile inflates others without a limit
        return b"", "its compression is not read; unpack the archive"
    with archive.open(entry) as file:
        return _read_member(file)


def _read_member(file: IO[bytes]) -> tuple[bytes, str | None]:
    content = file.read(MAX_MEMBER_BYTES + 1)  # what an archive says of sizes may be wrong
    if len(content) > MAX_MEMBER_BYTES:
        return b"", f"the archive's member is larger than {MAX_MEMBER_BYTES >> 20} MB"
    return content, None


@contextmanager
def _one_line_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise SourceError(f"{archive}: damaged or cut short ({error}); download it again") from None
