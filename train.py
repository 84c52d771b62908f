"""Train a model package: accelerate launch train.py recipes/smoke.yaml --output-dir runs/smoke"""

import argparse
import sys
from pathlib import Path

from cxrfpn.terminal import say, show
from errors_cxrfpn import CxrFpnError


def main() -> int:
    """Run the command."""
    arguments, overrides = _parse()
    # Only now, since --help and wrong usage need none of it.
    import torch

    from cxrfpn.training.allocator import keep_freed_memory
    from cxrfpn.training.loop import Stopped, train
    from cxrfpn.training.recipe import read_recipe

    folder = arguments.output_dir or Path("runs") / arguments.recipe.stem
    if not torch.cuda.is_available():
        keep_freed_memory()
    try:
        train(read_recipe(arguments.recipe, overrides), folder, arguments.resume)
    except Stopped:
        say(f"train: stopped, with a checkpoint in {folder}; continue it with --resume")
        return 130
    except KeyboardInterrupt:  # while images are prepared, or the test split is scored
        say(f"train: stopped; start it again, with --resume if {folder} holds a run")
        return 130
    except CxrFpnError as error:
        say(f"train: {error}")
        return 2
    except OSError as error:
        say(f"train: {error}; fix that, and continue with --resume")
        return 2
    show(f"model package: {folder}")
    return 0


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description="Train the classifier and write a model package.",
        epilog="Any key of the recipe can be changed: --learning-rate 3.0e-4 --loss.label_smoothing 0.05 "
        "--cycles '[{epochs: 1, image_size: 64}]'",
    )
    parser.add_argument("recipe", type=Path, help="Follow this recipe, such as recipes/nih.yaml.")
    parser.add_argument(
        "--output-dir", type=Path, help="Write the run into this folder (default: runs/ and the recipe's name)."
    )
    parser.add_argument("--resume", action="store_true", help="Resume from the run folder's last checkpoint.")
    return parser.parse_known_args()


if __name__ == "__main__":
    sys.exit(main())
