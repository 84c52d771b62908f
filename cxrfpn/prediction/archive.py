"""A whole archive -> a folder of findings, by as many processes and machines as accelerate starts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object, parse_flag_from_env
from tqdm import tqdm

from cxrfpn.data.schema import Source
from cxrfpn.data.sources import open_source
from cxrfpn.files import clear_unfinished, write_text
from cxrfpn.prediction.parts import Tally, predict_parts, summarise
from engine_cxrfpn import AUTO, Engine, load_engine
from errors_cxrfpn import CxrFpnError

MANIFEST = "predictions.json"
PART_FOLDER = "parts"
# How long the processes wait for the slowest of them.
PATIENCE = timedelta(days=7)


class ArchiveError(CxrFpnError):
    """Raised when a folder of predictions cannot be resumed; the message is one line."""


@dataclass(frozen=True)
class _Plan:
    """What the first process found and the others need: part -> file of all parts, those to do, what is done."""

    source: Source
    files: dict[str, Path]
    todo: list[str]
    done: Tally
    backend: str


def predict_archive(
    model: str,
    source: str,
    folder: str | Path,
    *,
    batch_size: int = 16,
    operating_point: str | None = None,
    embeddings: bool = False,
    backend: str = AUTO,
) -> Tally | None:
    """Predict every image of a source; a part of it becomes one parquet file of the folder.

    Started by accelerate in several processes, each does its share of the parts. Stopped in any way and started again,
    in as many processes or in others, they do the parts that are missing.

    Args:
        model: as of `load_engine`.
        source: anything that `open_source` opens; its findings are not read, and it may have none.
        embeddings: write the embedding of every image too, a list column.
        backend: what runs the network, as of `load_engine`; one for the whole folder.
        folder: what is written: MANIFEST, which says what of and with what, and PART_FOLDER.

    Returns:
        what the folder then holds, in the first process; None in the others.

    Raises:
        ArchiveError: the folder was started with something else.
        SourceError, PartError, ValueError, OSError: source, files or model; in the first process alone, wherever it
            can be said before the work begins.
    """
    group = InitProcessGroupKwargs(timeout=PATIENCE)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **group.to_kwargs())
    engine, plan = None, None
    try:
        if state.is_main_process:
            engine = load_engine(model, backend)
            plan = _begin(engine, open_source(source, without=("findings",)), Path(folder), operating_point, embeddings)
    finally:  # the others wait for it, even if it is that there will be nothing to do
        (plan,) = broadcast_object_list([plan])
    if plan is None:
        return None
    engine = engine or load_engine(model, plan.backend)
    if engine.backend == "torch":
        engine.to(state.device)  # type: ignore[attr-defined]
    mine = {part: plan.files[part] for part in plan.todo[state.process_index :: state.num_processes]}
    with tqdm(unit=" images", disable=not state.is_main_process, mininterval=0.5) as bar:
        seen = _show_progress(bar, Path(folder), len(plan.files))
        tally = predict_parts(
            engine,
            plan.source,
            mine,
            batch_size=batch_size,
            operating_point=operating_point,
            embeddings=embeddings,
            seen=seen,
        )
        if state.num_processes > 1:
            bar.set_description("waiting for the other processes")
        tallies = gather_object([tally])
    state.destroy_process_group()
    return sum(tallies, plan.done) if state.is_main_process else None


def _begin(engine: Engine, source: Source, folder: Path, operating_point: str | None, embeddings: bool) -> _Plan:
    """Start a folder, or find out what is missing of one that was started."""
    parts = source.parts()
    thresholds = engine.thresholds.at(operating_point)
    _open_folder(
        folder,
        {
            "source": source.name,
            "weights_digest": engine.weights_digest(),
            "operating_point": operating_point or engine.thresholds.default,
            "thresholds": thresholds,
            "embeddings": embeddings,
            "backend": engine.backend,
            "parts": parts,
        },
    )
    count, there = len(parts), _finished(folder)
    files = {part: folder / PART_FOLDER / f"part-{index:05}-of-{count:05}.parquet" for index, part in enumerate(parts)}
    todo = [part for part, file in files.items() if file.name not in there]
    done = (summarise(file) for file in files.values() if file.name in there)
    return _Plan(source, files, todo, sum(done, Tally()), engine.backend)


def _open_folder(folder: Path, manifest: dict[str, object]) -> None:
    """Start a folder, or check that the one that was started is the same.

    Raises:
        ArchiveError: it was started with something else, or holds what this did not write.
    """
    started = _read_manifest(folder / MANIFEST)
    if started is None:
        if folder.exists() and not all(path.name.startswith(MANIFEST) for path in folder.iterdir()):
            raise ArchiveError(f"{folder}: is not empty and was not made by predict.py; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1))
    elif differing := [key for key in manifest if started.get(key) != manifest[key]]:
        key = differing[0]
        is_long = isinstance(manifest[key], list | dict)
        there, here = (f"other {key}", "these") if is_long else (f"{key} {started.get(key)}", manifest[key])
        raise ArchiveError(f"{folder}: was started with {there}, not {here}; choose another folder")
    (folder / PART_FOLDER).mkdir(exist_ok=True)
    clear_unfinished(folder)


def _read_manifest(path: Path) -> dict[str, object] | None:
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path}: cannot be read ({error}); choose another folder") from None
    if not isinstance(manifest, dict):
        raise ArchiveError(f"{path}: was not written by predict.py; choose another folder")
    return manifest


def _finished(folder: Path) -> set[str]:
    """Return the names of the parts that are there, written by any process."""
    return {path.name for path in (folder / PART_FOLDER).glob("*.parquet")}


def _show_progress(bar: tqdm, folder: Path, parts: int) -> Callable[[int], None]:
    """Yield the images of this process, and in front of them the parts of all."""

    def seen(images: int) -> None:
        if bar.disable:
            return
        if images == 0:
            bar.set_description(f"predicting, {len(_finished(folder))} of {parts} parts", refresh=False)
        bar.update(images)

    seen(0)
    return seen
