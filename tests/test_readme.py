"""Every command of the README and the manual is run here, or stands in a table with what runs it.

A new line in a README that nobody has listed fails; so does a listed one that no README has any more.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from configuration_cxrfpn import FINDINGS, CxrFpnConfig
from cxrfpn.data.sources import open_source
from tests.hubs.loopback import LoopbackHub

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "MODEL_CARD", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
# Inside a sentence, too: `make audit`, `score.py --predictions FILE.csv ...`. A script with one option is but named.
INLINE = re.compile(r"`((?:git|make|hf|(?:\.venv/bin/)?(?:python|accelerate)|[a-z]+\.py [^`\s]+) [^`]+)`")
NO_COMMANDS = {"", "json", "ini", "nginx", "yaml"}
REVISION = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/cxr-densenet-fpn"
# A network a thousandth of the real one's size, for one short epoch.
SMALL = (
    "--network '{block_config: [1, 1, 1, 1], growth_rate: 4, stem_channels: 8, pyramid_channels: 8, image_features: 8, "
    "head_features: 8}' --cycles '[{epochs: 1, image_size: 64}]' --stored_size 72 --batch_size 8"
)


@dataclass(frozen=True)
class Run:
    """Run a command with `changes` (text by text) and look for what it should `leave`, or for a word of its output."""

    changes: dict[str, str] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()
    says: str = ""
    slow: bool = True


def train(recipe: str, folder: str, source: str = "phantom:60", **changes: str) -> Run:
    """A training that would take hours, or a download: the same recipe on a few phantoms, and on a small network."""
    small = f"recipes/{recipe}.yaml --output-dir {folder} --source {source} --backbone-weights none {SMALL}"
    return Run({f"recipes/{recipe}.yaml": small, **changes}, (f"{folder}/model.safetensors", f"{folder}/README.md"))


WARD = "--source csv:ward.csv"
RUN = {
    ".venv/bin/python predict.py demo/examples/phantom-edema.png --age 63 --sex F --view-position PA": Run(
        says="Pleural_Thickening", slow=False
    ),
    ".venv/bin/python predict.py radiograph.png scan.dcm 'archive/**/*.png' --format json": Run(
        says="archive/2026/a.png", slow=False
    ),
    ".venv/bin/python predict.py ward/ --patients ward.csv --format csv --output findings.csv --maps maps/": Run(
        leaves=("findings.csv", "maps")
    ),
    ".venv/bin/python score.py --name cxr-densenet-fpn --source parquet:../shared/nih-mini --output-dir results"
    " --no-examples": Run(
        {"parquet:../shared/nih-mini": "phantom:60 --resamples 20", "--output-dir results": "--output-dir measured"},
        ("measured/metrics.json", "measured/README.md"),
    ),
    ".venv/bin/python -m tools.model_card": Run(says="written: "),
    ".venv/bin/accelerate launch train.py recipes/smoke.yaml": train("smoke", "tried/smoke"),
    ".venv/bin/accelerate launch train.py recipes/nih.yaml": train("nih", "tried/nih"),
    ".venv/bin/accelerate launch train.py recipes/report.yaml": train(
        "report", "tried/report", "phantom:200 --cohort.replicate_to 20"
    ),
    ".venv/bin/python score.py --model runs/smoke --source phantom:200 --protocol patients --output-dir scores": Run(
        {"phantom:200": "phantom:60 --resamples 20"}, ("scores/metrics.json", "scores/README.md")
    ),
    ".venv/bin/python -m pytest tests/test_pipeline.py -k threshold": Run(says="passed"),
    # What is installed is this very environment; make must not install into it.
    "make format": Run({"make": "make -o .venv/.test-installed"}, says="unchanged"),
    "make demo": Run({"make": "make -n"}, says="HOST=127.0.0.1 PORT=7860 .venv/bin/python app.py", slow=False),
    "HOST=0.0.0.0 PORT=8080 make demo": Run(
        {"make": "make -n"}, says="HOST=0.0.0.0 PORT=8080 .venv/bin/python app.py", slow=False
    ),
    "make lint": Run({"make": "make -n"}, says=".venv/bin/mypy", slow=False),
    "make test": Run({"make": "make -n"}, says='-m "not slow"', slow=False),
    "make audit": Run({"make": "make -n"}, says=".ci/audit.py", slow=False),
    "make docs": Run({"make": "make -n"}, says="mkdocs build", slow=False),
    "make lock": Run({"make": "make -n"}, says="uv pip compile", slow=False),
    "make test-all": Run({"make": "make -n"}, says="pytest --cov", slow=False),
    "make static": Run({"make": "make -n"}, says="publish.py . --static static", slow=False),
    "make .venv/.demo-installed": Run({"make": "make -n"}, slow=False),
    f".venv/bin/python score.py --model . {WARD} --split validation --protocol patients --fit-thresholds"
    " --output-dir fitted": Run({"--output-dir": "--resamples 20 --output-dir"}, ("fitted/thresholds.json",)),
    "score.py --fit-thresholds --guarantee 0.95": Run(
        {
            "score.py": f".venv/bin/python score.py --model . {WARD} --split validation --protocol patients"
            " --resamples 20 --output-dir guaranteed"
        },
        ("guaranteed/thresholds.json",),
    ),
    f".venv/bin/python prepare.py {WARD} --output data/ward --size 256 --show pictures/": Run(
        {"data/ward": "prepared/ward"}, ("prepared/ward", "pictures")
    ),
    ".venv/bin/accelerate launch train.py recipes/nih.yaml --source parquet:data/ward --cohort '{protocol: patients}'"
    " --backbone-weights . --output-dir runs/ward": Run(
        {"runs/ward": f"tried/ward {SMALL}"}, ("tried/ward/model.safetensors",)
    ),
    f".venv/bin/accelerate launch predict.py {WARD} --output findings": Run(
        says="predicted: 60 images", leaves=("findings/parts",)
    ),
    ".venv/bin/python predict.py --model runs/ward new.png": Run(says="Pleural_Thickening", slow=False),
}
# A block of Python, and what must hold after it.
PYTHON = {
    "README.md 1": "assert len(pipe('radiograph.png', operating_point='youden', maps=True)) == 14",
    "docs/predicting.md 1": "assert len(findings) == 14",
    "docs/predicting.md 2": "assert 0 <= figures['mean_auroc'] <= 1",
    "docs/deploying.md 1": "assert len(findings) == 14",
    "docs/engines.md 1": "assert len(answer) == 14",
}
# What runs it instead: a file, and the words in it.
CI, MAKE = ".ci/run", "Makefile"
TRIED_PUBLISHING = ("tests/publishing/test_publish.py", "def test_a_dry_run_tells_and_does_nothing(")
TRIED_LAUNCHING = ("tests/training/test_processes.py", "def test_two_processes_train_as_one_in_two_passes(")
PREDICTED_TWICE = ("tests/test_archive.py", "def test_two_processes_write_what_one_writes(")
AN_ARCHIVE = "predict.py --source parquet:archive --output findings"
ELSEWHERE = {
    "publish.py --metric-repo org/chest_findings": (
        "tests/publishing/test_metric_space.py",
        "def test_evaluate_loads_it_from_the_hub_without_this_project(",
    ),
    "prepare.py --push-to-hub org/name": ("tests/data/test_pushing.py", "def test_load_dataset_opens_it_with_types_"),
    "git clone <this repository> cxr-densenet-fpn && cd cxr-densenet-fpn": (CI, "from a clean clone"),
    "git pull": (CI, "from a clean clone"),
    "make install": (MAKE, "install: $(VENV)/.test-installed\n\ntest: lint scripts"),  # both ask for the same
    ".venv/bin/python publish.py runs/nih --static page": ("tests/browser/conftest.py", "page_files(package, None)"),
    ".venv/bin/python publish.py runs/nih --static-space org/cxr-in-the-browser --dry-run": (
        "tests/browser/test_writing.py",
        "def test_a_static_space_is_made_and_brought_up_to_date(",
    ),
    ".venv/bin/python -m http.server --directory static 7860": ("tests/browser/conftest.py", "http.server.Simple"),
    f".venv/bin/python publish.py runs/nih --model-repo {REPO} --space-repo {REPO}-demo --dry-run": TRIED_PUBLISHING,
    "hf auth login": ("tests/publishing/test_refusals.py", "def test_without_a_token_that_may_write_nothing_happens("),
    ".venv/bin/accelerate launch --num_processes 4 train.py recipes/nih.yaml": TRIED_LAUNCHING,
    ".venv/bin/accelerate launch --num_machines 2 --machine_rank 0 --num_processes 8 --main_process_ip 10.0.0.1"
    " --main_process_port 29500 train.py recipes/nih.yaml": TRIED_LAUNCHING,
    "OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true .venv/bin/python -m torch.distributed.run --standalone"
    " --nproc-per-node 2 train.py recipes/student.yaml": TRIED_LAUNCHING,
    f".venv/bin/accelerate launch --num_processes 4 {AN_ARCHIVE} --batch-size 64": PREDICTED_TWICE,
    ".venv/bin/accelerate launch --num_machines 2 --machine_rank 0 --num_processes 16 --main_process_ip 10.0.0.1"
    f" --main_process_port 29500 {AN_ARCHIVE} --batch-size 64": PREDICTED_TWICE,
    "OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true .venv/bin/python -m torch.distributed.run --standalone"
    f" --nproc-per-node 8 {AN_ARCHIVE}": PREDICTED_TWICE,
    ".venv/bin/python -m tools.fit_gate --source parquet:../shared/nih-mini --children ../shared/cxr-extra/data": (
        "tests/test_gate.py",
        "def test_the_gate_needs_no_torch_and_is_the_one_that_was_measured(",
    ),
    ".venv/bin/python -m cxrfpn.evaluation.is_it_the_disease --source parquet:../shared/nih-mini": (
        "tests/evaluation/test_is_it_the_disease.py",
        "def test_shuffling_changes_a_copy_",
    ),
    ".venv/bin/python -m tools.ablation": ("tests/evaluation/test_ablation.py", "def test_rows_are_measured_"),
    ".venv/bin/python publish.py . --onnx model.onnx": ("tests/test_onnx.py", "def test_a_hundred_radiographs_get_"),
    ".venv/bin/python predict.py film.png --backend onnx --model model.onnx": (
        "tests/test_onnx.py",
        "def test_predict_gives_the_findings_of_the_pipeline(",
    ),
    ".venv/bin/accelerate launch train.py recipes/nih.yaml --source csv:hospital.csv"
    " --findings '[TB, Pleural Effusion]' --cohort '{protocol: patients}'"
    " --backbone-weights . --output-dir runs/hospital": (
        "tests/test_own_findings.py",
        "def run(",
    ),
    ".venv/bin/python examples/finetune_with_trainer.py ward.csv runs/ward": (
        "tests/test_examples.py",
        "def test_finetune_with_trainer(",
    ),
    ".venv/bin/python examples/linear_probe.py ward/ ward.csv --finding TB": (
        "tests/test_examples.py",
        "def test_linear_probe(",
    ),
    "predict.py --source SOURCE --output FOLDER --embeddings": (
        "tests/test_archive.py",
        "def test_embeddings_are_a_list_column(",
    ),
    ".venv/bin/python score.py --model . --labels chexpert:CheXpert-v1.0-small/valid.csv --output-dir scores": (
        "tests/data/test_label_tables.py",
        "def test_images_are_found_by_the_part_of_their_path_",
    ),
    ".venv/bin/python score.py --predictions mine.csv --labels vindr:annotations/image_labels_test.csv"
    " --output-dir scores": ("tests/test_score.py", "def test_a_table_of_labels_alone_is_scored_"),
    ".venv/bin/python score.py --model . --source nih:ChestXray14 --labels nih-google:test_labels.csv"
    " --output-dir scores": ("tests/test_score.py", "def test_the_labels_of_another_table_measure_"),
    ".venv/bin/python predict.py ward/ --dicom-out reports": (
        "tests/test_dicom_reports.py",
        "def written(run_python, ",
    ),
    "predict.py --dicom-out FOLDER": ("tests/test_dicom_reports.py", "def written(run_python, "),
    "score.py --labels KIND:FILE": ("tests/test_score.py", "def test_a_table_of_labels_alone_is_scored_"),
    ".venv/bin/python examples/orthanc_reports.py http://127.0.0.1:8042": (
        "tests/test_orthanc.py",
        "def test_a_film_goes_in_and_a_report_comes_out(",
    ),
    "score.py --predictions FILE.csv --source nih:FOLDER": ("tests/test_score.py", "def test_the_metadata_of_nih_is_"),
}


def documented() -> Iterator[tuple[str, str]]:
    """(kind, text) of every command in a shell block or a sentence, and of every other block that is no mere data."""
    calls = (ROOT / "demo" / "calls.md").read_text().strip()  # run by tests/demo/test_app.py, as they stand
    for page in PAGES:
        text, name, blocks = page.read_text().replace(calls, ""), page.relative_to(ROOT).as_posix(), 0
        for _, language, block in FENCE.findall(text):
            if language == "sh":
                lines = re.sub(r"\\\n\s*", "", block).splitlines()
                commands = (" ".join(re.split(r"(?:^|  )\s*#", line)[0].split()) for line in lines)
                yield from (("sh", command) for command in commands if command)
            elif language == "python" and page.name == "transformers.md":
                continue  # tests/test_documents.py runs its blocks
            elif language == "python":
                yield "python", f"{name} {(blocks := blocks + 1)}"
            elif language not in NO_COMMANDS:
                yield language, name
        yield from (("sh", " ".join(command.split())) for command in INLINE.findall(FENCE.sub("", text)))


def block(name: str) -> str:
    page, number = name.split()
    return [text for _, language, text in FENCE.findall((ROOT / page).read_text()) if language == "python"][
        int(number) - 1
    ]


def test_every_command_is_run_somewhere_and_none_is_out_of_date():
    found = set(documented())
    listed = {("sh", command) for command in (*RUN, *ELSEWHERE)} | {("python", name) for name in PYTHON}
    assert found - listed == set(), "list them in tests/test_readme.py, with how they are run"
    assert listed - found == set(), "no page has these any more"
    for command, (file, words) in ELSEWHERE.items():
        assert words in (ROOT / file).read_text(), f"{command}: {file} does not run it"


def test_every_link_to_a_file_of_ours_leads_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^):#]+)\)", page.read_text())]
    assert len(links) > 10
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_picture_of_the_network_says_what_the_network_is():
    config, picture = CxrFpnConfig(), (ROOT / "docs" / "architecture.svg").read_text()
    side, width, pooled = config.image_size, config.pyramid_channels, 3 * config.pyramid_channels
    for stride in (8, 16, 32):
        assert f">{width} × {side // stride} × {side // stride}<" in picture
    fused = config.image_features + config.patient_features
    for words in (
        f"3 × {side} × {side}",
        f"to {pooled}",
        f"{pooled} → {config.image_features}",
        f"3 → {config.patient_features};",
        f"{fused} → {config.head_features}",
        f"→ {len(FINDINGS)}",
    ):
        assert words in picture


@pytest.fixture(scope="module")
def tree(tmp_path_factory, package, drawing) -> Path:
    """A copy of this project as a user has it, this environment as its .venv, and the files that the manual names."""
    from pydicom.data import get_testdata_file

    tree = tmp_path_factory.mktemp("clone") / "cxr-densenet-fpn"
    left_out = {".git", ".venv", "runs", "data", "scores"}
    litter = shutil.ignore_patterns(
        "node_modules", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis", ".coverage*"
    )
    shutil.copytree(
        ROOT,
        tree,
        ignore=lambda folder, names: litter(folder, names) | (left_out if Path(folder) == ROOT else set()),
    )
    (tree / ".venv").symlink_to(sys.prefix)
    for name in ("radiograph.png", "new.png", "archive/2026/a.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing).save(tree / name)
    shutil.copy(get_testdata_file("CT_small.dcm"), tree / "scan.dcm")
    for run in ("smoke", "ward"):
        shutil.copytree(package, tree / "runs" / run)
    _fill_ward(tree)
    return tree


def _fill_ward(tree: Path) -> None:
    source = open_source("phantom:60")
    table = source.metadata().drop(columns=["split", "fold", "image_id"])
    (tree / "ward").mkdir()
    rows = [row for part in source.parts() for row in source.rows(part)]
    for row in rows:
        (tree / "ward" / f"{row.image_id}.png").write_bytes(row.image)
    names = {"image": [f"ward/{name}.png" for name in source.metadata()["image_id"]]}
    findings = ["|".join(row) or "No Finding" for row in table["findings"]]
    pd.DataFrame(names).join(table.assign(findings=findings)).to_csv(tree / "ward.csv", index=False)


@pytest.fixture(scope="module")
def environment(package, tmp_path_factory) -> Iterator[dict[str, str]]:
    """What a user's shell has, and a Hub, which is one of our own."""
    with LoopbackHub() as hub:
        hub.add("models", REPO, package, REVISION)
        yield {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "ACCELERATE_USE_CPU": "true",
            "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        }  # fmt: skip


def in_the_clone(command: str | list[str], tree: Path, environment: dict[str, str]) -> str:
    """Run it there as a shell would; its output."""
    done = subprocess.run(
        command, cwd=tree, env=environment, shell=isinstance(command, str), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [pytest.param(text, marks=[pytest.mark.slow] * run.slow, id=text[:90]) for text, run in RUN.items()]
)
def test_a_command_does_what_the_page_says(command, tree, environment):
    run, changed = RUN[command], command
    for words, others in run.changes.items():
        assert words in changed, f"{words}: not in the command any more"
        changed = changed.replace(words, others, 1)
    if "parquet:data/ward" in changed and not (tree / "data" / "ward").exists():  # as the page's step before made it
        in_the_clone(f".venv/bin/python prepare.py {WARD} --output data/ward --size 72", tree, environment)
    assert run.says in in_the_clone(changed, tree, environment)
    for name in run.leaves:
        assert (tree / name).is_file() or any((tree / name).iterdir()), name


@pytest.mark.parametrize("name", PYTHON)
def test_a_block_of_python_does_what_the_page_says(name, tree, environment):
    in_the_clone([sys.executable, "-c", f"{block(name)}\n{PYTHON[name]}"], tree, environment)
