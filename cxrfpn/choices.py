"""What the scripts let people choose from, apart from the code behind it, which takes seconds to import."""

from argparse import ArgumentParser, ArgumentTypeError

DEFAULT_SOURCE = "timm/nih-chest-xray-14"
SPLITS = ("train", "validation", "test", "all")
PROTOCOL_NAMES = ("official", "report", "patients")
LABEL_TABLE_NAMES = ("chexpert", "mimic", "padchest", "vindr", "rsna", "siim", "nih-google")
# The precision that an operating point keeps to by default.
MIN_PRECISION = 0.30
# The share of films, with a finding and without it, that three-way calls get right or leave uncertain by default.
GUARANTEE = 0.90
# The column of a table of predictions that says how well each picture fits what the network was trained on.
FIT = "fit"
FORM_NAMES = ("table", "json", "csv", "parquet")
# The fields of a source whose columns may have names of their own: the image, and its metadata.
FIELDS = ("image", "image_id", "patient_id", "age", "sex", "view_position", "findings", "split", "fold")


def add_columns_option(parser: ArgumentParser) -> None:
    """Add `--columns`, whose value `open_source` takes as `columns`."""
    parser.add_argument(
        "--columns",
        type=columns_from,
        default={},
        metavar="FIELD=COLUMN,...",
        help="Read these columns where the source has names of its own: image=scan,findings=dx. Nothing after = leaves "
        f"a field out. Fields are {', '.join(FIELDS)}.",
    )


def columns_from(text: str) -> dict[str, str]:
    """Read `image=scan,findings=dx` as a command line gives it.

    Raises:
        ArgumentTypeError: another form.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if wrong := [field for field, equals, _ in pairs if not equals or field.strip() not in FIELDS]:
        raise ArgumentTypeError(f"{wrong[0]!r} is not FIELD=COLUMN with a field of {', '.join(FIELDS)}")
    return {field.strip(): column.strip() for field, _, column in pairs}
