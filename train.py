"""Train a model package: accelerate launch train.py recipes/nih-mini.yaml --output-dir runs/first"""

import argparse
import sys
from pathlib import Path

from cxrfpn.data.sources import SourceError
from cxrfpn.training.loop import train
from cxrfpn.training.recipe import RecipeError, read_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the classifier and write a model package.")
    parser.add_argument("recipe", type=Path, help="a recipe, such as recipes/nih-mini.yaml")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/latest"), help="the run folder (runs/latest)")
    arguments = parser.parse_args()
    try:
        train(read_recipe(arguments.recipe), arguments.output_dir)
    except (RecipeError, SourceError, FloatingPointError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    print(f"model package: {arguments.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
