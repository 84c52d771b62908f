"""The corpus, in a folder."""

from pathlib import Path

import pytest

from tests.hardening.corpus import File, make_corpus


@pytest.fixture(scope="session")
def corpus() -> dict[str, File]:
    return make_corpus()


@pytest.fixture(scope="session")
def corpus_folder(corpus: dict[str, File], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of the corpus, in one folder; read only."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, file in corpus.items():
        (folder / name).write_bytes(file.data)
    return folder
