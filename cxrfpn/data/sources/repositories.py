"""Data sets of the Hugging Face Hub, as `datasets` finds them."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import TypeVar

import datasets
from datasets import IterableDatasetDict, load_dataset_builder
from datasets.packaged_modules.parquet.parquet import ParquetConfig
from huggingface_hub import HfApi

from cxrfpn.data.schema import Source, SourceError
from cxrfpn.data.sources.columns import SPLITS
from cxrfpn.data.sources.hub import patiently
from cxrfpn.data.sources.parquet import ParquetSource
from cxrfpn.data.sources.places import NOTHING_MORE, Part, Place
from cxrfpn.data.sources.streamed import StreamedSource

T = TypeVar("T")


def open_repository(
    repo: str, config: str | None, revision: str, without: Collection[str], columns: Mapping[str, str]
) -> Source:
    """Open a data set of the Hub at the commit that a revision now stands for; all is read from that commit.

    Raises:
        SourceError: the Hub does not have it, does not give it or does not answer, or `datasets` cannot open it.
    """
    what = f"{repo}@{revision}"
    info = patiently(lambda: HfApi().dataset_info(repo, revision=revision, timeout=30), what)
    name = f"{repo}{f':{config}' if config else ''}@{info.sha}"
    names = tuple(sorted(file.rfilename for file in info.siblings or ()))
    opened = patiently(lambda: _open(repo, config, info.sha), what)
    streams = patiently(opened.as_streaming_dataset, what)
    base = f"hf://datasets/{repo}@{info.sha}"
    if isinstance(opened.config, ParquetConfig):
        place = Place(name, base, names, _parts(opened.config.data_files, streams, base))
        return ParquetSource(name, partial(_same, place), without, columns)
    return StreamedSource(name, partial(_same, streams), base, without, columns)


def _open(repo: str, config: str | None, commit: str) -> datasets.DatasetBuilder:
    try:
        return load_dataset_builder(repo, name=config, revision=commit, **NOTHING_MORE)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise SourceError(
            f"{repo}: is read by a script, which `datasets` no longer runs; take a data set of files instead "
            "(of NIH ChestX-ray14, timm/nih-chest-xray-14)"
        ) from None


def _parts(files: Mapping[str, list[str]], streams: IterableDatasetDict, base: str) -> dict[str, Part]:
    # Without a split of their own, `datasets` calls all files "train".
    known = SPLITS if list(files) != ["train"] else ()
    return {
        url.removeprefix(f"{base}/"): Part(url, streams[split].features, split if split in known else None)
        for split, urls in files.items()
        for url in urls
    }


def _same(value: T) -> T:
    return value
