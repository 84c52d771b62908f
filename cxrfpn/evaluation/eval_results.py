"""A run's figures in the Hub's format of evaluation results, `.eval_results/*.yaml`."""

import re

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from cxrfpn.evaluation.figures import Figures

FOLDER = ".eval_results"
_HUB_SOURCE = re.compile(r"([\w.-]+/[\w.-]+)(?::[\w.-]+)?(?:@([\w./-]+))?")


def eval_results(figures: Figures) -> dict[str, str]:
    """Return {path: content} of the results of a data set on the Hub; nothing for any other source.

    Args:
        figures: as metrics.json holds them.
    """
    match = _HUB_SOURCE.fullmatch(figures["source"])
    if match is None:
        return {}
    dataset, revision = match.groups()
    values = {"mean_auroc": (figures["mean_auroc"], figures["mean_auroc_ci"])}
    values |= {f"auroc_{name}": (each["auroc"], each["auroc_ci"]) for name, each in figures["findings"].items()}
    where = f"split {figures['split']}, {figures['images']:,} images of {figures['patients']:,} patients"
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=name.lower(),
            value=round(value, 4),
            dataset_revision=revision,
            notes=where + (f"; 95 % interval {bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""),
        )
        for name, (value, bounds) in values.items()
        if value is not None
    ]
    content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return {f"{FOLDER}/{dataset.replace('/', '-')}.yaml": content}
