"""What is published of a run: its own modules, of whichever version they are."""

from pathlib import Path

from cxrfpn.publishing.contents import package_modules

ROOT = Path(__file__).resolve().parents[2]


def test_the_modules_of_this_package_are_those_that_its_model_imports():
    modules = package_modules(ROOT)
    assert {"modeling_cxrfpn.py", "pipeline_cxrfpn.py", "radiograph_cxrfpn.py", "errors_cxrfpn.py"} <= set(modules)
    assert "torch_engine_cxrfpn.py" not in modules and all((ROOT / name).is_file() for name in modules)


def test_a_run_of_another_version_has_its_own_modules_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "modeling_cxrfpn.py").write_text(
        "try:\n    from .first_cxrfpn import a\nexcept ImportError:\n    pass\n"
    )
    (tmp_path / "first_cxrfpn.py").write_text("from .second_cxrfpn import b\nfrom .modeling_cxrfpn import c\n")
    assert package_modules(tmp_path) == ["first_cxrfpn.py", "modeling_cxrfpn.py", "second_cxrfpn.py"]
