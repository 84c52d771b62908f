"""How every picture of ours is drawn: colours that any eye tells apart, small type, no frame."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from cxrfpn.files import write_atomically

# Of the palette of Okabe and Ito (2008), made for every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
DOTS_AN_INCH = 110
STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}


def save_figure(figure: Figure, path: Path) -> None:
    """Draw a figure into a PNG file, which is there whole or as it was before.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_AN_INCH)
    write_atomically(path, drawn.getbuffer())
