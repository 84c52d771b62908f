"""The files of a model package: where they lie, and what its weights are known by.

torch and transformers are imported when they are first needed: those who predict without them start sooner.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

CONFIG, PROCESSOR, WEIGHTS, THRESHOLDS = (
    "config.json", "preprocessor_config.json", "model.safetensors", "thresholds.json",
)  # fmt: skip
# What from_pretrained is given to find a package.
_PLACE = ("cache_dir", "force_download", "local_files_only", "token", "subfolder")


@dataclass(frozen=True)
class Package:
    """Where a package lies: a folder, or a repository on the Hub at one revision.

    Args:
        source: the folder, or the Hub id.
        revision: the commit that everything is read from; None for a folder.
        options: further arguments of transformers' `cached_file`.
    """

    source: str
    revision: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def locate(cls, source: str | PathLike[str], revision: str | None = None, **options: object) -> "Package":
        """Find a package as `from_pretrained` does, from its arguments; those about other things are left alone."""
        from transformers.utils.hub import resolve_revision

        options = {key: value for key, value in options.items() if key in _PLACE}
        place = {key: options.get(key) for key in ("token", "cache_dir")}
        local_only = bool(options.get("local_files_only"))
        return cls(str(source), resolve_revision(source, revision, local_files_only=local_only, **place), options)

    def file(self, name: str) -> Path | None:
        """Return the path of a file of the package, fetched where need be; None where there is no such file."""
        from transformers.utils import cached_file

        found = cached_file(
            self.source,
            name,
            revision=self.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            **self.options,
        )
        return None if found is None else Path(found)

    def read(self, *names: str) -> dict[str, bytes]:
        """Return the content of those of the named files that exist."""
        paths = {name: self.file(name) for name in names}
        return {name: path.read_bytes() for name, path in paths.items() if path is not None}


def weights_digest(tensors: Mapping[str, object]) -> str | None:
    """Return a sha256 that identifies weights: the same in memory and on disk, in half and in single precision.

    Every tensor counts by its name, shape and values, in the order of the names. Floating-point values are rounded to
    bfloat16 first, so that weights stored in half precision have one digest in whichever precision they are loaded. A
    step of training changes some of the millions of rounded values, and with them the digest.

    Args:
        tensors: a state dictionary; entries that are no tensors (as quantised layers have) are left out.

    Returns:
        64 hexadecimal digits, or None where values are not in memory (offloaded weights).
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        if not isinstance(value, torch.Tensor):
            continue
        if value.is_meta:
            return None
        digest.update(json.dumps([name, list(value.shape)]).encode())
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.to(torch.bfloat16).contiguous().view(torch.int16)
        digest.update(value.contiguous().numpy())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
