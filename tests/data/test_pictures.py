"""Pictures of a data set: that they are drawn, whole, of what is there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrfpn.data.augment import Augmentation
from cxrfpn.data.balancing import ReportProtocol
from cxrfpn.data.labels import LABELS, count_labels
from cxrfpn.data.phantom import PhantomSource
from cxrfpn.data.pictures import (
    draw_augmentation,
    draw_balancing,
    draw_label_counts,
    draw_label_shares,
    draw_patients,
    draw_samples,
    save_pictures,
)
from cxrfpn.data.schema import Row
from cxrfpn.data.shards import PreparedShards

NAMES = ["samples", "augmentation", "label_shares", "label_counts", "patients", "balancing"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, write_prepared: Callable[..., list[Row]]) -> PreparedShards:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder, (120, 80), 32)
    return PreparedShards(folder)


def test_every_picture_is_written_and_is_no_blank(shards: PreparedShards, tmp_path: Path) -> None:
    written = save_pictures(shards, tmp_path / "pictures", size=24)
    assert [path.stem for path in written] == NAMES
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG" and min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5


def test_too_few_images_to_balance_are_told_and_the_other_pictures_drawn(
    tmp_path: Path, write_prepared: Callable[..., list[Row]]
) -> None:
    write_prepared(tmp_path / "prepared", (4,), 32)
    lines: list[str] = []
    written = save_pictures(PreparedShards(tmp_path / "prepared"), tmp_path, size=24, say=lines.append)
    assert [path.stem for path in written] == NAMES[:-1]
    assert len(lines) == 1 and "too few for the report's protocol" in lines[0]


def test_label_bars_are_as_long_as_the_counts() -> None:
    metadata = PhantomSource(300).metadata()
    axes = draw_label_counts(metadata).axes[0]
    drawn = {text.get_text(): bar.get_width() for text, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    expected = count_labels(metadata)
    assert drawn == {label.replace("_", " "): expected[label] for label in LABELS}


def test_label_shares_add_up_to_the_whole() -> None:
    metadata = PhantomSource(300).metadata()
    texts = [text.get_text() for text in draw_label_shares(metadata).axes[0].get_legend().get_texts()]
    assert len(texts) == 15
    assert sum(float(text.rsplit(" ", 1)[1].rstrip("%")) for text in texts) == pytest.approx(100, abs=0.8)


def test_patients_are_drawn_with_unknowns_named() -> None:
    metadata = PhantomSource(90).metadata()
    metadata.loc[:29, ["age", "sex", "view_position"]] = None
    sexes, views, ages, _ = draw_patients(metadata).axes
    for axes in (sexes, views):
        names = [text.get_text() for text in axes.get_xticklabels()]
        shares = dict(zip(names, [bar.get_height() for bar in axes.patches], strict=True))
        assert shares["unknown"] == pytest.approx(1 / 3)
    assert "33.3% unknown" in ages.get_title()


def test_balancing_has_a_panel_a_step() -> None:
    metadata = PhantomSource(500).metadata()
    protocol = ReportProtocol(replicate_to=40)
    figure = draw_balancing(metadata, protocol)
    names = [axes.get_title().split(":")[0] for axes in figure.axes]
    assert names == ["whole set", "undersampled", "split", "mirrored", "replicated", "cut"]
    assert figure.axes[0].get_title() == "whole set: 500 images"


def test_samples_and_augmentation_show_the_images_themselves(shards: PreparedShards) -> None:
    metadata = shards.metadata()
    samples = [axes for axes in draw_samples(shards, metadata, seed=0).axes if axes.images]
    assert len(samples) == 24 and all(axes.get_title() for axes in samples)
    still = Augmentation(crop=1.0, rotation_degrees=0, translation=0, blur=0)
    lines = draw_augmentation(shards, metadata, still, size=32, seed=0).axes
    original, evaluation, trained = (np.asarray(lines[place].images[0].get_array()) for place in (0, 1, 2))
    np.testing.assert_allclose(trained, original, atol=0.01)
    assert evaluation.shape == (32, 32) and abs(evaluation - original).mean() < 0.2
