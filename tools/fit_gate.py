"""Fit the gate and measure it: python -m tools.fit_gate --source parquet:FOLDER (labelled radiographs of any source)"""

import argparse
import json
import sys

import numpy as np
from tqdm import tqdm

from demo.gate import FILE, STATISTICS, Gate, deviations, statistics, thumbnail
from radiograph_cxrfpn import read_radiograph
from tools.non_chest import KINDS

# Pictures to fit on, and as many again to measure on: chests, and of each kind of others.
CHESTS, PHANTOMS, NON_CHEST = 800, 120, 120
# The share of chests that may be rejected.
CHESTS_LOST = 0.005


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Fit demo/gate.json on chests and on other pictures.")
    parser.add_argument("--source", required=True, help="radiographs, such as parquet:FOLDER")
    arguments = parser.parse_args()
    try:
        chests = {split: _chests(arguments.source, split) for split in ("train", "test")}
    except ValueError as error:
        print(f"fit_gate: {error}", file=sys.stderr)
        return 2
    template = _template([pixels for pictures in chests["train"].values() for pixels in pictures])
    values = {split: {kind: _values(kinds[kind], template) for kind in kinds} for split, kinds in chests.items()}
    non_chest, others = (
        {kind: _values(_draw(kind, seed), template) for kind in tqdm(KINDS, desc="non-chest")} for seed in (0, 1)
    )
    known = np.concatenate(list(values["train"].values()))
    gate = _fit(template, known, non_chest)
    # How it does on a kind that it was not fitted on, which is what to expect of other pictures.
    unseen = {
        kind: _passing(
            _fit(template, known, {name: non_chest[name] for name in KINDS if name != kind}), non_chest[kind]
        )
        for kind in KINDS
    }
    measured = {
        "turned away": {kind: round(1 - _passing(gate, pictures), 4) for kind, pictures in values["test"].items()},
        "let through": {kind: _passing(gate, others[kind]) for kind in KINDS},
        "let through, of a kind left out of fitting": unseen,
        "pictures": {kind: len(pictures) for kind, pictures in values["test"].items()} | {"of each kind": NON_CHEST},
    }
    FILE.write_text(json.dumps(_content(gate, measured)) + "\n")
    print(json.dumps(measured, indent=1), f"\nwritten: {FILE}")
    return 0


def _chests(source: str, split: str) -> dict[str, list[np.ndarray]]:
    from cxrfpn.data.phantom import PhantomSource
    from cxrfpn.data.sources import open_source

    return {
        "radiographs": _some(open_source(source), split, CHESTS),
        "phantoms": _some(PhantomSource(PHANTOMS * 6, seed=0), split, PHANTOMS),
    }


def _some(source, split: str, count: int) -> list[np.ndarray]:
    table = source.metadata()
    ids = table.loc[table["split"] == split, "image_id"]
    wanted = set(ids.sample(min(count, len(ids)), random_state=0))
    return [
        read_radiograph(row.content(), name=row.image_id).pixels
        for part in source.parts()
        for row in source.rows(part, wanted)
    ]


def _draw(kind: str, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng([seed, *kind.encode()])
    return [read_radiograph(KINDS[kind](random)).pixels for _ in range(NON_CHEST)]


def _template(chests: list[np.ndarray]) -> np.ndarray:
    mean = np.mean([thumbnail(pixels) for pixels in chests], axis=0)
    return np.round((mean - mean.mean()) / mean.std(), 1)


def _values(pictures: list[np.ndarray], template: np.ndarray) -> np.ndarray:
    return np.array([statistics(pixels, template) for pixels in pictures])


def _fit(template: np.ndarray, chests: np.ndarray, non_chest: dict[str, np.ndarray]) -> Gate:
    from sklearn.linear_model import LogisticRegression

    values = np.concatenate([chests, *non_chest.values()])
    is_chest = np.arange(len(values)) < len(chests)
    mean, scale = chests.mean(axis=0), chests.std(axis=0) + 1e-6
    scaled = deviations(values, mean, scale)
    fitted = LogisticRegression(class_weight="balanced", C=0.3, max_iter=5000).fit(scaled, is_chest)
    lowest = np.quantile(scaled[is_chest] @ fitted.coef_[0], CHESTS_LOST)
    return Gate(template, mean, scale, fitted.coef_[0], -float(lowest), {})


def _passing(gate: Gate, values: np.ndarray) -> float:
    return round(float((gate.scores(values) > 0).mean()), 4)


def _content(gate: Gate, measured: dict[str, object]) -> dict[str, object]:
    return {
        "statistics": list(STATISTICS),
        "mean": gate.mean.round(4).tolist(),
        "scale": gate.scale.round(4).tolist(),
        "weights": gate.weights.round(4).tolist(),
        "bias": round(gate.bias, 4),
        "template": gate.template.round(1).ravel().tolist(),
        "measured": measured,
    }


if __name__ == "__main__":
    sys.exit(main())
