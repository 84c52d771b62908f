"""Draw pictures that are no chest radiographs, to fit and measure the demo's gate on."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 256


def landscape(random: np.random.Generator) -> Image.Image:
    """Draw a photograph out of doors: sky, hills, grain, some round things."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    level = 0.9 - random.uniform(0.1, 0.4) * y
    for depth in range(random.integers(2, 5)):
        ridge = (
            0.3
            + 0.15 * depth
            + sum(random.uniform(0, 0.08) * np.sin(2 * np.pi * (k * x + random.random())) for k in range(1, 6))
        )
        level = np.where(y > ridge, random.uniform(0.05, 0.7), level)
    image = Image.fromarray((255 * level.clip(0, 1)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(0, 6)):
        left, top = random.uniform(0, SIDE, 2)
        size = random.uniform(8, 60)
        draw.ellipse((left, top, left + size, top + size), fill=int(random.integers(0, 255)))
    return _grain(image, random, 6)


def room(random: np.random.Generator) -> Image.Image:
    """Draw a photograph indoors: overlapping boxes in soft light."""
    image = Image.new("L", (SIDE, SIDE), int(random.integers(80, 220)))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(6, 25)):
        left, top = random.uniform(-40, SIDE, 2)
        width, height = random.uniform(10, 140, 2)
        draw.rectangle((left, top, left + width, top + height), fill=int(random.integers(0, 255)))
    return _grain(image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 4))), random, 5)


def face(random: np.random.Generator) -> Image.Image:
    """Draw a portrait: a bright oval, hair, eyes and mouth; symmetric, as chests are."""
    image = Image.new("L", (SIDE, SIDE), int(random.integers(20, 230)))
    draw = ImageDraw.Draw(image)
    cx, cy, r = SIDE / 2 + random.normal(0, 8), SIDE / 2 + random.normal(0, 12), random.uniform(55, 95)
    skin, hair = int(random.integers(110, 240)), int(random.integers(0, 90))
    draw.rectangle((cx - 1.6 * r, cy + 1.2 * r, cx + 1.6 * r, 2 * SIDE), fill=int(random.integers(20, 220)))
    draw.ellipse((cx - 1.05 * r, cy - 1.5 * r, cx + 1.05 * r, cy + r), fill=hair)
    draw.ellipse((cx - 0.85 * r, cy - 1.1 * r, cx + 0.85 * r, cy + 1.2 * r), fill=skin)
    for side in (-1, 1):
        draw.ellipse((cx + side * 0.4 * r - 12, cy - 16, cx + side * 0.4 * r + 12, cy - 2), fill=hair)
    draw.ellipse((cx - 0.35 * r, cy + 0.6 * r, cx + 0.35 * r, cy + 0.75 * r), fill=hair)
    return _grain(image.filter(ImageFilter.GaussianBlur(random.uniform(1, 4))), random, 4)


def hand(random: np.random.Generator) -> Image.Image:
    """Draw a radiograph of a hand: five rows of bones in soft tissue on black."""
    image = Image.new("L", (SIDE, SIDE), int(random.integers(0, 40)))
    tissue, bone = int(random.integers(60, 110)), int(random.integers(160, 250))
    base = np.array([SIDE / 2 + random.normal(0, 10), SIDE * 0.82])
    tilt = random.normal(0, 0.15)
    rays = [(base, tilt + angle, random.uniform(0.85, 1.1) * length) for angle, length in
            zip((-0.75, -0.28, -0.02, 0.22, 0.46), (0.42, 0.66, 0.72, 0.67, 0.55), strict=True)]  # fmt: skip
    draw = ImageDraw.Draw(image)
    draw.ellipse((base[0] - 62, base[1] - 90, base[0] + 62, base[1] + 40), fill=tissue)
    for width, level in ((24, tissue), (11, bone)):
        for start, angle, length in rays:
            way = SIDE * length * np.array([np.sin(angle), -np.cos(angle)])
            for begin, end in ((0.1, 0.48), (0.52, 0.74), (0.77, 0.9), (0.92, 1.0)):
                draw.line((*(start + begin * way), *(start + end * way)), fill=level, width=width)
    draw.line((base[0] - 20, base[1], base[0] - 24, SIDE), fill=bone, width=22)
    draw.line((base[0] + 20, base[1], base[0] + 24, SIDE), fill=bone, width=18)
    return _grain(image.filter(ImageFilter.GaussianBlur(1.5)), random, 4)


def knee(random: np.random.Generator) -> Image.Image:
    """Draw a radiograph of a knee: two thick bones that meet in the middle."""
    image = Image.new("L", (SIDE, SIDE), int(random.integers(0, 50)))
    draw = ImageDraw.Draw(image)
    cx, wide, tissue, bone = (
        SIDE / 2,
        random.uniform(24, 36),
        int(random.integers(70, 120)),
        int(random.integers(150, 250)),
    )
    draw.rectangle((cx - 2.6 * wide, 0, cx + 2.6 * wide, SIDE), fill=tissue)
    for top, bottom, joint in ((0, 0.48, 0.4), (0.52, 1.0, 0.6)):
        draw.rectangle((cx - wide, SIDE * top, cx + wide, SIDE * bottom), fill=bone)
        draw.ellipse((cx - 1.9 * wide, SIDE * joint - 22, cx + 1.9 * wide, SIDE * joint + 22), fill=bone)
    image = image.rotate(float(random.normal(0, 6)), resample=Image.Resampling.BILINEAR)
    return _grain(image.filter(ImageFilter.GaussianBlur(2)), random, 4)


def slice_(random: np.random.Generator) -> Image.Image:
    """Draw a slice of a CT: a lying ellipse on black with round organs."""
    image = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(image)
    c, a, b = SIDE / 2, random.uniform(95, 122), random.uniform(60, 95)
    draw.ellipse((c - a, c - b, c + a, c + b), fill=int(random.integers(90, 170)))
    for _ in range(random.integers(4, 12)):
        x, y = c + random.normal(0, a / 2.4), c + random.normal(0, b / 2.6)
        r, q = random.uniform(6, 30, 2)
        draw.ellipse((x - r, y - q, x + r, y + q), fill=int(random.integers(20, 230)))
    draw.ellipse((c - 13, c + 0.55 * b, c + 13, c + 0.55 * b + 26), fill=245)
    return _grain(image.filter(ImageFilter.GaussianBlur(1)), random, 5)


def chart(random: np.random.Generator) -> Image.Image:
    """Bars or lines in a frame, on white or on black."""
    dark = random.random() < 0.3
    image = Image.new("L", (SIDE, SIDE), 15 if dark else 255)
    draw, ink = ImageDraw.Draw(image), 220 if dark else 20
    draw.line((30, 15, 30, 226, 244, 226), fill=ink, width=2)
    count = int(random.integers(3, 12))
    heights = random.uniform(20, 200, count)
    if random.random() < 0.5:
        for index, height in enumerate(heights):
            left = 38 + index * 200 / count
            draw.rectangle((left, 225 - height, left + 140 / count, 225), fill=int(random.integers(40, 210)))
    else:
        for _ in range(random.integers(1, 4)):
            ys = 225 - random.uniform(20, 200, count)
            draw.line([(38 + i * 200 / count, y) for i, y in enumerate(ys)], fill=int(random.integers(0, 200)), width=3)
    return image


def text(random: np.random.Generator) -> Image.Image:
    """Draw a page of words."""
    image = Image.new("L", (SIDE, SIDE), 255)
    draw, size = ImageDraw.Draw(image), int(random.integers(7, 20))
    font = ImageFont.load_default(size)
    for top in range(12, SIDE - 12, int(size * 1.4)):
        words = ["".join(chr(97 + c) for c in random.integers(0, 26, random.integers(2, 10))) for _ in range(12)]
        draw.text((14, top), " ".join(words)[: int(SIDE * 1.7 / size)], fill=20, font=font)
    return image


def blank(random: np.random.Generator) -> Image.Image:
    """Nothing: a plain level, or a smooth ramp, with the least of grain."""
    ramp = random.uniform(0, 0.5) * np.linspace(0, 1, SIDE)[:, None] * np.ones((1, SIDE))
    level = random.uniform(0.1, 0.9) + (ramp if random.random() < 0.5 else ramp.T)
    return _grain(Image.fromarray((255 * level.clip(0, 1)).astype(np.uint8)), random, 1)


def noise(random: np.random.Generator) -> Image.Image:
    """Noise of some coarseness."""
    side = int(random.choice([4, 8, 16, 32, 64, SIDE]))
    return Image.fromarray(random.integers(0, 256, (side, side), dtype=np.uint8)).resize((SIDE, SIDE))


def _grain(image: Image.Image, random: np.random.Generator, most: float) -> Image.Image:
    pixels = np.asarray(image, np.float64) + random.normal(0, random.uniform(0.3, most), (SIDE, SIDE))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "landscape": landscape, "room": room, "face": face, "hand": hand, "knee": knee, "CT slice": slice_,
    "chart": chart, "text": text, "blank": blank, "noise": noise,
}  # fmt: skip
