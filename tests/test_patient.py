"""Ages, sexes and views as people, headers and tables write them; and the patient vector."""

import math

import numpy as np
import pandas as pd
import pytest

from patient_cxrfpn import Patient


def test_the_patient_is_encoded_in_the_place_and_scale_of_the_report():
    assert Patient(age=63, view_position="AP", sex="F").encode() == (0.63, 1.0, 1.0)
    assert Patient(age=0, view_position="PA", sex="M").encode() == (0.0, 0.0, 0.0)
    assert Patient(age="63", view_position="pa", sex=" f ").encode() == (0.63, 0.0, 1.0)
    assert Patient(age=104).encode()[0] == 1.0


def test_unknown_is_not_zero():
    for nothing in (None, math.nan, "", "nan", "U", "unknown", "n/a", pd.NA, pd.NaT, np.float32("nan")):
        patient = Patient(nothing, nothing, nothing)
        assert patient == Patient() and not patient.notes
        assert all(math.isnan(value) for value in patient.encode())
    age, view_position, sex = Patient(age=0, sex="M").encode()
    assert (age, sex) == (0.0, 0.0) and math.isnan(view_position)


@pytest.mark.parametrize(
    ("written", "years"),
    [
        (81, 81),
        ("81", 81),
        ("058Y", 58),
        ("42 Y", 42),
        ("042y", 42),
        ("42 years", 42),
        ("63,5", 63.5),
        (np.int64(7), 7),
        ("006M", 0.5),
        ("6 months", 0.5),
        ("010D", 0.0274),
        ("003W", 0.0575),
        ("0", 0),
        ("120Y", 120),
        ("000Y", None),
        ("000D", None),
        ("000", None),
    ],
)
def test_an_age_is_read_in_any_form(written: object, years: float | None):
    patient = Patient(age=written)
    assert patient.age == (None if years is None else pytest.approx(years, abs=1e-4)) and not patient.notes


@pytest.mark.parametrize("written", [414, "414", "155Y", -1, 121, math.inf, 10**30, "1" * 300])
def test_an_age_beyond_a_human_life_is_unknown_and_noted(written: object):
    patient = Patient(age=written)
    assert patient.age is None and math.isnan(patient.encode()[0])
    (note,) = patient.notes
    assert note.startswith("The age ") and note.endswith("is outside 0 to 120 years and was taken as unknown.")


@pytest.mark.parametrize(
    ("written", "sex"),
    [("M", "M"), ("Male", "M"), ("male ", "M"), ("FEMALE", "F"), ("f", "F"), ("O", None), ("U", None), ("Other", None)],
)
def test_a_sex_is_read_in_any_form(written: str, sex: str | None):
    assert Patient(sex=written).sex == sex


@pytest.mark.parametrize(
    ("written", "view"),
    [("PA", "PA"), ("ap", "AP"), ("AP SUPINE", "AP"), ("AP_horizontal", "AP"), ("PA LLD", "PA"), ("Chest PA", "PA")]
    + [("postero-anterior", "PA"), ("Antero-posterior", "AP"), ("AP/PA", None), ("Frontal", None), ("LLD", None)]
    + [(lateral, "LATERAL") for lateral in ("LATERAL", "LL", "RL", "L", "lat.", "left lateral", "XTABLE LATERAL")]
    + [(oblique, "OBLIQUE") for oblique in ("LAO", "RPO", "right anterior oblique")],
)
def test_a_view_is_read_in_any_form_and_noted_unless_it_is_frontal(written: str, view: str | None):
    patient = Patient(view_position=written)
    assert patient.view_position == view
    assert math.isnan(patient.encode()[1]) == (view not in ("PA", "AP"))
    expected = f"The view is {view.lower()}, but" if view in ("LATERAL", "OBLIQUE") else None
    assert [note[: len(expected or "")] for note in patient.notes] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("patient", "message"),
    [
        ({"age": "old"}, "age 'old' is not a number"),
        ({"age": True}, "age True is not a number"),
        ({"sex": "1"}, "sex '1' is none of M, F"),
        ({"view_position": "SEPIA"}, "view position 'SEPIA' is none of PA, AP"),
    ],
)
def test_what_is_no_age_sex_or_view_is_refused_by_name(patient: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Patient(**patient)


def test_what_is_unknown_of_one_is_taken_from_another_with_the_notes_of_both():
    merged = Patient(age=414, sex="F").or_else(Patient(age=63, sex="M", view_position="LL"))
    assert merged == Patient(63, "F", "LATERAL") and len(merged.notes) == 2
