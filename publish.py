"""Publish a run on the Hub: publish.py runs/nih --model-repo org/cxr-densenet-fpn --space-repo org/cxr-demo"""

import argparse
import sys
from pathlib import Path

from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.release import prepare_release

ROOT = Path(__file__).resolve().parent


def main() -> int:
    arguments = _parse()
    try:
        release = prepare_release(arguments.run, arguments.model_repo, arguments.space_repo, arguments.private, ROOT)
        print(release.listing())
        if not arguments.dry_run:
            print(release.upload(arguments.run.resolve().name))
    except (PublishError, OSError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("publish: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make a model repository and a Space of a finished run, the Space pinned to the model's commit. "
        "Run again, it uploads only what has changed."
    )
    parser.add_argument("run", type=Path, help="a run folder, as train.py writes it")
    parser.add_argument("--model-repo", metavar="ORG/NAME", required=True, help="the model's repository")
    parser.add_argument("--space-repo", metavar="ORG/NAME", required=True, help="the demo's Space")
    parser.add_argument("--private", action="store_true", help="what is created is private")
    parser.add_argument("--dry-run", action="store_true", help="list what would go where, and change nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
