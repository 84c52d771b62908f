"""Streaming from the Hub: every row as it is on disk, whatever the network does; or one line that says what it did."""

import hashlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrfpn.data.schema import Row, SourceError
from cxrfpn.data.sources import open_source
from cxrfpn.data.sources.hub import HubFiles, Patience
from cxrfpn.data.sources.parquet import ParquetSource
from tests.hubs.loopback import Fault, LoopbackHub
from tests.hubs.repositories import COMMIT

REPO = "someone/chests"
FILE = "data/train-00000-of-00002.parquet"
IMAGE_BYTES = 60_000
HURRIED = Patience(tries=5, first_wait=0.01, longest_wait=0.05, timeout=0.4, least_rate=100_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of 40 images of noise in row groups of 10: 5 MB that do not compress."""
    folder = tmp_path_factory.mktemp("chests")
    (folder / "data").mkdir()
    noise = np.random.default_rng(0)
    for part in range(2):
        rows = range(40 * part, 40 * part + 40)
        table = {
            "image": [{"bytes": noise.bytes(IMAGE_BYTES), "path": f"{row}.png"} for row in rows],
            "label_names": [["Mass"] if row % 3 else [] for row in rows],
            "image_id": [f"{row:08}_000" for row in rows],
            "fold": [row % 10 for row in rows],
            "patient_age": [row if row % 4 else None for row in rows],
            "patient_sex": ["M" if row % 2 else "F" for row in rows],
        }
        path = folder / "data" / f"train-{part:05}-of-00002.parquet"
        pq.write_table(pa.table(table), path, row_group_size=10, compression="none", use_dictionary=False)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as loopback:
        loopback.take_over(monkeypatch)
        yield loopback


@pytest.fixture
def source(hub: LoopbackHub, folder: Path) -> ParquetSource:
    hub.add("datasets", REPO, folder)
    files = HubFiles(REPO, "main", HURRIED)
    return ParquetSource(files.name, files)


@pytest.fixture(scope="module")
def on_disk(folder: Path) -> list[Row]:
    return rows_of(open_source(f"parquet:{folder}"))


def rows_of(source, wanted=None) -> list[Row]:
    return [row for part in source.parts() for row in source.rows(part, wanted)]


def test_rows_and_metadata_are_those_on_disk(hub: LoopbackHub, source: ParquetSource, folder: Path, on_disk) -> None:
    assert source.name == f"{REPO}@{COMMIT}"
    assert rows_of(pickle.loads(pickle.dumps(source))) == on_disk
    hub.requests.clear()
    assert source.metadata().equals(open_source(f"parquet:{folder}").metadata())
    assert sum(bytes_asked(request.range) for request in hub.requests) < 0.1 * 80 * IMAGE_BYTES


def test_unwanted_row_groups_do_not_travel(hub: LoopbackHub, source: ParquetSource, on_disk) -> None:
    assert rows_of(source, {on_disk[15].image_id}) == [on_disk[15]]
    assert sum(bytes_asked(request.range) for request in hub.requests) < 1.5 * 10 * IMAGE_BYTES


@pytest.mark.parametrize(
    "fault",
    [
        Fault("parquet", status=500, times=4),
        Fault("parquet", status=503, times=4),
        Fault("parquet", status=429, times=4),
        Fault("parquet", cut_after=0, times=4),
        Fault("parquet", cut_after=1000, times=4),
        Fault("parquet", pause=1.0, times=1),
        Fault("parquet", pause=0.05, chunk=2000, times=1),
        Fault("api", status=502, times=4),
        Fault("api", cut_after=10, times=4),
    ],
    ids=lambda fault: f"{fault.path}-{fault.status or ''}-{fault.cut_after or ''}-{fault.pause or ''}",
)
def test_what_passes_is_waited_for(hub: LoopbackHub, folder: Path, on_disk, fault: Fault) -> None:
    hub.add("datasets", REPO, folder)
    hub.faults.append(Fault(fault.path, fault.times, fault.method, fault.status, {}, fault.cut_after, fault.pause))
    hub.faults[0].chunk = fault.chunk
    source = ParquetSource("source", HubFiles(REPO, COMMIT, HURRIED))
    assert rows_of(source) == on_disk
    assert hub.faults[0].times == 0


def test_every_kind_of_trouble_at_once(hub: LoopbackHub, source: ParquetSource, on_disk) -> None:
    for status in (429, 500, 502, 503, 504):
        hub.faults += [Fault("parquet", status=status), Fault("parquet", cut_after=7_000 * status % 300_000)]
    assert rows_of(source) == on_disk
    assert all(fault.times == 0 for fault in hub.faults)


def test_after_a_cut_it_goes_on_where_it_stopped(hub: LoopbackHub, source: ParquetSource, on_disk) -> None:
    hub.faults.append(Fault("parquet", cut_after=50_000, times=1))
    with source.files.open(FILE) as file:
        file.seek(1000)
        assert len(file.read(300_000)) == 300_000
    assert [request.range for request in hub.requests[-2:]] == ["bytes=1000-300999", "bytes=51000-300999"]


def test_cuts_that_leave_something_worthwhile_do_not_wear_patience_out(
    hub: LoopbackHub,
    source: ParquetSource,
    folder: Path,
) -> None:
    hub.faults.append(Fault("parquet", cut_after=300_000, times=100))
    content = (folder / FILE).read_bytes()
    with source.files.open(FILE) as file:
        assert file.read(len(content)) == content
    assert 100 - hub.faults[0].times > HURRIED.tries


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"resolvers";r=0;t=0'}])
def test_a_wait_that_the_server_asks_for_is_kept(
    hub: LoopbackHub,
    source: ParquetSource,
    headers: dict[str, str],
) -> None:
    hub.faults.append(Fault("parquet", status=429, headers=headers))
    with source.files.open(FILE) as file:
        file.read(10)
    refused, served = hub.requests[-2:]
    assert (refused.status, served.status) == (429, 206)
    assert 1.0 <= served.at - refused.at < 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("parquet", status=503, times=99), "HTTP 503, 5 times"),
        (Fault("parquet", status=429, times=99), "HTTP 429, 5 times"),
        (Fault("parquet", cut_after=100, times=99), "5 times"),
        (Fault("parquet", pause=1, times=99), "no answer in time, 5 times"),
        (Fault("parquet", pause=0.05, chunk=2000, times=99), "too slow, 5 times"),
        (Fault("parquet", status=403, times=99), "refuses it .HTTP 403"),
    ],
)
def test_when_patience_ends_one_line_names_file_and_cause(
    hub: LoopbackHub,
    source: ParquetSource,
    fault: Fault,
    cause: str,
) -> None:
    hub.faults.append(fault)
    with pytest.raises(SourceError, match=f"{REPO}/{FILE}: .*{cause}") as caught:
        rows_of(source)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_gone_gets_one_line(folder: Path, hub: LoopbackHub, source: ParquetSource) -> None:
    hub.__exit__()
    with pytest.raises(SourceError, match=f"{REPO}/{FILE}: .*5 times") as caught:
        rows_of(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("repo", "revision", "words"),
    [("someone/nothing", "main", "no such data set"), (REPO, "nowhere", "no such revision")],
)
def test_what_the_hub_does_not_have_is_not_asked_for_again(
    hub: LoopbackHub,
    folder: Path,
    repo: str,
    revision: str,
    words: str,
) -> None:
    hub.add("datasets", REPO, folder)
    with pytest.raises(SourceError, match=f"{repo}@{revision}: .*{words}"):
        open_source(f"{repo}@{revision}")
    assert len(hub.requests) == 1


def test_offline_gets_one_line(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="switched off by HF_HUB_OFFLINE"):
        open_source("timm/nih-chest-xray-14").metadata()


STREAM_IN_A_PROCESS = r"""
import hashlib, pathlib, re, sys
from cxrfpn.data.sources import open_source

def peak():  # getrusage's would be that of the parent, where it is higher
    return int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())[1])

source = open_source(sys.argv[1])
before = peak()
digest = hashlib.sha256()
for part in source.parts():
    for row in source.rows(part):
        digest.update(row.image)
print(source.name, len(source.metadata()), digest.hexdigest())
print((peak() - before) / 1024)
"""


def test_the_default_source_streams_through_hf_endpoint_in_little_memory(
    tmp_path: Path, run_python: Callable[..., object]
) -> None:
    """One row group of 150 MB, cut and refused on its way, in a process that knows nothing but HF_ENDPOINT."""
    noise = np.random.default_rng(0)
    images = [noise.bytes(100_000) for _ in range(1500)]
    table = {
        "image": [{"bytes": image, "path": None} for image in images],
        "label_names": [[]] * len(images),
        "image_id": [f"{row:08}_000" for row in range(len(images))],
    }
    path = tmp_path / "test-0.parquet"
    # A page is the least that can be read; pyarrow would put 1024 images into one.
    pq.write_table(pa.table(table), path, compression="none", use_dictionary=False, write_batch_size=16)
    pinned = "c1bf579641b3256b4d49924436984b82bee5834d"
    with LoopbackHub() as loopback:
        loopback.add("datasets", "timm/nih-chest-xray-14", tmp_path, pinned)
        loopback.faults += [Fault("parquet", cut_after=1_000_000), Fault("parquet", status=503)]
        done = run_python(
            "-c", STREAM_IN_A_PROCESS, "timm/nih-chest-xray-14", HF_ENDPOINT=loopback.endpoint, HF_HUB_OFFLINE="0"
        )
    assert done.returncode == 0, done.stderr
    told, megabytes = done.stdout.splitlines()
    digest = hashlib.sha256(b"".join(images)).hexdigest()
    assert told == f"timm/nih-chest-xray-14@{pinned} 1500 {digest}"
    assert float(megabytes) < 60


ASK_AS_THE_LIBRARIES_DO = """
import sys
from datasets import Image, load_dataset
from transformers import AutoModelForImageClassification
chests = load_dataset(sys.argv[1], split="train", streaming=True).cast_column("image", Image(decode=False))
print(sum(len(row["image"]["bytes"]) for row in chests))
model = AutoModelForImageClassification.from_pretrained(sys.argv[2], trust_remote_code=True)
print(sum(parameter.numel() for parameter in model.parameters()))
"""


@pytest.mark.slow
def test_the_loopback_hub_answers_datasets_and_from_pretrained(
    folder: Path, package: Path, tiny_model, tmp_path: Path, run_python: Callable[..., object]
) -> None:
    with LoopbackHub() as loopback:
        loopback.add("datasets", REPO, folder)
        loopback.add("models", "someone/tiny", package)
        settings = {"HF_ENDPOINT": loopback.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        done = run_python("-c", ASK_AS_THE_LIBRARIES_DO, REPO, "someone/tiny", **settings)
    assert done.returncode == 0, done.stderr
    parameters = sum(parameter.numel() for parameter in tiny_model.parameters())
    assert done.stdout.split() == [str(80 * IMAGE_BYTES), str(parameters)]


def bytes_asked(header: str | None) -> int:
    if header is None:
        return 0
    start, stop = header.removeprefix("bytes=").split("-")
    return int(stop) - int(start) + 1
