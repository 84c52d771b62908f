"""Pictures of a prepared data set: who and what is in it, samples, and what augmentation and balancing do to it."""

from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrfpn.data.augment import Augmentation, augment, draw_parameters, evaluation_view
from cxrfpn.data.balancing import ReportProtocol
from cxrfpn.data.labels import LABELS, NO_FINDING, count_labels
from cxrfpn.data.schema import SourceError
from cxrfpn.data.shards import PreparedShards
from cxrfpn.style import BLUE, GREEN, GREY, ORANGE, STYLE, save_figure
from image_processing_cxrfpn import CxrFpnImageProcessor

_STYLE = {**STYLE, "figure.constrained_layout.use": True}
_SAMPLES = (4, 6)  # rows and columns of the grid
_AUGMENTED = (5, 5)  # images, and ways of each


def save_pictures(
    shards: PreparedShards,
    folder: Path,
    augmentation: Augmentation | None = None,
    size: int = 224,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> list[Path]:
    """Draw a prepared data set.

    Args:
        folder: where the PNGs go.
        augmentation: what training does to an image; the report's by default.
        size: side of the network's input, in pixels.
        seed: of the images that are picked and what is done to them.
        say: called with a line when there are too few images to draw the report's balancing.

    Returns:
        the files written: samples, augmentation, label_shares, label_counts, patients and balancing, each a PNG.

    Raises:
        SourceError: no images, or one that cannot be read.
    """
    metadata = shards.metadata()
    if metadata.empty:
        raise SourceError(f"{shards.folder}: holds no images to draw")
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[], Figure]] = {
        "samples": lambda: draw_samples(shards, metadata, seed),
        "augmentation": lambda: draw_augmentation(shards, metadata, augmentation or Augmentation(), size, seed),
        "label_shares": lambda: draw_label_shares(metadata),
        "label_counts": lambda: draw_label_counts(metadata),
        "patients": lambda: draw_patients(metadata),
        "balancing": lambda: draw_balancing(metadata, ReportProtocol(seed=seed)),
    }
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, draw in drawings.items():
            try:
                figure = draw()
            except SourceError as error:
                if name != "balancing":
                    raise
                say(f"no picture of the balancing: {error}")
                continue
            written.append(folder / f"{name}.png")
            save_figure(figure, written[-1])
    return written


def draw_samples(shards: PreparedShards, metadata: pd.DataFrame, seed: int) -> Figure:
    """Draw a grid of images with their findings and what is known of their patients."""
    rows, columns = _SAMPLES
    chosen = _pick(metadata, rows * columns, seed)
    figure = Figure(figsize=(1.9 * columns, 2.2 * rows), layout="none")
    for axes, row, image in zip(figure.subplots(rows, columns).flat, chosen, _read(shards, chosen), strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(_caption(metadata.iloc[row]), fontsize=7)
    _bare(figure)
    return figure


def draw_augmentation(
    shards: PreparedShards, metadata: pd.DataFrame, augmentation: Augmentation, size: int, seed: int
) -> Figure:
    """Draw a line an image: the original, what evaluation sees of it, and what training may see of it."""
    count, ways = _AUGMENTED
    chosen = _pick(metadata, count, seed)
    pixels = torch.from_numpy(np.stack(_read(shards, chosen)))
    views = [evaluation_view(pixels, size)]
    for epoch in range(ways):
        views.append(augment(pixels, draw_parameters(augmentation, len(pixels), seed, epoch, 0), size))
    titles = ["prepared", "evaluation", *(f"training, epoch {epoch + 1}" for epoch in range(ways))]
    figure = Figure(figsize=(1.7 * len(titles), 1.8 * len(chosen)), layout="none")
    panels = figure.subplots(len(chosen), len(titles), squeeze=False)
    for index, line in enumerate(panels):
        images = [pixels[index].numpy() / 255, *(_shown(view[index]) for view in views)]
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    _bare(figure)
    return figure


def draw_label_shares(metadata: pd.DataFrame) -> Figure:
    """Draw a pie of all labels, No Finding among them; an image with two findings counts for both."""
    counts = count_labels(metadata).sort_values(ascending=False)
    shares = counts / max(counts.sum(), 1)
    figure = Figure(figsize=(7.5, 5))
    axes = figure.subplots()
    if counts.any():
        wedges, _ = axes.pie(
            counts,
            colors=matplotlib.colormaps["cividis"](np.linspace(0.15, 0.95, len(counts))),
            startangle=90,
            counterclock=False,
            wedgeprops={"edgecolor": "white", "linewidth": 0.8},
        )
        named = [f"{_pretty(label)} {share:.1%}" for label, share in shares.items()]
        axes.legend(wedges, named, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set_title(f"Shares of {counts.sum():,} labels on {len(metadata):,} images")
    return figure


def draw_label_counts(metadata: pd.DataFrame) -> Figure:
    """Draw a bar a label: how many images carry it."""
    figure = Figure(figsize=(7.5, 4.6))
    _label_bars(figure.subplots(), count_labels(metadata), f"Labels of {len(metadata):,} images")
    return figure


def draw_patients(metadata: pd.DataFrame) -> Figure:
    """Sex, view and images of a patient as shares, and ages by sex."""
    figure = Figure(figsize=(9, 5.6))
    (sexes, views), (ages, follow_ups) = figure.subplots(2, 2)
    sex = metadata["sex"].fillna("unknown")
    for axes, values, title in ((sexes, sex, "Sex"), (views, metadata["view_position"].fillna("unknown"), "View")):
        shares = values.value_counts(normalize=True)
        bars = axes.bar(shares.index.astype(str), shares, color=BLUE, width=0.6)
        axes.bar_label(bars, [f"{share:.1%}" for share in shares])
        axes.set(ylim=(0, 1.1), ylabel="share of images", title=title)
    known = metadata["age"].notna()
    kinds = [kind for kind in ("M", "F", "unknown") if (known & (sex == kind)).any()]
    ages.hist(
        [metadata["age"][known & (sex == kind)].astype(float) for kind in kinds],
        bins=np.arange(0, 101, 5),
        stacked=True,
        color=[{"M": BLUE, "F": ORANGE, "unknown": GREY}[kind] for kind in kinds],
        label=kinds,
    )
    if kinds:
        ages.legend(frameon=False)
    ages.set(xlabel="age in years", ylabel="images", title=f"Age ({(~known).mean():.1%} unknown)")
    images = metadata.groupby("patient_id").size()
    follow_ups.hist(images.clip(upper=15), bins=np.arange(0.5, 16), color=GREEN)
    follow_ups.set(
        xlabel="images of a patient (15 and more together)", ylabel="patients", title=f"{len(images):,} patients"
    )
    return figure


def draw_balancing(metadata: pd.DataFrame, protocol: ReportProtocol) -> Figure:
    """Count the labels after each step of the report's protocol, in the train set once there is one.

    Raises:
        SourceError: too few images for the protocol.
    """
    steps = list(protocol.steps(metadata))
    figure = Figure(figsize=(11, 7.5))
    panels = figure.subplots(2, (len(steps) + 1) // 2, sharey=True, squeeze=False).flat
    for axes, (name, plan) in zip(panels, steps, strict=True):
        train = plan[plan["split"] == "train"]
        shown = (train["copies"] + train["mirrored"]).sum()
        _label_bars(axes, count_labels(metadata, train), f"{name}: {shown:,} images")
    figure.suptitle("The report's protocol, step by step (train set from the split on)")
    return figure


def _label_bars(axes: Axes, counts: pd.Series, title: str) -> None:
    names = [_pretty(label) for label in reversed(LABELS)]
    values = counts[list(reversed(LABELS))]
    colours = [GREY if label == NO_FINDING else BLUE for label in reversed(LABELS)]
    bars = axes.barh(names, values, color=colours, height=0.7)
    axes.bar_label(bars, [f"{value:,}" for value in values], padding=2, fontsize=7)
    axes.set(title=title, xlabel="images", xlim=(0, 1.18 * max(values.max(), 1)))


def _pick(metadata: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """Rows of images, each label as good a chance as another, so that healthy chests do not fill the picture."""
    random = np.random.default_rng(seed)
    line = random.permutation(len(metadata))
    first = metadata["findings"].iloc[line].map(lambda names: names[0] if names else NO_FINDING)
    return np.sort(line[np.argsort(first.groupby(first).cumcount().to_numpy(), kind="stable")[:count]])


def _read(shards: PreparedShards, rows: np.ndarray) -> list[np.ndarray]:
    files = shards.read_images(rows)
    images = [cv2.imdecode(np.frombuffer(files[int(row)], np.uint8), cv2.IMREAD_GRAYSCALE) for row in rows]
    if any(image is None for image in images):
        raise SourceError(f"{shards.folder}: an image is damaged; prepare it again")
    return images


def _shown(view: torch.Tensor) -> np.ndarray:
    """Turn a normalised image [3,S,S] into grey [S,S] of 0..1."""
    return view[0].numpy() * CxrFpnImageProcessor.image_std[0] + CxrFpnImageProcessor.image_mean[0]


def _caption(row: pd.Series) -> str:
    age = "age ?" if pd.isna(row["age"]) else f"{row['age']:.0f} y"
    others = ["?" if pd.isna(row[key]) else str(row[key]) for key in ("sex", "view_position")]
    findings = [_pretty(finding) for finding in row["findings"]] or [NO_FINDING]
    more = f" +{len(findings) - 2}" if len(findings) > 2 else ""
    return f"{', '.join([age, *others])}\n{', '.join(findings[:2])}{more}"


def _pretty(label: str) -> str:
    return label.replace("_", " ")


def _bare(figure: Figure) -> None:
    """Images side by side, without axes; laying out so many by constraints would take seconds."""
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.94, wspace=0.05, hspace=0.22)
    for axes in figure.axes:
        axes.set_axis_off()
