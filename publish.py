"""Publish a run on the Hub: publish.py runs/nih --model-repo org/cxr-densenet-fpn --space-repo org/cxr-demo

Or make one ONNX file of it: publish.py runs/nih --onnx model.onnx
Or write a page that reads films in the browser: publish.py runs/nih --static page
Or publish the metric alone: publish.py --metric-repo org/chest_findings
"""

import argparse
import sys
from pathlib import Path

from cxrfpn.terminal import say, show

ROOT = Path(__file__).resolve().parent
# Precisions that are measured before a file is kept.
GUARDED = ("int8", "bf16")
HUB_OPTIONS = ("model_repo", "space_repo", "private", "dry_run")


def main() -> int:
    """Run the command."""
    arguments = _parse()
    # Only now, since --help and wrong usage need none of it.
    from cxrfpn.publishing.metric_space import publish_metric
    from cxrfpn.publishing.release import prepare_release

    try:
        if arguments.metric_repo is not None:
            show(publish_metric(arguments.metric_repo, arguments.private, arguments.dry_run))
            return 0
        if arguments.onnx is not None:
            _export(arguments)
            return 0
        if arguments.static is not None or arguments.static_space is not None:
            _make_page(arguments)
            return 0
        release = prepare_release(arguments.run, arguments.model_repo, arguments.space_repo, arguments.private, ROOT)
        show(release.listing())
        if not arguments.dry_run:
            show(release.upload(arguments.run.resolve().name))
    except (ValueError, OSError) as error:
        say(f"publish: {error}")
        return 2
    except KeyboardInterrupt:
        say("publish: stopped; run the same command again to continue")
        return 130
    return 0


def _export(arguments: argparse.Namespace) -> None:
    from cxrfpn.data.sources import open_source
    from cxrfpn.publishing.onnx_export import export_onnx
    from cxrfpn.publishing.quantising import export_bf16, export_int8
    from loading_cxrfpn import load_pipeline

    precision = next((name for name in GUARDED if getattr(arguments, name) is not None), None)
    pipe = load_pipeline(str(arguments.run))
    if precision is None:
        export_onnx(pipe, arguments.onnx)
    else:
        source = open_source(getattr(arguments, precision), findings=pipe.model.findings)
        export = {"int8": export_int8, "bf16": export_bf16}[precision]
        show(export(pipe, source, arguments.onnx))
    show(f"written: {arguments.onnx} ({arguments.onnx.stat().st_size / 1e6:.1f} MB)")


def _make_page(arguments: argparse.Namespace) -> None:
    from browser.publishing import page_files, publish_page
    from browser.writing import write_folder

    files, lines = page_files(arguments.run, arguments.int8)
    if lines:
        show(lines)
    if arguments.static is not None:
        write_folder(files, arguments.static)
        size = sum(map(len, files.values())) / 1e6
        show(f"written: {arguments.static} ({len(files)} files, {size:.1f} MB)")
    else:
        show(publish_page(files, arguments.static_space, arguments.private, arguments.dry_run))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make a model repository and a Space of a finished run, the Space pinned to the model's commit. "
        "Run again, it uploads only what has changed. Or, with --onnx, make one file of it and upload nothing; or, "
        "with --static, a page that reads films in the browser."
    )
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        help="Publish this run folder of train.py; with --onnx, --static or --static-space any model package.",
    )
    hub = parser.add_argument_group("on the Hub")
    hub.add_argument("--model-repo", metavar="ORG/NAME", help="Upload the model to this repository.")
    hub.add_argument("--space-repo", metavar="ORG/NAME", help="Upload the demo to this Space.")
    hub.add_argument("--metric-repo", metavar="ORG/NAME", help="Upload the metric to this Space; that needs no run.")
    hub.add_argument("--private", action="store_true", help="Make new repositories private.")
    hub.add_argument("--dry-run", action="store_true", help="List what would go where, and change nothing.")
    file = parser.add_argument_group("one file")
    file.add_argument(
        "--onnx", type=Path, metavar="FILE", help="Write the network, its thresholds included, as an ONNX file."
    )
    page = parser.add_argument_group("a page that reads films in the browser")
    page.add_argument("--static", type=Path, metavar="DIR", help="Write the page as a folder for any web server.")
    page.add_argument("--static-space", metavar="ORG/NAME", help="Upload the page to this static Space.")
    precisions = parser.add_argument_group("precision").add_mutually_exclusive_group()
    precisions.add_argument(
        "--bf16",
        metavar="SOURCE",
        help="Let OpenVINO compute in bf16. It is measured on the test images of this source, and refused where they "
        "lose over 0.002 of mean AUROC.",
    )
    precisions.add_argument(
        "--int8",
        metavar="SOURCE",
        help="Write 8-bit integers, calibrated on train images of this source, such as parquet:FOLDER. They are "
        "refused where its test images lose over 0.002 of mean AUROC. A page gets them as a second network.",
    )
    arguments = parser.parse_args()
    if arguments.metric_repo is not None:
        others = ("run", "model_repo", "space_repo", "onnx", "static", "static_space")
        if any(getattr(arguments, name) for name in others):
            parser.error("--metric-repo publishes the metric alone: leave out the run and what belongs to it")
        return arguments
    if arguments.run is None:
        parser.error("give a run folder, or --metric-repo")
    _check_together(parser, arguments)
    return arguments


def _check_together(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a message where options are given that do not go together."""
    made = [name for name in ("onnx", "static", "static_space") if getattr(arguments, name) is not None]
    if len(made) > 1:
        parser.error(f"give one of {' and '.join(map(_option, made))} at a time")
    refused = ("model_repo", "space_repo") if made == ["static_space"] else HUB_OPTIONS
    if made and (given := [_option(name) for name in refused if getattr(arguments, name)]):
        uploads = "uploads the page alone" if made == ["static_space"] else "uploads nothing"
        parser.error(f"{_option(made[0])} {uploads}: leave {', '.join(given)} out, or publish by a command of its own")
    if arguments.bf16 is not None and made != ["onnx"]:
        parser.error("--bf16 goes with --onnx FILE")
    if arguments.int8 is not None and not made:
        parser.error("--int8 goes with --onnx FILE, --static DIR or --static-space ORG/NAME")
    if not made and not (arguments.model_repo and arguments.space_repo):
        parser.error("give both --model-repo and --space-repo, or --onnx FILE, --static DIR or --static-space ORG/NAME")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main())
