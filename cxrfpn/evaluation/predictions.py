"""Anyone's predictions, read from a table and brought to the order of a source's labels."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configuration_cxrfpn import FINDINGS
from cxrfpn.choices import FIT
from cxrfpn.data.labels import known_matrix, label_matrix
from cxrfpn.data.schema import UNKNOWN_COLUMN
from cxrfpn.data.sharpness import SIDE_COLUMN
from cxrfpn.evaluation.intervals import count_patients
from cxrfpn.evaluation.prediction_files import read_prediction_table
from errors_cxrfpn import CxrFpnError

ID_COLUMNS = ("image_id", "image", "image index", "image_index", "file", "filename", "path", "id")
SUFFIX = re.compile(r"\.(png|jpe?g|webp|tiff?|bmp|dcm|dicom)$", re.IGNORECASE)
_NAMED = 5


class PredictionsError(CxrFpnError):
    """Raised when predictions cannot be used; the message says in one line what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Scored:
    """N images that have both labels and scores.

    metadata has one row an image (METADATA_COLUMNS, and `source_side` and `fit` where known); labels [N,F] bool and
    scores [N,F] in 0..1 follow its order, and that of `findings`. `known` [N,F] bool says which labels are known, None
    that all are; an unknown label is False. `without_scores` are ids of the split that have no score, `without_labels`
    ids that were scored and are nowhere in the source; `elsewhere` counts those of its other splits.
    """

    metadata: pd.DataFrame
    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    without_scores: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    elsewhere: int = 0
    known: NDArray[np.bool_] | None = None
    findings: tuple[str, ...] = FINDINGS

    @property
    def truth(self) -> NDArray[np.float64]:
        """Labels as [N,14] of 0, 1 and NaN for unknown."""
        return self.labels.astype(float) if self.known is None else np.where(self.known, self.labels, np.nan)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Which findings are known not to be there, [N,14]."""
        return ~self.labels if self.known is None else ~self.labels & self.known

    def coverage(self) -> str:
        """One line that counts and names what did not match."""
        line = f"{len(self.metadata)} images scored"
        if self.without_scores:
            line += f"; {len(self.without_scores)} of the split have no score ({_some(self.without_scores)})"
        if self.without_labels:
            line += f"; {len(self.without_labels)} scores are of unknown images ({_some(self.without_labels)})"
        if self.elsewhere:
            line += f"; {self.elsewhere} scores are of other splits"
        return line

    def patients_behind(self) -> list[int]:
        """Return for each finding the patients who have it or those who do not, whichever are fewer."""
        ids = self.metadata["patient_id"]
        return [
            min(pair) for pair in zip(*(count_patients(each, ids) for each in (self.labels, self.absent)), strict=True)
        ]

    def of(self, images: NDArray) -> "Scored":
        """Return some of the images (a mask or indices)."""
        return Scored(
            self.metadata.iloc[np.arange(len(self.metadata))[images]].reset_index(drop=True),
            self.labels[images],
            self.scores[images],
            known=None if self.known is None else self.known[images],
            findings=self.findings,
        )


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of scores: any file or folder that `read_prediction_table` reads.

    A column names the image (image_id, image, Image Index, file, path), and one a finding holds its score in 0..1: in
    any case, with spaces or underscores, with or without `prob_` before the name. Other columns are ignored.

    Returns:
        one row for each image, indexed by its name as it is written, with a column for each of FINDINGS, and
        `source_side` and `fit` where they are given.

    Raises:
        PredictionsError: no such file, no image column, findings missing, an image twice, or a score that is none.
    """
    table = _read_table(Path(path))
    names = {_plain(column): column for column in table.columns}
    id_column = next((names[_plain(name)] for name in ID_COLUMNS if _plain(name) in names), None)
    if id_column is None:
        raise PredictionsError(f"{path}: no column names the image; call one of its {len(table.columns)} image_id")
    chosen = {finding: _score_column(names, finding) for finding in FINDINGS}
    if missing := [finding for finding, column in chosen.items() if column is None]:
        raise PredictionsError(f"{path}: has no column for {', '.join(missing)}; it needs the 14 findings")
    # predict.py leaves a row without scores for an image that it could not read.
    table = table.dropna(subset=list(chosen.values()), how="all").reset_index(drop=True)
    if not len(table):
        raise PredictionsError(f"{path}: has no rows with scores")
    ids = table[id_column].astype(str).str.strip()
    if ids.duplicated().any():
        raise PredictionsError(f"{path}: has the image {ids[ids.duplicated()].iloc[0]} twice")
    scores = pd.DataFrame({finding: table[column] for finding, column in chosen.items()})
    scores = scores.apply(pd.to_numeric, errors="coerce").astype(float)
    _check_range(scores, ids, path)
    for column in {SIDE_COLUMN, FIT} & set(table.columns):
        scores[column] = pd.to_numeric(table[column], errors="coerce")
    return scores.set_axis(pd.Index(ids, name="image_id"), axis=0)


def match(
    predictions: pd.DataFrame,
    metadata: pd.DataFrame,
    everything: pd.DataFrame,
    name: str,
    findings: tuple[str, ...] = FINDINGS,
) -> Scored:
    """Bring predictions and a split's metadata together by image id, in the metadata's order.

    Ids are compared as they are written; if none is the same, without extensions, and then without folders as well.

    Args:
        predictions: indexed by image, as `read_predictions` and `run_model` give them.
        metadata: of the split; `everything`: of the whole source.
        name: what errors call the predictions.
        findings: those that are scored.

    Raises:
        PredictionsError: no image is in both, or two images are the same but for their folders or extensions; the
            message names some of them.
    """
    shorten = next((form for form in FORMS if _common(form, predictions, everything)), FORMS[-1])
    written, predictions = predictions.index, predictions.set_axis(shorten(predictions.index), axis=0)
    _refuse_twins(predictions.index, written, predictions.index, f"{name}: the predictions")
    _refuse_twins(shorten(everything["image_id"]), everything["image_id"], predictions.index, f"{name}: the images")
    ids = shorten(metadata["image_id"])
    found = ids.isin(predictions.index)
    if not found.any():
        raise PredictionsError(
            f"{name}: none of its {len(predictions)} images ({_some(predictions.index)}) is among the {len(ids)} "
            f"of the split ({_some(ids)})"
        )
    rows = metadata[found].reset_index(drop=True)
    others = predictions.index.difference(ids, sort=False)
    elsewhere = others.isin(shorten(everything["image_id"]))
    matched = predictions.loc[ids[found]]
    for column in {SIDE_COLUMN, FIT} & set(predictions.columns):
        rows[column] = matched[column].to_numpy()
    return Scored(
        metadata=rows,
        labels=label_matrix(rows, findings),
        known=known_matrix(rows, findings) if UNKNOWN_COLUMN in rows else None,
        scores=matched[list(findings)].to_numpy(),
        findings=findings,
        without_scores=tuple(ids[~found]),
        without_labels=tuple(others[~elsewhere]),
        elsewhere=int(elsewhere.sum()),
    )


def _as_written(names: Iterable[str]) -> pd.Index:
    return pd.Index(names, dtype=object)


def _without_extension(names: Iterable[str]) -> pd.Index:
    return _as_written(names).str.replace(SUFFIX, "", regex=True)


def _without_folder(names: Iterable[str]) -> pd.Index:
    return _without_extension(names).str.replace(r"^.*[/\\]", "", regex=True)


FORMS = (_as_written, _without_extension, _without_folder)


def _common(form: Callable[[Iterable[str]], pd.Index], predictions: pd.DataFrame, metadata: pd.DataFrame) -> bool:
    return bool(form(predictions.index).isin(form(metadata["image_id"])).any())


def _refuse_twins(ids: pd.Index, written: Iterable[str], wanted: pd.Index, which: str) -> None:
    """Refuse ids that two images share and that are wanted: a score would count for both of them."""
    twins = ids[ids.duplicated() & ids.isin(wanted)]
    if len(twins):
        one, other, *_ = _as_written(written)[ids == twins[0]]
        raise PredictionsError(
            f"{which} {one} and {other} cannot be told apart as {twins[0]}; name images by the source's own ids"
        )


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return read_prediction_table(path)
    except FileNotFoundError:
        raise PredictionsError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' and arrow's parsers raise many kinds of ValueError
        raise PredictionsError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]})") from None


def _plain(column: object) -> str:
    return re.sub(r"[\s_-]+", "_", str(column).strip().lower())


def _score_column(names: dict[str, str], finding: str) -> str | None:
    """prob_X before X: where a table has both, X is usually the label."""
    plain = _plain(finding)
    return names.get(f"prob_{plain}") or names.get(plain)


def _check_range(scores: pd.DataFrame, ids: pd.Series, path: str | Path) -> None:
    wrong = ~((scores >= 0) & (scores <= 1)).to_numpy()
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0]
    finding, value = FINDINGS[column], scores.iloc[row, column]
    said = "no number" if np.isnan(value) else f"{value:g}, outside 0..1; apply a sigmoid to logits"
    raise PredictionsError(f"{path}: image {ids.iloc[row]}, {finding}: the score is {said}")


def _some(ids: Iterable[str]) -> str:
    names = list(ids)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
