"""The Python of docs/transformers.md runs, block after block, and the tests that it names exist."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "transformers.md").read_text()


def test_the_blocks_run_one_after_the_other(package, tmp_path, monkeypatch):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"model": str(package)}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/transformers.md", "exec"), names)
    assert len(names["again"]("demo/examples/phantom-edema.png")) == 14
    torch.testing.assert_close(torch.tensor(names["features"]).shape, names["embedding"].shape)
    assert names["own"].config.findings == ("TB", "Pleural Effusion")
    assert names["cam"].shape == (8, 8) and names["pixels"].abs().sum() > 0 and names["layer"].abs().sum() > 0


def test_the_tests_that_the_table_names_exist():
    for name, file in re.findall(r"`(test_\w+)`(?: in `(tests/\w+\.py)`)?", PAGE):
        assert f"def {name}(" in (ROOT / (file or "tests/test_ecosystem.py")).read_text()
