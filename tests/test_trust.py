"""Our code on a package's weights: its own modules run only on request; nothing but safetensors and JSON is read."""

import json
import shutil
from pathlib import Path

import pytest

from loading_cxrfpn import load_network, load_pipeline
from tests.hubs.loopback import LoopbackHub
from thresholds_cxrfpn import PackageError

MARK = "open({path!r}, 'w').close()\n"


@pytest.fixture
def hostile(package: Path, tmp_path: Path) -> Path:
    """A package whose modules leave a mark where they run."""
    folder = Path(shutil.copytree(package, tmp_path / "hostile"))
    for module in folder.glob("*_cxrfpn.py"):
        module.write_text(module.read_text() + MARK.format(path=str(tmp_path / "ran")))
    return folder


def change(folder: Path, file: str, **values: object) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **values}))


def test_a_packages_modules_do_not_run(hostile, package, drawing, tmp_path):
    pipe = load_pipeline(str(hostile))
    load_network(str(hostile))
    assert pipe(drawing) == load_pipeline(str(package))(drawing)
    assert type(pipe).__module__ == "pipeline_cxrfpn" and not (tmp_path / "ran").exists()
    for module in hostile.glob("*_cxrfpn.py"):  # nor are they needed
        module.unlink()
    assert pipe(drawing) == load_pipeline(str(hostile))(drawing)


def test_on_request_they_run(hostile, drawing, tmp_path):
    assert len(load_pipeline(str(hostile), trust_remote_code=True)(drawing)) == 14
    assert (tmp_path / "ran").exists()


def test_from_the_hub_they_run_at_a_commit_only(hostile, drawing, tmp_path, monkeypatch):
    with LoopbackHub() as hub:
        hub.take_over(monkeypatch)
        hub.add("models", "org/hostile", hostile)
        for name in ("org/hostile", "org/hostile@main", "org/hostile@" + "a" * 7):
            with pytest.raises(PackageError, match="name the commit that you have read: org/hostile@<40 digits>"):
                load_pipeline(name, trust_remote_code=True)
        assert len(load_pipeline("org/hostile")(drawing)) == 14
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"auto_map": {"AutoModel": "org/other--modeling.Net"}}),
        ("config.json", {"auto_map": {"AutoTokenizer": ["x.Y", "org/other--tokens.Z"]}}),
        ("config.json", {"custom_pipelines": {"chest-xray-findings": {"impl": "org/other--pipe.Line"}}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "org/other--image.Processor"}}),
    ],
)
def test_another_repositorys_code_is_refused(hostile, tmp_path, trust, file, changes):
    change(hostile, file, **changes)
    with pytest.raises(PackageError, match=f"{file} names code of another repository \\('org/other--"):
        load_pipeline(str(hostile), trust_remote_code=trust)
    assert not (tmp_path / "ran").exists()


def test_other_formats_are_refused(hostile):
    (hostile / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other", "peft_type": "LORA"}')
    with pytest.raises(PackageError, match="is an adapter"):
        load_pipeline(str(hostile))
    (hostile / "adapter_config.json").unlink()
    change(hostile, "config.json", quantization_config={"quant_method": "quanto"})
    with pytest.raises(PackageError, match="says that its weights are quantised"):
        load_network(str(hostile))
