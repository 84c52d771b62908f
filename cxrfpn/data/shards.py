"""Prepared shards: small grey squares and what is known of them, in parquet, as one folder that names its content."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.schema import METADATA_COLUMNS, UNKNOWN_COLUMN, UNLABELLED, Row, SourceError
from cxrfpn.data.sharpness import SIDE_COLUMN
from cxrfpn.files import write_atomically
from patient_cxrfpn import AGE_SCALE_YEARS, PATIENT_INPUTS, SEXES, VIEW_POSITIONS

MANIFEST = "prepare.json"
MANIFEST_KEYS = {"source", "size", "seed", "parts"}
SHARD_FOLDER = "data"
# A row group is the least that parquet reads at once; loading mixes many of them, so they are small.
ROWS_A_GROUP = 100

_BOX = pa.struct([("finding", pa.string()), *((side, pa.float32()) for side in ("x", "y", "width", "height"))])
_FIELDS = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("age", pa.float32()),
        ("sex", pa.string()),
        ("view_position", pa.string()),
        ("findings", pa.list_(pa.string())),
        (UNKNOWN_COLUMN, pa.list_(pa.string())),
        ("boxes", pa.list_(_BOX)),
        ("split", pa.string()),
        ("fold", pa.int8()),
        (SIDE_COLUMN, pa.int32()),
    ]
)


def write_shard(path: Path, rows: Sequence[tuple[Row, int]], skipped: dict[str, str]) -> None:
    """Write rows whose images are PNG or JPEG as one shard, and with them which images of its part could not be read.

    Args:
        rows: each with the shorter side, in pixels, of the file that its image was made from.
        skipped: image id -> reason. It travels in the shard's own metadata, so that one rename commits both.
    """
    records = [
        {
            **asdict(row),
            "image": {"bytes": row.image, "path": f"{row.image_id}.{'png' if row.image[1:4] == b'PNG' else 'jpg'}"},
            "findings": list(row.findings),
            UNKNOWN_COLUMN: list(row.unknown),
            SIDE_COLUMN: side,
        }
        for row, side in rows
    ]
    metadata = {"huggingface": json.dumps(_huggingface_features()), "skipped": json.dumps(skipped)}
    table = pa.Table.from_pylist(records, schema=_FIELDS.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    # Compressed pixels do not compress again.
    pq.write_table(table, sink, row_group_size=ROWS_A_GROUP, compression="none", use_dictionary=False)
    write_atomically(path, memoryview(sink.getvalue()))


def read_summary(shard: Path) -> tuple[int, dict[str, str]]:
    """How many images a shard holds, and image id -> reason of those that could not be read when it was made.

    Raises:
        SourceError: the shard cannot be read.
    """
    with _readable(shard):
        metadata = pq.read_metadata(shard)
        return metadata.num_rows, json.loads(metadata.metadata[b"skipped"])


class Manifest(TypedDict):
    """What a folder of prepared shards holds: its source, the side of its images, its seed and its parts."""

    source: str
    size: int
    seed: int
    parts: list[str]


def _huggingface_features() -> dict[str, object]:
    """Where Hugging Face's datasets looks for types: without it, `image` would stay a struct of bytes."""
    kinds = {pa.string(): "string", pa.float32(): "float32", pa.int8(): "int8", pa.int32(): "int32"}

    def feature(kind: pa.DataType) -> dict[str, object]:
        if pa.types.is_list(kind):
            return {"feature": feature(kind.value_type), "_type": "List"}
        if pa.types.is_struct(kind):
            return {field.name: feature(field.type) for field in kind}
        return {"dtype": kinds[kind], "_type": "Value"}

    features = {field.name: feature(field.type) for field in _FIELDS if field.name != "image"}
    return {"info": {"features": {"image": {"_type": "Image"}, **features}}}


class Images:
    """What is known of images, in memory, row by row, and `read_images` for the images themselves.

    `image_ids` and `patient_ids` (arrow strings), `patients` [N,3] float32 with NaN for unknown, `labels` [N,F]
    float32 (NaN for unknown), `groups` [N] (rows of one group are read together), `folders` [N] (the number of the
    folder or source), `source_sides` [N] (the shorter side, in pixels, of the file that an image was made from).
    `source` is the name of the first source, `folder` what errors call all this, `size` the side of all images,
    `skipped` the images that could not be read, with the reasons.
    """

    folder: Path | str
    source: str
    size: int
    findings: tuple[str, ...]
    skipped: dict[str, str]
    groups: np.ndarray
    folders: np.ndarray

    def __len__(self) -> int:
        return len(self.groups)

    def metadata(self) -> pd.DataFrame:
        """Return the metadata of every row, with METADATA_COLUMNS: what a plan is made from."""
        table = self._table.select([*METADATA_COLUMNS, UNKNOWN_COLUMN]).to_pandas()
        for column in ("findings", UNKNOWN_COLUMN):
            table[column] = [tuple(names) for names in table[column]]
        return table if any(table[UNKNOWN_COLUMN]) else table.drop(columns=UNKNOWN_COLUMN)

    def rows_of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the row of each image id, -1 where there is none; of folders that share an id, the last one's row.

        Raises:
            SourceError: a folder holds an image twice.
        """
        ids = pd.Index(self.image_ids.to_pandas())
        if (twice := pd.MultiIndex.from_arrays([ids, self.folders]).duplicated()).any():
            raise SourceError(f"{self.folder}: holds image {ids[twice][0]} twice")
        last = np.flatnonzero(~ids.duplicated(keep="last"))
        found = ids[last].get_indexer(pd.Index(image_ids))
        return np.where(found < 0, -1, last[found])

    def read_images(self, rows: np.ndarray) -> dict[int, pa.Buffer]:
        """Row -> its image file.

        Raises:
            SourceError: an image cannot be read.
        """
        raise NotImplementedError

    def _index(self, table: pd.DataFrame | pa.Table, source_sides: np.ndarray) -> None:
        """Take METADATA_COLUMNS, and `unknown` where it is there, of every row."""
        if isinstance(table, pd.DataFrame):
            unknown = table[UNKNOWN_COLUMN] if UNKNOWN_COLUMN in table else [()] * len(table)
            unknown = [list(names) if isinstance(names, tuple) else [] for names in unknown]
            table = table.assign(findings=table["findings"].map(list), **{UNKNOWN_COLUMN: unknown})
            schema = pa.schema([_FIELDS.field(name) for name in (*METADATA_COLUMNS, UNKNOWN_COLUMN)])
            table = pa.Table.from_pandas(table, schema, preserve_index=False)
        self._table, self.source_sides = table.combine_chunks(), source_sides
        self.image_ids, self.patient_ids = self._table["image_id"], self._table["patient_id"]
        self.patients, self.labels = self._patients(), self._labels()

    def _patients(self) -> np.ndarray:
        """Return the patient vectors of all rows at once, as `Patient.encode` gives them."""
        age = self._table["age"].to_numpy() / np.float32(AGE_SCALE_YEARS)
        encoded = {"age": np.minimum(age, 1)}
        for column, codes in {"view_position": VIEW_POSITIONS, "sex": SEXES}.items():
            places = pc.index_in(self._table[column], pa.array(list(codes))).fill_null(len(codes)).to_numpy()
            encoded[column] = np.array([*codes.values(), np.nan])[places]
        return np.stack([encoded[name] for name in PATIENT_INPUTS], axis=1).astype(np.float32)

    def _labels(self) -> np.ndarray:
        labels = np.zeros((len(self), len(self.findings)), np.float32)
        for column, value in (("findings", 1), (UNKNOWN_COLUMN, np.nan)):
            names = self._table[column].combine_chunks()
            places = pc.index_in(names.flatten(), pa.array(self.findings))
            if places.null_count:
                other = names.flatten().filter(pc.is_null(places))[0]
                raise SourceError(
                    f"{self.folder}: holds the finding {other}, none of {', '.join(self.findings)}; prepare the source "
                    "again, into another folder"
                )
            labels[names.value_parent_indices(), places] = value
        return labels


def _index_of(file: pq.ParquetFile) -> pa.Table:
    """Return what is kept in memory of a shard; one that was made before there were unknown findings has none."""
    has_unknown = UNKNOWN_COLUMN in file.schema_arrow.names
    columns = [*METADATA_COLUMNS, SIDE_COLUMN, *([UNKNOWN_COLUMN] if has_unknown else [])]
    table = file.read(columns).replace_schema_metadata(None)
    if has_unknown:
        return table
    return table.append_column(UNKNOWN_COLUMN, pa.array([[]] * len(table), pa.list_(pa.string())))


class PreparedShards(Images):
    """Folders that prepare.py has finished. Rows are numbered through all shards, folder by folder.

    `findings` are the names of the labels. A group is a row group of a shard. The labels of a folder that was prepared
    from an unlabelled source are unknown.

    Raises:
        SourceError: no prepared folder, findings of other names, one that is unfinished, one with a shard that is lost
            or damaged, or folders with images of different sizes.
    """

    def __init__(self, folder: str | Path, *more: str | Path, findings: Sequence[str] = FINDINGS) -> None:
        self.folder, self.findings = Path(folder), tuple(findings)
        found = [_finished_shards(Path(each)) for each in (folder, *more)]
        self.source: str = found[0][0]["source"]
        self.size: int = found[0][0]["size"]
        for each, (manifest, _) in zip(more, found[1:], strict=True):
            if manifest["size"] != self.size:
                raise SourceError(f"{each}: holds images of {manifest['size']} pixels, {folder} of {self.size}")
        self.shards = [shard for _, shards in found for shard in shards]
        self._read_index()
        rows = [sum(read_summary(shard)[0] for shard in shards) for _, shards in found]
        self.folders = np.repeat(np.arange(len(found)), rows)
        unlabelled = [manifest["source"].startswith(f"{UNLABELLED}:") for manifest, _ in found]
        self.labels[np.array(unlabelled)[self.folders]] = np.nan

    def read_images(self, rows: np.ndarray) -> dict[int, pa.Buffer]:
        """Row -> its image file, each row group read once.

        Raises:
            SourceError: a shard cannot be read.
        """
        found: dict[int, pa.Buffer] = {}
        rows = np.unique(rows)
        for group in np.unique(self.groups[rows]):
            shard, number, first = self._places[group]
            wanted = rows[self.groups[rows] == group]
            with _readable(shard), pq.ParquetFile(shard) as file:
                images = file.read_row_group(number, columns=["image.bytes"]).column(0).combine_chunks()
            files = images.field("bytes").take(wanted - first)
            found |= {row: data.as_buffer() for row, data in zip(wanted.tolist(), files, strict=True)}
        return found

    def _read_index(self) -> None:
        self.skipped: dict[str, str] = {}
        self._places: list[tuple[Path, int, int]] = []  # of each row group: shard, number in it, first row
        tables: list[pd.DataFrame] = []
        counts: list[int] = []
        for shard in self.shards:
            with _readable(shard), pq.ParquetFile(shard) as file:
                for number in range(file.num_row_groups):
                    self._places.append((shard, number, sum(counts)))
                    counts.append(file.metadata.row_group(number).num_rows)
                if SIDE_COLUMN not in file.schema_arrow.names:
                    raise SourceError(
                        f"{shard}: was made by an older prepare.py; delete its folder and prepare it again"
                    )
                tables.append(_index_of(file))
            self.skipped |= read_summary(shard)[1]
        table = pa.concat_tables(tables)
        self.groups = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._index(table, table[SIDE_COLUMN].to_numpy())


def _finished_shards(folder: Path) -> tuple[Manifest, list[Path]]:
    """Return the manifest of a prepared folder and all its shards."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise SourceError(f"{folder}: holds no {MANIFEST}; make prepared shards with prepare.py")
    shards = shard_paths(folder, len(manifest["parts"]))
    if lacking := [path.name for path in shards if not path.exists()]:
        raise SourceError(
            f"{folder}: {len(lacking)} of {len(shards)} shards are not there yet, {lacking[0]} the first; "
            "run prepare.py again to continue"
        )
    return manifest, shards


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    """Return arrow's message about a damaged file, in one line that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"{shard}: cannot be read ({reason}); delete it and run prepare.py again") from None


def shard_paths(folder: Path, count: int) -> list[Path]:
    """Where the shards of `count` parts lie."""
    return [folder / SHARD_FOLDER / f"shard-{index:05}-of-{count:05}.parquet" for index in range(count)]


def read_manifest(folder: Path) -> Manifest | None:
    """Read a prepared folder's manifest: `source`, `size`, `seed` and `parts`; None where there is nothing.

    Raises:
        SourceError: a manifest that prepare.py did not write.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); delete the folder and prepare it again") from None
    if not isinstance(manifest, dict) or set(manifest) != MANIFEST_KEYS:
        raise SourceError(f"{path}: was not written by prepare.py; delete the folder and prepare it again")
    return cast(Manifest, manifest)
