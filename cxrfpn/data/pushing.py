"""A prepared folder -> a data set on the Hub."""

from pathlib import Path

import httpx2
from huggingface_hub import DatasetCardData, HfApi

from cxrfpn.data.labels import count_labels
from cxrfpn.data.preparing import SKIPPED, PrepareError
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, PreparedShards, read_summary
from cxrfpn.data.sharpness import SIDE_COLUMN

CARD = """---
{front_matter}
---
# {count:,} prepared chest radiographs

{kind} from `{source}`: grey images of {size} x {size} pixels with the findings, the patient and the boxes where they
are known, made by `prepare.py` of cxr-densenet-fpn. The terms of the source hold for these images too.

```python
from datasets import load_dataset
rows = load_dataset("{repo}", split="{first_split}", streaming=True)
```

| column | meaning |
| --- | --- |
| `image`, `image_id` | the grey image; its name in the source |
| `patient_id` | the patient, in the words of the source |
| `age`, `sex`, `view_position` | years; M or F; PA or AP; null where unknown |
| `findings` | names of the findings, empty for No Finding |
| `boxes` | where findings lie, as fractions of the image's sides |
| `split`, `fold` | train or test; fold 0 of train is the validation set; null where the source says neither |
| `{side}` | the shorter side of the source's file, in pixels |

| finding | images |
| --- | ---: |
{findings}

{skipped} images of the source could not be read; `{skipped_list}` has the reasons.
"""


def card_of(shards: PreparedShards, repo: str) -> str:
    """Return the data card of a prepared folder; its front matter gives `load_dataset` the files of each split."""
    splits = _splits(shards)
    files = [{"split": split, "path": paths} for split, paths in splits.items()]
    data = DatasetCardData(
        task_categories=["image-classification"],
        tags=["chest-x-ray"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    counts = count_labels(shards.metadata())
    return CARD.format(
        front_matter=data.to_yaml(),
        count=len(shards),
        kind="Drawings of no patient, all of them synthetic,"
        if shards.source.startswith("phantom:")
        else "Radiographs",
        source=shards.source,
        size=shards.size,
        repo=repo,
        first_split=next(iter(splits)),
        side=SIDE_COLUMN,
        findings="\n".join(f"| {name} | {number:,} |" for name, number in counts.items()),
        skipped=len(shards.skipped),
        skipped_list=SKIPPED,
    )


def _splits(shards: PreparedShards) -> dict[str, list[str]]:
    """Split -> its shards; "all" for all of them where one holds rows of several splits, or of none."""
    found: dict[str, list[str]] = {}
    splits, start = shards.metadata()["split"], 0
    for shard in shards.shards:
        stop = start + read_summary(shard)[0]
        names = splits.iloc[start:stop].unique()
        split = names[0] if len(names) == 1 and isinstance(names[0], str) else "all"
        if stop > start:  # a shard without rows has no split
            found.setdefault(split, []).append(f"{SHARD_FOLDER}/{shard.name}")
        start = stop
    return {"all": [f"{SHARD_FOLDER}/*.parquet"]} if "all" in found else found


def push_to_hub(folder: Path, repo: str) -> str:
    """Upload a finished prepared folder as a private data set; what is there is not sent again.

    Args:
        repo: `org/name`.

    Returns:
        the address of the data set.

    Raises:
        SourceError: the folder is not finished.
        PrepareError: the data set is there and public, no network, not logged in, no right to write there, or a name
            that the Hub does not take.
    """
    shards, api = PreparedShards(folder), HfApi()
    card = card_of(shards, repo)
    try:
        url = api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        if not api.repo_info(repo, repo_type="dataset").private:
            raise PrepareError(f"{repo}: is public on the Hub; make it private there, or push to another name")
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo, repo_type="dataset")
        api.upload_folder(
            folder_path=folder,
            allow_patterns=[f"{SHARD_FOLDER}/*.parquet", MANIFEST, SKIPPED],
            repo_id=repo,
            repo_type="dataset",
            commit_message=f"{len(shards)} radiographs of {shards.source}",
        )
    except PrepareError:
        raise
    except (httpx2.HTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PrepareError(f"{repo}: cannot be pushed to the Hub ({reason}); log in with `hf auth login`") from None
    return str(url)
