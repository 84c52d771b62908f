"""The metric as a Space of its own: evaluate.load("org/name") computes our figures without this project."""

import re
from pathlib import Path

from huggingface_hub import HfApi

from configuration_cxrfpn import FINDINGS
from cxrfpn.publishing.contents import CARD, PublishError
from cxrfpn.publishing.repository import compare

FIGURES, METRIC = "metrics.py", "findings_metric.py"
REQUIREMENTS = "datasets>=5.2,<6\nevaluate>=0.4.6,<0.5\ngradio>=6.31,<7\nnumpy>=2.2,<3\nscikit-learn>=1.8,<2\n"
APP = """import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("{repo}"))
"""
README = """---
title: {title}
sdk: gradio
app_file: app.py
tags: [evaluate, metric]
---
# Figures of a chest radiograph classifier

```python
import evaluate

metric = evaluate.load("{repo}")
metric.add_batch(predictions=scores, references=labels)  # [N,{count}]; a label of NaN is unknown
figures = metric.compute(thresholds={{"Mass": 0.3}})
```

Both are in the order of {findings}.
"""
_OWN_IMPORT = re.compile(r"^from (?:configuration_cxrfpn|cxrfpn[\w.]*) import .*\n", re.MULTILINE)
_DOCSTRING = re.compile(r'\A""".*?"""\n', re.DOTALL)


def metric_files(repo: str) -> dict[str, bytes]:
    """Return the Space's files: path -> content. The metric is one file, named after the Space as evaluate asks for."""
    name = repo.split("/")[-1]
    texts = {
        f"{name}.py": metric_module(),
        "app.py": APP.format(repo=repo),
        "requirements.txt": REQUIREMENTS,
        CARD: README.format(title=name, repo=repo, count=len(FINDINGS), findings=", ".join(FINDINGS)),
    }
    return {path: text.encode() for path, text in texts.items()}


def metric_module() -> str:
    """Return the metric and the figures that it computes as one module, which imports nothing of this project."""
    folder = Path(__file__).parents[1] / "evaluation"
    metric, figures = ((folder / name).read_text(encoding="utf-8") for name in (METRIC, FIGURES))
    found = _DOCSTRING.match(metric)
    assert found is not None, METRIC
    docstring = found[0]
    parts = [_OWN_IMPORT.sub("", _DOCSTRING.sub("", text)).strip() for text in (figures, metric)]
    # Types of this project, which the module does not have, stay names.
    future = "from __future__ import annotations\n"
    return f"{docstring}\n{future}\nFINDINGS = {FINDINGS!r}\n\n" + "\n\n\n".join(parts) + "\n"


def publish_metric(repo: str, private: bool, dry_run: bool) -> str:
    """Bring the metric's Space up to date; say what was done, or what would be.

    Raises:
        PublishError: no such name, or the Hub refuses or cannot be reached; nothing is half written.
    """
    if not re.fullmatch(r"[\w.-]+/\w+", repo):
        raise PublishError(f"{repo}: is no name of a metric; it is org/name, of letters, digits and _ after the slash")
    api = HfApi()
    update = compare(api, "space", repo, metric_files(repo), private)
    if dry_run:
        return update.listing()
    update.create(api)
    commit = update.push(api, "Publish the metric")
    return f'{update.listing()}\nevaluate.load("{repo}") computes it (commit {commit})'
