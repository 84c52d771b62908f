"""predict.py --source: every image of an archive once, in any number of processes, also after a stop."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from configuration_cxrfpn import FINDINGS
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.schema import Row
from cxrfpn.data.shards import write_shard
from loading_cxrfpn import load_pipeline
from package_cxrfpn import weights_digest
from predict import main

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (20, 7, 0, 18)  # images of each part
DAMAGED = 23
SEVERAL = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def write_archive(folder: Path, rows: Iterator[Row], counts: tuple[int, ...]) -> str:
    """Parquet files of so many rows each; gives the source's name."""
    folder.mkdir()
    for index, count in enumerate(counts):
        write_shard(folder / f"{index:02}.parquet", [(next(rows), 64) for _ in range(count)], {})
    return f"parquet:{folder}"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Drawn radiographs, one of them cut short."""
    source = PhantomSource(sum(COUNTS), side=96)
    rows = [row for part in source.parts() for row in source.rows(part)]
    rows[DAMAGED] = replace(rows[DAMAGED], image=rows[DAMAGED].image[:700])
    return rows


@pytest.fixture(scope="module")
def source(tmp_path_factory, rows) -> str:
    return write_archive(tmp_path_factory.mktemp("source") / "archive", iter(rows), COUNTS)


@pytest.fixture
def script(package, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """predict.py in this process: arguments -> exit code and standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["predict.py", "--model", str(package), *map(str, arguments)])
        try:
            code = main()
        except SystemExit as stopped:  # argparse's own way out
            code = stopped.code
        return code, capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def unbroken(package, source, tmp_path_factory) -> Path:
    """The archive predicted by one process without a break."""
    folder = tmp_path_factory.mktemp("unbroken") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["predict.py", *map(str, options(source, folder, package))])
        assert main() == 0
    return folder


def options(source: str, folder: Path, package: Path) -> list[str]:
    return ["--source", source, "--output", str(folder), "--model", str(package)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("parts/*.parquet"))


def test_every_image_has_one_row_with_what_the_pipeline_says_of_its_file(unbroken, package, rows, tmp_path):
    assert parts(unbroken) == [f"part-{index:05}-of-00004.parquet" for index in range(4)]
    table = pd.read_parquet(unbroken / "parts")
    assert list(table.columns) == [
        "image_id", "patient_id", "positive", "present", "uncertain", "error", "notes", "fit", "any_finding", *FINDINGS,
    ]  # fmt: skip
    assert table[["image_id", "patient_id"]].values.tolist() == [[row.image_id, row.patient_id] for row in rows]
    assert table["error"].notna().to_numpy().nonzero()[0].tolist() == [DAMAGED]
    bad = table.iloc[DAMAGED]
    assert bad["error"].startswith("damaged or truncated") and bad[["positive", *FINDINGS]].isna().all()
    pipe = load_pipeline(str(package))
    for index in (0, 19, 20, 44):
        row, file = rows[index], tmp_path / f"{index}.jpg"
        file.write_bytes(row.image)
        expected = pipe({"image": file, "age": row.age, "sex": row.sex, "view_position": row.view_position})
        scores = {finding["label"]: finding["score"] for finding in expected}
        assert table.loc[index, list(FINDINGS)].to_dict() == pytest.approx(scores, abs=1e-3)  # other batch, bf16
        close = {finding["label"] for finding in expected if abs(finding["score"] - finding["threshold"]) < 1e-3}
        called = {finding["label"] for finding in expected if finding["positive"]}
        assert called ^ set(filter(None, table.loc[index, "positive"].split("|"))) <= close


def test_the_folder_says_what_of_and_with_what(unbroken, source, package):
    manifest = json.loads((unbroken / "predictions.json").read_text())
    assert manifest["source"] == source and manifest["parts"] == [f"{index:02}.parquet" for index in range(4)]
    assert manifest["weights_digest"] == weights_digest(load_file(package / "model.safetensors"))
    assert manifest["operating_point"] == "dynamic_adjustment" and set(manifest["thresholds"]) == set(FINDINGS)


def test_embeddings_are_a_list_column(script, unbroken, source, package, tmp_path):
    code, err = script("--source", source, "--output", tmp_path / "out", "--embeddings")
    assert code == 0, err
    table = pq.read_table(tmp_path / "out" / "parts")
    assert table.drop_columns("embedding").equals(pq.read_table(unbroken / "parts"))
    lengths = {None if row is None else len(row) for row in table["embedding"].to_pylist()}
    assert lengths == {24, None}
    assert script("--source", source, "--output", unbroken, "--embeddings")[0] == 2  # started without them


def test_two_processes_write_what_one_writes(unbroken, source, package, tmp_path):
    command = [*SEVERAL, "predict.py", *options(source, tmp_path / "out", package)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("predicted: 45 images") == 1
    assert done.stderr.count("1 of 45 images could not be read") == 1
    assert contents(tmp_path / "out") == contents(unbroken)


def test_what_is_there_is_kept_and_what_is_missing_is_done(script, unbroken, source, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(unbroken, folder)
    (folder / "parts" / "part-00000-of-00004.parquet").unlink()
    (folder / "parts" / "part-00003-of-00004.parquet.77.tmp").write_bytes(b"of a process that was killed")
    kept = {name: (folder / "parts" / name).stat().st_mtime_ns for name in parts(folder)}
    code, err = script("--source", source, "--output", folder)
    assert code == 0 and "1 of 45 images could not be read" in err
    assert contents(folder) == contents(unbroken)
    assert kept == {name: (folder / "parts" / name).stat().st_mtime_ns for name in kept} and len(kept) == 3


@pytest.mark.slow
def test_killed_midway_and_started_again_it_ends_in_the_same_bytes(script, package, tmp_path):
    """Killed with two processes, it continues with one."""
    rows = (row for part in ("phantoms-0000000", "phantoms-0000250") for row in PhantomSource(500).rows(part))
    source, folder = write_archive(tmp_path / "archive", rows, (25,) * 20), tmp_path / "killed"
    process = subprocess.Popen(
        [*SEVERAL, "predict.py", *options(source, folder, package)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not parts(folder):
        assert process.poll() is None
        time.sleep(0.005)
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    process.kill()
    process.wait()
    assert 0 < len(parts(folder)) < 20
    assert script("--source", source, "--output", folder)[0] == 0
    assert script("--source", source, "--output", tmp_path / "unbroken")[0] == 0
    assert contents(folder) == contents(tmp_path / "unbroken")
    assert pd.read_parquet(folder / "parts")["image_id"].tolist() == [f"phantom-0-{index:07}" for index in range(500)]


def test_a_part_that_cannot_be_read_stops_no_other(script, unbroken, source, tmp_path):
    shutil.copytree(source.removeprefix("parquet:"), tmp_path / "archive")
    damaged = tmp_path / "archive" / "01.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-100])
    command = ("--source", f"parquet:{tmp_path / 'archive'}", "--output", tmp_path / "out")
    code, err = script(*command)
    assert code == 2 and "1 parts could not be read:" in err and "01.parquet: cannot be read as parquet" in err
    assert parts(tmp_path / "out") == [name for name in parts(unbroken) if "00001" not in name]
    damaged.write_bytes(whole)
    assert script(*command)[0] == 0
    assert pd.read_parquet(tmp_path / "out" / "parts").equals(pd.read_parquet(unbroken / "parts"))


def test_an_archive_needs_no_findings_and_a_bad_file_costs_its_own_row(script, rows, tmp_path):
    for row in rows[:3]:
        (tmp_path / f"{row.image_id}.jpg").write_bytes(row.image)
    broken = tmp_path / f"{rows[1].image_id}.jpg"
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # whose first byte nobody can read, not even root
    lines = [f"{row.image_id}.jpg,{row.age}" for row in rows[:3]]
    (tmp_path / "ward.csv").write_text("\n".join(["image,age", *lines]))
    code, err = script("--source", f"csv:{tmp_path / 'ward.csv'}", "--output", tmp_path / "out")
    assert code == 0 and "1 of 3 images could not be read" in err
    table = pd.read_parquet(tmp_path / "out" / "parts")
    assert table["image_id"].tolist() == [row.image_id for row in rows[:3]]
    assert table["error"].fillna("").tolist() == ["", "the file cannot be read (Input/output error)", ""]
    assert table["Mass"].notna().tolist() == [True, False, True]


def test_a_folder_continues_only_with_what_it_was_started_with(script, unbroken, source, package, tmp_path):
    other = tmp_path / "package"
    shutil.copytree(package, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("Dear colleague")
    before = contents(unbroken)
    refusals = {
        "was started with weights_digest": (source, unbroken, "--model", other),
        "with operating_point dynamic_adjustment, not youden": (source, unbroken, "--operating-point", "youden"),
        f"was started with source {source}, not phantom:9": ("phantom:9", unbroken),
        "is not empty and was not made by predict.py": (source, tmp_path / "letters"),
        "no operating point is called 'best'": (source, tmp_path / "new", "--operating-point", "best"),
        "/nowhere: no such folder": ("parquet:/nowhere", tmp_path / "new"),
    }
    for said, (name, folder, *more) in refusals.items():
        code, err = script("--source", name, "--output", folder, *more)
        assert code == 2 and err.startswith("predict: ") and said in err and err.count("\n") == 1, err
    assert contents(unbroken) == before and not (tmp_path / "new").exists()


def test_what_is_not_installed_is_named_with_what_brings_it(script, source, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "cxrfpn.prediction.archive", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    code, err = script("--source", source, "--output", tmp_path / "out")
    assert code == 2 and err == "predict: --source needs accelerate: pip install 'cxr-densenet-fpn[train]'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either PATHs or --source"),
        (["a.png", "--source", "phantom:9", "--output", "out"], "give either PATHs or --source"),
        (["--source", "phantom:9"], "--source needs --output"),
        (["--source", "phantom:9", "--output", "out", "--view-position", "PA"], "leave --view-position out"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(script, arguments, said):
    code, err = script(*arguments)
    assert code == 2 and said in err


PEAKS = """
import sys
from pathlib import Path
from cxrfpn.data.sources import open_source
from cxrfpn.prediction.parts import predict_parts
from engine_cxrfpn import load_engine
engine = load_engine(sys.argv[1])
for name in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was before
    predict_parts(engine, open_source(name), {"00.parquet": Path(name.removeprefix("parquet:"), "out")})
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)  # MB
"""


def test_memory_does_not_grow_with_the_rows_of_a_part(run_python, package, tmp_path):
    file = io.BytesIO()
    Image.effect_noise((512, 512), 60).save(file, "BMP")  # a quarter of a MB, and as much when it is decoded
    row = Row(file.getvalue(), "same", "patient", 63.0, "F", "PA", ())
    few, many = (write_archive(tmp_path / str(n), repeat(row), (n,)) for n in (100, 700))
    done = run_python("-c", PEAKS, package, few, many, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    peaks = [int(line) for line in done.stdout.split()]
    assert peaks[1] - peaks[0] < 80, peaks  # MB, of the 157 MB that were read more


def test_the_manual_names_the_rates_that_were_measured():
    page = (ROOT / "docs" / "predicting-an-archive.md").read_text()
    measured = json.loads((ROOT / "benchmarks" / "results.json").read_text())["archive"]["rows"]
    for row in measured:
        rate = int(row["remark"].removeprefix("(").split(" / ")[0])
        hours = 10**7 / rate / 3600
        assert f"| {rate} | {hours:.0f} | {60 * hours / 64:.0f} minutes |" in page
