"""A prepared folder -> a data set on the Hub."""

from pathlib import Path

import httpx2
from huggingface_hub import HfApi

from cxrfpn.data.preparing import SKIPPED, PrepareError
from cxrfpn.data.shards import MANIFEST, SHARD_FOLDER, PreparedShards

CARD = """---
tags: [chest-x-ray]
---
# {count:,} prepared chest radiographs

{kind} from `{source}`: grey images of {size} x {size} pixels with the findings, the patient and the boxes where they
are known, made by `prepare.py` of cxr-densenet-fpn. The terms of the source hold for these images too.
"""


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
    kind = "Drawings of no patient, all of them synthetic," if shards.source.startswith("phantom:") else "Radiographs"
    card = CARD.format(count=len(shards), kind=kind, source=shards.source, size=shards.size)
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
