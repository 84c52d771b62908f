"""Findings of radiographs: predict.py radiograph.png other.dcm folder/ 'archive/**/*.png' --format json"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cxrfpn.choices import FORM_NAMES
from cxrfpn.terminal import say, show
from engine_cxrfpn import AUTO, BACKENDS, load_engine

if TYPE_CHECKING:
    from cxrfpn.prediction.inputs import Input
    from cxrfpn.prediction.predicting import Prediction
    from engine_cxrfpn import Engine

ROOT = Path(__file__).resolve().parent
# Files that are named where many are skipped.
LISTED = 10


def main() -> int:
    """Run the command."""
    arguments = _parse()
    # Only now, since --help and wrong usage need none of it.
    from cxrfpn.prediction.maps import save_maps
    from cxrfpn.prediction.predicting import predict
    from cxrfpn.prediction.tables import write_predictions

    try:
        if arguments.source is not None:
            return _predict_archive(arguments)
        inputs = _inputs(arguments)
        engine = load_engine(arguments.model, arguments.backend, trust_remote_code=arguments.trust_remote_code)
        errors: list[str] = []
        unlinked: list[str] = []
        predictions = predict(
            engine,
            inputs,
            batch_size=arguments.batch_size,
            operating_point=arguments.operating_point,
            maps=arguments.maps is not None or arguments.dicom_out is not None,
        )
        watched = _watch(predictions, len(inputs), errors)
        drawn = watched if arguments.maps is None else save_maps(watched, engine, arguments.maps)
        if arguments.dicom_out is not None:
            drawn = _save_reports(drawn, inputs, engine, arguments, unlinked)
        write_predictions(drawn, arguments.format, arguments.output, engine.findings)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stdout = None
        return 0
    except (ValueError, OSError) as error:
        say(f"predict: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    for place in (arguments.output, arguments.maps, arguments.dicom_out):
        if place is not None:
            say(f"written: {place}")
    if errors:
        _list(f"predict: {len(errors)} of {len(inputs)} could not be predicted:", errors)
    if unlinked:
        _list("predict: films without a DICOM report:", unlinked)
    return 2 if errors else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print the 14 findings of chest radiographs. Not for clinical use.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="Predict these files, folders or globs.")
    parser.add_argument(
        "--source",
        help="Predict an archive instead of PATHs, in as many processes as accelerate starts, part by part into the "
        "folder --output: org/name[@revision] on the Hub, nih:FOLDER, parquet:FOLDER, csv:FILE or phantom:N.",
    )
    parser.add_argument("--age", help="Take this age in years for every patient (default: from the file, or unknown).")
    parser.add_argument("--sex", help="Take this sex, M or F, for every patient (default: from the file, or unknown).")
    parser.add_argument(
        "--view-position", help="Take this view, PA or AP, for every radiograph (default: from the file, or unknown)."
    )
    parser.add_argument(
        "--patients", type=Path, help="Read patients from a table with the columns image, age, sex and view_position."
    )
    parser.add_argument(
        "--model",
        default=str(ROOT),
        help="Use this model package, a folder or a Hub id (default: this repository's model).",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="Run the modules of the model's package instead of ours. A Hub id must name a commit, org/name@COMMIT.",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=AUTO,
        help="Run the network by torch, or by onnx (onnxruntime) or openvino with a file of publish.py --onnx beside "
        "the model. The default, auto, takes the fastest that is there.",
    )
    parser.add_argument(
        "--operating-point", help="Call findings by the thresholds of this operating point (default: the model's)."
    )
    parser.add_argument("--format", choices=FORM_NAMES, help="Write the answer in this form (default table).")
    parser.add_argument("--output", type=Path, help="Write to this file (default: standard output).")
    parser.add_argument("--maps", type=Path, help="Draw where each positive finding was seen into this folder.")
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="With --source, write the network's pooled features too, as a list column.",
    )
    parser.add_argument(
        "--dicom-out",
        type=Path,
        help="Write a structured report and a secondary capture of each DICOM film into this folder.",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="Run so many radiographs at once (default 16).")
    arguments = parser.parse_args()
    if (arguments.source is None) == (not arguments.paths):
        parser.error("give either PATHs or --source")
    if arguments.source is not None:
        if arguments.output is None:
            parser.error("--source needs --output, the folder to write")
        foreign = ("age", "sex", "view_position", "patients", "maps", "dicom_out", "format")
        if given := [name for name in foreign if getattr(arguments, name) is not None]:
            parser.error(f"--source knows the patients and writes parquet: leave --{given[0].replace('_', '-')} out")
    if arguments.embeddings and arguments.source is None:
        parser.error("--embeddings goes with --source; in Python, pipe(..., embedding=True) gives them")
    if arguments.trust_remote_code and (arguments.source is not None or arguments.backend not in (AUTO, "torch")):
        parser.error("--trust-remote-code goes with PATHs and torch")
    if arguments.dicom_out is not None and arguments.trust_remote_code:
        parser.error("--dicom-out runs our code: leave --trust-remote-code out")
    arguments.format = arguments.format or "table"
    if arguments.patients and (arguments.age, arguments.sex, arguments.view_position) != (None, None, None):
        parser.error("give either --patients or --age, --sex and --view-position")
    if arguments.batch_size < 1:
        parser.error("--batch-size must be 1 or more")
    return arguments


def _predict_archive(arguments: argparse.Namespace) -> int:
    try:  # here, since files are predicted without what an archive needs
        from cxrfpn.prediction.archive import predict_archive

        tally = predict_archive(
            arguments.model,
            arguments.source,
            arguments.output,
            batch_size=arguments.batch_size,
            operating_point=arguments.operating_point,
            embeddings=arguments.embeddings,
            backend=arguments.backend,
        )
    except ModuleNotFoundError as error:
        raise ValueError(f"--source needs {error.name}: pip install 'cxr-densenet-fpn[train]'") from None
    if tally is None:  # one of several processes, of which the first one reports
        return 0
    if tally.unreadable:
        say(f"predict: {tally.unreadable} of {tally.images} images could not be read; their rows say why")
    if tally.failed:
        _list(f"predict: {len(tally.failed)} parts could not be read:", tally.failed)
        return 2
    show(f"predicted: {tally.images:,} images in {arguments.output}")
    return 0


def _save_reports(
    predictions: Iterable[Prediction],
    inputs: list[Input],
    engine: Engine,
    arguments: argparse.Namespace,
    unlinked: list[str],
) -> Iterator[Prediction]:
    try:  # here, since findings need no highdicom
        from cxrfpn.prediction.dicom_out import save_reports
    except ModuleNotFoundError as error:
        raise ValueError(f"--dicom-out needs {error.name}: pip install 'cxr-densenet-fpn[reports]'") from None
    return save_reports(predictions, inputs, engine, arguments.dicom_out, unlinked, arguments.operating_point)


def _inputs(arguments: argparse.Namespace) -> list[Input]:
    from cxrfpn.prediction.inputs import Input, find_radiographs, match_patients, read_patients
    from patient_cxrfpn import Patient

    found = find_radiographs(arguments.paths)
    if skipped := [path for path in found.skipped if path != arguments.patients]:
        names = ", ".join(path.name for path in skipped[:LISTED])
        more = ", ..." if len(skipped) > LISTED else ""
        say(f"predict: files that are no pictures, skipped: {len(skipped)} ({names}{more})")
    paths = found.radiographs
    if arguments.patients is None:
        patient = {"age": arguments.age, "sex": arguments.sex, "view_position": arguments.view_position}
        Patient(**patient)  # refused here, before the model is loaded
        return [Input(path, {key: value for key, value in patient.items() if value is not None}) for path in paths]
    inputs, unused = match_patients(paths, read_patients(arguments.patients))
    unknown = sum(not entry.patient for entry in inputs)
    if unused or unknown:
        say(
            f"predict: {unknown} files have no row in {arguments.patients} (their patients count as unknown), "
            f"and {len(unused)} of its rows have no file"
        )
    return inputs


def _list(title: str, lines: Iterable[str]) -> None:
    say(title, *(f"  {line}" for line in lines))


def _watch(predictions: Iterable[Prediction], count: int, errors: list[str]) -> Iterator[Prediction]:
    from tqdm import tqdm

    for prediction in tqdm(predictions, total=count, unit=" images", desc="predicting", delay=2, file=sys.stderr):
        if prediction.error is not None:
            errors.append(prediction.error)
        yield prediction


if __name__ == "__main__":
    sys.exit(main())
