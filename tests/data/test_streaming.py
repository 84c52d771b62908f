"""Streaming from the Hub: every row as it is on disk over a bad network too, or one line that says what happened."""

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import httpx2
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tqdm import tqdm
from tqdm.contrib.concurrent import ensure_lock

from cxrfpn.data.schema import Row, Source, SourceError
from cxrfpn.data.sources import hub as patience
from cxrfpn.data.sources import open_source
from tests.hubs.loopback import Fault, LoopbackHub
from tests.hubs.repositories import COMMIT, tree

REPO = "someone/chests"
FILE = "data/train-00000-of-00002.parquet"
IMAGE_BYTES = 60_000
# How much faster than in earnest the libraries' waits pass.
HURRY = 50


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
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience as it is, but a clock that runs faster where the libraries and our module wait."""
    patience.be_patient()
    sleep = time.sleep
    for module in (huggingface_hub.utils._http, datasets.utils.file_utils, patience):
        fast = SimpleNamespace(sleep=lambda seconds: sleep(seconds / HURRY), monotonic=time.monotonic)
        monkeypatch.setattr(module, "time", fast)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    monkeypatch.setattr(patience, "RATE_SECONDS", 0.4)
    monkeypatch.setattr(patience, "LEAST_RATE", 100_000)


@pytest.fixture
def source(hub: LoopbackHub, hurried: None, folder: Path) -> Source:
    hub.add("datasets", REPO, folder)
    return open_source(REPO)


@pytest.fixture(scope="module")
def on_disk(folder: Path) -> list[Row]:
    return rows_of(open_source(f"parquet:{folder}"))


def rows_of(source, wanted=None) -> list[Row]:
    return [row for part in source.parts() for row in source.rows(part, wanted)]


def test_rows_and_metadata_are_those_on_disk(hub: LoopbackHub, source: Source, folder: Path, on_disk) -> None:
    assert source.name == f"{REPO}@{COMMIT}"
    assert rows_of(pickle.loads(pickle.dumps(source))) == on_disk
    hub.requests.clear()
    assert source.metadata().equals(open_source(f"parquet:{folder}").metadata())
    assert sum(bytes_asked(request.range) for request in hub.requests) < 0.15 * 80 * IMAGE_BYTES


def test_unwanted_row_groups_do_not_travel(hub: LoopbackHub, source: Source, on_disk) -> None:
    assert rows_of(source, {on_disk[15].image_id}) == [on_disk[15]]
    assert sum(bytes_asked(request.range) for request in hub.requests) < 3 * 10 * IMAGE_BYTES


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
def test_what_passes_is_waited_for(hub: LoopbackHub, hurried: None, folder: Path, on_disk, fault: Fault) -> None:
    hub.add("datasets", REPO, folder)
    hub.faults.append(replace(fault))
    assert rows_of(open_source(f"{REPO}@{COMMIT}")) == on_disk
    assert hub.faults[0].times == 0


def test_every_kind_of_trouble_at_once(hub: LoopbackHub, source: Source, on_disk) -> None:
    for status in (429, 500, 502, 503, 504):
        hub.faults += [Fault("parquet", status=status), Fault("parquet", cut_after=7_000 * status % 300_000)]
    assert rows_of(source) == on_disk
    assert all(fault.times == 0 for fault in hub.faults)


def test_cuts_that_leave_something_worthwhile_do_not_wear_patience_out(
    hub: LoopbackHub, source: Source, on_disk
) -> None:
    hub.faults.append(Fault("parquet", cut_after=300_000, times=1000))
    assert list(source.rows(FILE)) == on_disk[:40]
    assert 1000 - hub.faults[0].times >= 8
    ranges = [request.range.removeprefix("bytes=").split("-") for request in hub.requests if request.range]
    cut = next(index for index, (first, last) in enumerate(ranges) if int(last) - int(first) > 300_000)
    assert ranges[cut + 1] == [str(int(ranges[cut][0]) + 300_000), ranges[cut][1]]


def test_a_source_is_patient_in_every_process_that_it_travels_to(hub: LoopbackHub, source: Source, on_disk) -> None:
    """A worker starts with the libraries as they are."""
    travelled = pickle.dumps(source)
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)
    patience._set_retries.cache_clear()
    hub.faults.append(Fault("parquet", cut_after=300_000, times=1000))
    assert list(pickle.loads(travelled).rows(FILE)) == on_disk[:40]


def test_many_threads_may_be_the_first_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one exchanges the client of huggingface_hub, the others get none from it."""
    exchange, exchanges = patience.set_client_factory, []

    def slow_exchange(factory: Callable[[], httpx2.Client]) -> None:
        exchanges.append(factory)
        time.sleep(0.2)
        exchange(factory)

    monkeypatch.setattr(patience, "set_client_factory", slow_exchange)
    patience._set_retries.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: patience.be_patient(), range(8)))
    assert len(exchanges) == 1


def test_a_bar_that_ends_leaves_the_lock_to_the_bars_of_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tqdm, "_lock", raising=False)
    patience._set_retries.cache_clear()
    patience.be_patient()
    with ensure_lock(tqdm):  # as the libraries' thread pools do; it removes a lock that it has made
        pass
    assert hasattr(tqdm, "_lock")


def test_what_is_read_stays_at_the_commit_that_was_opened(hub: LoopbackHub, source: Source, folder: Path) -> None:
    hub.add("datasets", REPO, folder, "a" * 40)  # the branch has moved, and this Hub forgets what was before
    with pytest.raises(SourceError, match=f"{REPO}@{COMMIT}/{FILE}: .*no such revision|no such data set|HTTP 404"):
        list(source.rows(FILE))
    assert open_source(REPO).name == f"{REPO}@{'a' * 40}"


def test_a_file_without_a_size_gets_one_line(hub: LoopbackHub, hurried: None, folder: Path) -> None:
    hub.add("datasets", REPO, folder)

    def without_sizes(hub, request, **groups):
        answer = tree(hub, request, **groups)
        for item in answer.content:
            item.pop("size", None)
        return answer

    hub.route("GET", r"/api/(?P<kind>datasets)/(?P<repo>[\w.-]+/[\w.-]+)/tree/(?P<revision>[^/]+)(?:/(?P<under>.*))?",
              without_sizes)  # fmt: skip
    with pytest.raises(SourceError, match=f"^{REPO}@.*size") as caught:
        open_source(REPO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"resolvers";r=0;t=0'}])
def test_a_wait_that_the_server_asks_for_is_kept(hub: LoopbackHub, folder: Path, headers: dict[str, str]) -> None:
    hub.add("datasets", REPO, folder)
    source = open_source(REPO)
    hub.faults.append(Fault("parquet", status=429, headers=headers))
    source.part_metadata(FILE)
    refused = next(index for index, request in enumerate(hub.requests) if request.status == 429)
    refused, served = hub.requests[refused : refused + 2]
    assert served.status == 206
    assert 1.0 <= served.at - refused.at < 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("parquet", status=503, times=9999), "HTTP 503.*run it again later"),
        (Fault("parquet", status=429, times=9999), "HTTP 429.*run it again later"),
        (Fault("parquet", cut_after=100, times=9999), "peer closed connection.*run it again later"),
        (Fault("parquet", pause=1, times=9999), "timed out.*run it again later"),
        (Fault("parquet", pause=0.05, chunk=2000, times=9999), "too slow.*run it again later"),
        (Fault("parquet", status=403, times=9999), "cannot be read .HTTP 403"),
        (Fault("parquet", status=401, times=9999), "cannot be read .HTTP 401"),
    ],
    ids=lambda value: f"{value.status or value.cut_after or value.chunk}" if isinstance(value, Fault) else "",
)
def test_when_patience_ends_one_line_names_file_and_cause(
    hub: LoopbackHub, source: Source, monkeypatch: pytest.MonkeyPatch, fault: Fault, cause: str
) -> None:
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
    hub.faults.append(replace(fault))
    with pytest.raises(SourceError, match=f"{REPO}@{COMMIT}/{FILE}: .*{cause}") as caught:
        rows_of(source)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_gone_gets_one_line(hub: LoopbackHub, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
    hub.__exit__()
    with pytest.raises(SourceError, match=f"{REPO}@{COMMIT}/{FILE}: .*run it again later") as caught:
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
count = len(source.metadata())
digest = hashlib.sha256()
for part in source.parts():
    for number, row in enumerate(source.rows(part)):
        digest.update(row.image)
        if number == 300:
            before = peak()
print(source.name, count, digest.hexdigest())
print((peak() - before) / 1024)
"""


def test_the_default_source_streams_through_hf_endpoint_in_little_memory(
    tmp_path: Path, run_python: Callable[..., object]
) -> None:
    """150 MB, cut and refused on their way, in a process that knows nothing but HF_ENDPOINT: a row group at a time."""
    noise = np.random.default_rng(0)
    images = [noise.bytes(100_000) for _ in range(1500)]
    table = {
        "image": [{"bytes": image, "path": None} for image in images],
        "label_names": [[]] * len(images),
        "image_id": [f"{row:08}_000" for row in range(len(images))],
    }
    path = tmp_path / "test-0.parquet"
    pq.write_table(pa.table(table), path, row_group_size=100, compression="none", use_dictionary=False)
    pinned = "c1bf579641b3256b4d49924436984b82bee5834d"
    with LoopbackHub() as loopback:
        loopback.add("datasets", "timm/nih-chest-xray-14", tmp_path, pinned)
        loopback.faults += [Fault("parquet", cut_after=1_000_000), Fault("parquet", status=503)]
        done = run_python(
            "-c", STREAM_IN_A_PROCESS, "timm/nih-chest-xray-14", HF_ENDPOINT=loopback.endpoint, HF_HUB_OFFLINE="0"
        )
    assert done.returncode == 0, done.stderr
    line, megabytes = done.stdout.splitlines()
    digest = hashlib.sha256(b"".join(images)).hexdigest()
    assert line == f"timm/nih-chest-xray-14@{pinned} 1500 {digest}"
    assert float(megabytes) < 40


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
