"""How every picture of ours is drawn: colours that any eye tells apart, small type, no frame."""

# Of the palette of Okabe and Ito (2008), made for every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
DOTS_AN_INCH = 110
STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
