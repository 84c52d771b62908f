"""Score a model, or anyone's predictions: score.py --model . --source parquet:FOLDER [--split test]"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrfpn.choices import GUARANTEE, LABEL_TABLE_NAMES, MIN_PRECISION, PROTOCOL_NAMES, SPLITS, add_columns_option
from cxrfpn.terminal import say, show
from engine_cxrfpn import AUTO, BACKENDS, load_engine
from findings_cxrfpn import FINDINGS

if TYPE_CHECKING:
    from cxrfpn.data.schema import Source
    from cxrfpn.evaluation.reporting import Report

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Run the command."""
    arguments = _parse()
    # Only now, since --help and wrong usage need none of it.
    from cxrfpn.evaluation.reporting import save_checklist, save_report

    try:
        report = _score(arguments)
        if arguments.no_examples:
            report = replace(report, examples={})
        written = save_report(report, arguments.output_dir)
        counts: list[str] = []
        if arguments.checklist:
            checklist, counts = save_checklist(report, arguments.output_dir)
            written.append(checklist)
    except (ValueError, OSError) as error:
        say(f"score: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    show(report.summary(), *counts)
    show(f"written: {', '.join(map(str, written))}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score a model, or a table of predictions, and write figures, predictions, plots and a card.",
        epilog="Predictions: a CSV or parquet with a column image_id and one a finding, with or without prob_ before "
        "its name. A source's metadata is enough to score them: nih:FOLDER with a Data_Entry CSV and no images.",
    )
    system = parser.add_mutually_exclusive_group()
    system.add_argument(
        "--model",
        default=str(ROOT),
        help="Use this model package, a folder or a Hub id (default: this repository's model).",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="Run the modules of the model's package instead of ours. A Hub id must name a commit, org/name@COMMIT.",
    )
    system.add_argument(
        "--predictions", type=Path, nargs="+", metavar="FILE", help="Score one table of predictions, or compare two."
    )
    parser.add_argument("--source", help="Score labelled images, such as parquet:FOLDER or nih:FOLDER.")
    add_columns_option(parser)
    parser.add_argument(
        "--labels",
        metavar="KIND:FILE",
        help=f"Measure by another test set's table of labels, a KIND of {', '.join(LABEL_TABLE_NAMES)}. Without "
        "--source, the images in its folder are scored; with --source, the same scores are measured by them too.",
    )
    parser.add_argument(
        "--split", choices=SPLITS, help="Score this split (default: test; all images of a table of labels)."
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOL_NAMES, default="official", help="Split as this protocol does (default official)."
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("scores"), help="Write all results into this folder (default scores)."
    )
    parser.add_argument(
        "--thresholds", type=Path, help="Call predictions by this thresholds.json (default: 0.5 for every finding)."
    )
    parser.add_argument(
        "--fit-thresholds",
        action="store_true",
        help="Fit thresholds and calibration on this split, which must not be test.",
    )
    parser.add_argument(
        "--minimum-precision",
        type=float,
        help="Constrain operating points of --fit-thresholds to this precision, 0 to 1 (default: that of the model's "
        f"own thresholds, or {MIN_PRECISION}).",
    )
    parser.add_argument(
        "--guarantee",
        type=float,
        metavar="SHARE",
        help="Fit three-way calls that get this share of films with a finding, and of films without it, right or leave "
        f"them uncertain (default: that of the model's own thresholds, or {GUARANTEE}).",
    )
    parser.add_argument(
        "--prevalence", help="Adjust probabilities to this prevalence: observed, or a JSON file {finding: 0 to 1}."
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=AUTO,
        help="Run the network by this library, as in predict.py (default auto).",
    )
    parser.add_argument("--name", help="Call the model so in the card (default: its Hub id, or its folder).")
    parser.add_argument("--resamples", type=int, default=1000, help="Draw so many bootstrap resamples (default 1000).")
    parser.add_argument(
        "--resample-images",
        action="store_true",
        help="Resample images instead of patients, which makes intervals too narrow.",
    )
    parser.add_argument(
        "--no-examples", action="store_true", help="Draw no radiographs, which may not be yours to publish."
    )
    parser.add_argument(
        "--checklist", action="store_true", help="Write checklist.md: what the run answers of CLAIM 2024 and TRIPOD+AI."
    )
    parser.add_argument("--batch-size", type=int, default=16, help="Run so many radiographs at once (default 16).")
    arguments = parser.parse_args()
    if not arguments.source and not arguments.labels:
        parser.error("give --source, --labels, or both")
    arguments.split = arguments.split or ("test" if arguments.source else "all")
    if arguments.predictions and len(arguments.predictions) > 2:
        parser.error("--predictions takes one file, or two to compare")
    if arguments.thresholds and not arguments.predictions:
        parser.error("--thresholds goes with --predictions; a model brings its own")
    if min(arguments.resamples, arguments.batch_size) < 1:
        parser.error("--resamples and --batch-size must be 1 or more")
    if arguments.minimum_precision is not None and not 0 <= arguments.minimum_precision <= 1:
        parser.error("--minimum-precision must lie in 0 to 1")
    if arguments.guarantee is not None and not 0 < arguments.guarantee < 1:
        parser.error("--guarantee must lie between 0 and 1")
    return arguments


def _score(arguments: argparse.Namespace) -> Report:
    from cxrfpn.data.cohort import PROTOCOLS
    from cxrfpn.data.label_tables import LabelTableSource, open_label_table
    from cxrfpn.data.sources import open_source
    from cxrfpn.evaluation.reporting import ScoreRequest, score_model, score_predictions
    from cxrfpn.evaluation.scoring import Settings, read_prevalence

    settings = Settings(
        resamples=arguments.resamples,
        resample_images=arguments.resample_images,
        prevalence=read_prevalence(arguments.prevalence) if arguments.prevalence else None,
    )
    labels = open_label_table(arguments.labels) if arguments.labels else None
    if labels is not None:
        say(*labels.summary().split("\n"))
    engine = None
    if not arguments.predictions:
        engine = load_engine(arguments.model, arguments.backend, trust_remote_code=arguments.trust_remote_code)
    findings = FINDINGS if engine is None else engine.findings
    if labels is not None and not arguments.source:
        source: Source = LabelTableSource(labels)
    else:
        source = open_source(arguments.source, columns=arguments.columns, findings=findings)
    request = ScoreRequest(
        source=source,
        split=arguments.split,
        protocol=PROTOCOLS[arguments.protocol](),
        settings=settings,
        fit=arguments.fit_thresholds,
        minimum_precision=arguments.minimum_precision,
        guarantee=arguments.guarantee,
        labels=labels,
    )
    if engine is None:
        return score_predictions(arguments.predictions, request, arguments.thresholds)
    return score_model(engine, request, arguments.batch_size, arguments.name)


if __name__ == "__main__":
    sys.exit(main())
