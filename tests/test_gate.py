"""The gate: radiographs pass, other pictures do not, every engine has it without torch, and its errors are stated."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from cxrfpn.data.manipulated import UNFIT
from cxrfpn.data.phantom import draw_phantom
from gate_cxrfpn import LEAST_FIT, NOTE, Gate, features, film_fit, fit_notes
from gate_weights_cxrfpn import MEASURED
from radiograph_cxrfpn import read_radiograph
from tools.fit_gate import FIGURES, as_written
from tools.non_chest import KINDS


def passes(pixels: np.ndarray) -> bool:
    return film_fit(pixels) >= LEAST_FIT


def test_phantoms_pass():
    # A seed that the fit did not draw, healthy and with every kind of finding that covers much.
    findings = [(), ("Cardiomegaly",), ("Effusion",), ("Pneumothorax",), ("Edema",), ("Consolidation", "Effusion")]
    drawn = [
        draw_phantom(np.random.default_rng([7, number]), 40 + number, "FM"[number % 2], "PA", findings[number % 6])[0]
        for number in range(24)
    ]
    assert np.mean([passes(pixels) for pixels in drawn]) >= 0.9


def test_real_radiographs_pass_and_manipulated_ones_do_not(nih_mini):
    films = {path.name: read_radiograph(path).pixels for path in (nih_mini / "originals").iterdir()}
    # One is tagged MONOCHROME1 and is not: it comes out as a negative, and the gate is who notices.
    negative = films.pop("rsna-pa-tagged-monochrome1.dcm")
    assert all(map(passes, films.values())) and not passes(negative)
    for kind in ("negative", "on its side", "upside down"):
        random = np.random.default_rng(0)
        rejected = [not passes(np.ascontiguousarray(UNFIT[kind](pixels, random))) for pixels in films.values()]
        assert np.mean(rejected) >= 0.7, kind


@pytest.mark.parametrize("kind", list(KINDS))
def test_other_pictures_are_rejected(kind):
    random = np.random.default_rng(2026)
    assert np.mean([not passes(read_radiograph(KINDS[kind](random)).pixels) for _ in range(20)]) >= 0.85


def test_the_verdict_does_not_hang_on_size_or_depth():
    pixels, _ = draw_phantom(np.random.default_rng(3))
    large = np.asarray(Image.fromarray(pixels).resize((1800, 1800), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16) * 257).save(file, "PNG")
    assert abs(film_fit(large) - film_fit(pixels)) < 0.2
    assert abs(film_fit(read_radiograph(file.getvalue()).pixels) - film_fit(pixels)) < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (3, 4000), (4000, 3)])
def test_any_picture_gets_a_fit(shape):
    for level in (0, 255):
        fit = film_fit(np.full(shape, level, np.uint8))
        assert 0 <= fit < LEAST_FIT and fit_notes(fit) == (NOTE,)
    assert fit_notes(LEAST_FIT) == ()


def test_the_gate_needs_no_torch_and_is_the_one_that_was_measured(run_python):
    done = run_python("-c", "import gate_cxrfpn, sys; gate_cxrfpn.Gate.load(); sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    figures, gate = json.loads(FIGURES.read_text()), Gate.load()
    assert {kind: row["rejected"] for kind, row in figures["kinds"].items()} == MEASURED["rejected"]
    assert figures["kept"]["radiographs"] == MEASURED["kept"] > 0.97
    values = features(draw_phantom(np.random.default_rng(0))[0])[None]
    np.testing.assert_allclose(as_written(gate).scores(values), gate.scores(values), rtol=1e-4)
