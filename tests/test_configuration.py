"""The findings' order, the patient encoding, and configs that must be refused."""

import math

import pytest

from configuration_cxrfpn import FINDINGS, CxrFpnConfig, encode_patient


def test_the_patient_is_encoded_in_the_place_and_scale_of_the_report():
    assert encode_patient(age=63, view_position="AP", sex="F") == (0.63, 1.0, 1.0)
    assert encode_patient(age=0, view_position="PA", sex="M") == (0.0, 0.0, 0.0)
    assert encode_patient(age="63", view_position="pa", sex=" f ") == (0.63, 0.0, 1.0)
    assert encode_patient(age=104)[0] == 1.0


def test_unknown_is_not_zero():
    assert all(math.isnan(value) for value in encode_patient())
    assert all(math.isnan(value) for value in encode_patient(age=math.nan, sex=math.nan, view_position=math.nan))
    age, view_position, sex = encode_patient(age=0, sex="M")
    assert (age, sex) == (0.0, 0.0) and math.isnan(view_position)


@pytest.mark.parametrize(
    ("patient", "said"),
    [
        ({"age": 414}, "age 414 is outside 0 to 120 years"),
        ({"age": -1}, "age -1 is outside"),
        ({"age": "old"}, "age 'old' is not a number"),
        ({"sex": "X"}, "sex 'X' is none of M, F"),
        ({"view_position": "LATERAL"}, "view position 'LATERAL' is none of PA, AP"),
    ],
)
def test_an_impossible_patient_is_refused_by_name(patient: dict, said: str):
    with pytest.raises(ValueError, match=said):
        encode_patient(**patient)


def test_a_config_names_the_findings_in_order_and_survives_saving(tmp_path):
    config = CxrFpnConfig(dropout=0.1, pos_weight=[1.5] * 14)
    config.save_pretrained(tmp_path)
    loaded = CxrFpnConfig.from_pretrained(tmp_path)
    assert [loaded.id2label[index] for index in range(14)] == list(FINDINGS)
    assert loaded.label2id["Hernia"] == FINDINGS.index("Hernia")
    assert loaded.problem_type == "multi_label_classification"
    assert (loaded.dropout, loaded.pos_weight, loaded.image_size) == (0.1, [1.5] * 14, 224)
    assert set(loaded.auto_map) == {"AutoConfig", "AutoModel", "AutoModelForImageClassification"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": dict(enumerate(reversed(FINDINGS)))}, "id2label must name the 14 findings"),
        ({"block_config": (6, 12)}, "block_config needs 4"),
        ({"pos_weight": [1.0]}, "pos_weight needs 14"),
        ({"pooling_sharpness": -1.0}, "pooling_sharpness must be 0 or more"),
    ],
)
def test_a_config_of_another_network_is_refused(changes: dict, said: str):
    with pytest.raises(ValueError, match=said):
        CxrFpnConfig(**changes)
