"""Stream a source once into small shards: prepare.py --source timm/nih-chest-xray-14 --output data/nih"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cxrfpn.choices import DEFAULT_SOURCE, add_columns_option
from cxrfpn.terminal import say, show

if TYPE_CHECKING:
    from cxrfpn.data.preparing import Prepared


def main() -> int:
    """Run the command."""
    arguments = _parse()
    # Only now, since --help and wrong usage need none of it.
    from cxrfpn.data.preparing import PrepareError, prepare
    from cxrfpn.data.pushing import push_to_hub
    from cxrfpn.data.sources import SourceError, open_source

    try:
        source = open_source(arguments.source, columns=arguments.columns)
        prepared = prepare(source, arguments.output, arguments.size, arguments.processes, arguments.seed)
        _report(prepared)
        if arguments.show:
            _show(prepared.folder, arguments.show)
        if arguments.push_to_hub:
            show(f"on the Hub: {push_to_hub(prepared.folder, arguments.push_to_hub)}")
    except (SourceError, PrepareError, OSError) as error:
        say(f"prepare: {error}")
        return 2
    except KeyboardInterrupt:
        say("prepare: stopped; run the same command again to continue")
        return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Decode every radiograph of a source once and write small grey ones into parquet shards, for "
        "train.py and score.py. Run the same command again after a stop, and it continues."
    )
    parser.add_argument(
        "--source",
        default=DEFAULT_SOURCE,
        help="Read org/name[:config][@revision] on the Hub, nih:FOLDER, parquet:FOLDER, imagefolder:FOLDER, "
        f"disk:FOLDER, csv:FILE, json:FILE or phantom:N (default {DEFAULT_SOURCE}).",
    )
    add_columns_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="Write the shards into this folder.")
    parser.add_argument("--size", type=_positive, default=256, help="Make images of this side in pixels (default 256).")
    parser.add_argument("--processes", type=_positive, help="Work on so many parts at once (default: one a core).")
    parser.add_argument("--seed", type=int, default=0, help="Shuffle the images of a shard by this seed (default 0).")
    parser.add_argument(
        "--show", type=Path, metavar="DIR", help="Draw the data set and its augmentation into this folder."
    )
    parser.add_argument("--push-to-hub", metavar="REPO", help="Upload the shards as a private data set, org/name.")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _report(prepared: Prepared) -> None:
    from cxrfpn.data.preparing import SKIPPED

    if prepared.skipped:
        unreadable = f"{len(prepared.skipped)} images could not be read and are listed in {prepared.folder / SKIPPED}"
        say(f"prepare: {unreadable}")
    show(f"prepared: {prepared.images:,} images in {prepared.folder}")


def _show(folder: Path, pictures: Path) -> None:
    from cxrfpn.data.pictures import (
        save_pictures,
    )  # matplotlib is slow to import, and every process imports this script
    from cxrfpn.data.shards import PreparedShards

    save_pictures(PreparedShards(folder), pictures)
    show(f"pictures: {pictures}")


if __name__ == "__main__":
    sys.exit(main())
