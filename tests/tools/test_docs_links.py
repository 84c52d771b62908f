"""Links of docs/ to files that its site does not hold."""

import pytest

from tools.docs_links import on_page_markdown


def test_links_out_of_docs_become_names_and_others_stay():
    page = "See [the README](../README.md), [SECURITY.md](../SECURITY.md) and [training](training.md#recipes)."
    said = "See the README (`README.md`), SECURITY.md and [training](training.md#recipes)."
    assert on_page_markdown(page, page=None) == said


def test_a_link_to_a_file_that_is_gone_is_an_error():
    with pytest.raises(FileNotFoundError, match="docs link to recipes/gone.yaml"):
        on_page_markdown("[a recipe](../recipes/gone.yaml)")
