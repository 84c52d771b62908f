"""What belongs to the model's repository and what to the Space's, read once, so that what is checked is what goes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load
from transformers.dynamic_module_utils import get_relative_imports

from configuration_cxrfpn import CxrFpnConfig
from cxrfpn.evaluation.card import write_card
from cxrfpn.evaluation.card_sections import CAPTIONS
from cxrfpn.evaluation.eval_results import eval_results
from cxrfpn.evaluation.figures import Figures
from cxrfpn.evaluation.scoring import read_thresholds
from errors_cxrfpn import CxrFpnError
from package_cxrfpn import WEIGHTS, weights_digest
from thresholds_cxrfpn import ThresholdsError

THRESHOLDS, METRICS, RECIPE, CARD = "thresholds.json", "metrics.json", "recipe.yaml", "README.md"
CONFIGURATION = "configuration.txt"
NEEDED = ("config.json", "preprocessor_config.json", WEIGHTS, THRESHOLDS, METRICS)
RECORDS = (RECIPE, CONFIGURATION, "validation_metrics.csv", "test_metrics.csv")
# /home/name/films, ~/films, ../films, C:\films: but no address (https://...), and no name on the Hub (org/name).
LOCAL_PATH = re.compile(r"(?<![\w/\\.~])(?:(?:~|\.{1,2})?(?:/[^\s/,;:'\"]+)+/?|[A-Za-z]:(?:\\[^\s\\,;:'\"]+)+\\?)")
# It shows radiographs, and those are not ours to publish.
KEPT_HERE = "plots/examples.png"
# What an earlier publication may have left behind. Other files of a repository are not ours, and stay.
STALE = {
    "model": re.compile(rf"\w+_cxrfpn\.py|plots/[^/]+\.png|{'|'.join(map(re.escape, RECORDS))}"),
    "space": re.compile(r"\w+_cxrfpn\.py|demo/.+|chunks/[\w-]+\.js"),
}


class PublishError(CxrFpnError):
    """Raised when something cannot be published; the message says in one line what is wrong and what to do."""


def model_files(run: Path, repo: str) -> dict[str, bytes]:
    """Collect the model's repository as path -> content: the package of a run, its figures, plots and card.

    The card is written again from metrics.json, under the name that the model has on the Hub and without the pictures
    that stay here. Checkpoints, logs, predictions and pictures of radiographs are left out.

    Raises:
        PublishError: the folder is no package, or its thresholds or figures belong to other weights.
    """
    needed = [*NEEDED, *package_modules(run)]
    if missing := [name for name in needed if not (run / name).is_file()]:
        raise PublishError(
            f"{run}: is no finished run, for want of {', '.join(missing)}; train.py writes the package and, once it "
            "has scored the test split, metrics.json"
        )
    names = [*needed, *(name for name in RECORDS if (run / name).is_file())]
    names += sorted(path.relative_to(run).as_posix() for path in run.glob("plots/*.png"))
    files = {name: (run / name).read_bytes() for name in names if name != KEPT_HERE}
    files |= {name: without_folders(files[name].decode()).encode() for name in (RECIPE, CONFIGURATION) if name in files}
    _check_thresholds(run, files)
    card = _card(run, files, repo).encode()
    results = eval_results(json.loads(files[METRICS]))
    return {**files, CARD: card, **{path: content.encode() for path, content in results.items()}}


def package_modules(package: Path) -> list[str]:
    """Name the modules that a package's model imports, as transformers finds them; some of them may be missing.

    A run that an earlier version made has the modules of that version.
    """
    names: set[str] = set()
    queue = ["modeling_cxrfpn"]
    while queue:
        name = queue.pop()
        if name not in names:
            names.add(name)
            path = package / f"{name}.py"
            queue += get_relative_imports(path) if path.is_file() else []
    return sorted(f"{name}.py" for name in names)


def without_folders(text: str) -> str:
    """Return text with only the last part of each path that begins at a root, at home or at a folder above."""
    return LOCAL_PATH.sub(lambda path: re.split(r"[/\\]", path[0].rstrip("/\\"))[-1], text)


def space_files(tree: Path) -> dict[str, bytes]:
    """Collect the Space's repository as path -> content: the demo, its modules, and what to install.

    Args:
        tree: this project's folder.

    Raises:
        PublishError: a file is missing.
    """
    needed = [tree / name for name in ("app.py", "requirements.txt", "demo/__init__.py", f"space/{CARD}")]
    if missing := [str(path) for path in needed if not path.is_file()]:
        raise PublishError(f"{', '.join(missing)}: missing, and the Space needs it")
    paths = [tree / "app.py", tree / "requirements.txt", *tree.glob("*_cxrfpn.py"), *(tree / "demo").rglob("*")]
    names = {path.relative_to(tree): path for path in paths if path.is_file()}
    files = {name.as_posix(): path.read_bytes() for name, path in sorted(names.items()) if not _is_litter(name.parts)}
    return {**files, CARD: (tree / "space" / CARD).read_bytes()}


def _is_litter(parts: tuple[str, ...]) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in parts)


def _check_thresholds(run: Path, files: Mapping[str, bytes]) -> None:
    try:
        thresholds = read_thresholds(run / THRESHOLDS, _findings(run))
    except ThresholdsError as error:
        raise PublishError(str(error)) from None
    _check_weights(run / THRESHOLDS, thresholds.fitted_on.get("weights_digest"), files[WEIGHTS], "was fitted")


def _findings(run: Path) -> tuple[str, ...]:
    try:
        return CxrFpnConfig.from_dict(json.loads((run / "config.json").read_text())).findings
    except (ValueError, TypeError) as error:
        raise PublishError(f"{run / 'config.json'}: cannot be used ({error}); copy the whole package again") from None


def _check_weights(path: Path, expected: str | None, weights: bytes, how: str) -> None:
    actual = weights_digest(load(weights))
    if expected is not None and expected != actual:
        raise PublishError(
            f"{path}: {how} with other weights than {WEIGHTS} (digest {expected[:12]}, not {str(actual)[:12]}); "
            "fit and score this run again with score.py"
        )


def _card(run: Path, files: Mapping[str, bytes], repo: str) -> str:
    """README.md from metrics.json."""
    path, recipe = run / METRICS, files.get(RECIPE)
    try:
        figures: Figures = json.loads(files[METRICS])
        _check_weights(path, figures.get("weights_digest"), files[WEIGHTS], "was measured")
        if not figures["is_model"]:
            raise PublishError(
                f"{path}: has the figures of a table of predictions; score the run with score.py --model"
            )
        plots = [name for name in CAPTIONS if f"plots/{name}.png" in files]
        return write_card({**figures, "system": repo}, plots, recipe.decode() if recipe else None)
    except KeyError as error:
        raise PublishError(f"{path}: lacks {error}; score this run again with score.py") from None
    except json.JSONDecodeError as error:
        raise PublishError(f"{path}: is not JSON ({error}); score this run again with score.py") from None
