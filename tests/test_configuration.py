"""The findings' order, and configs that must be refused."""

import pytest

from configuration_cxrfpn import FINDINGS, CxrFpnConfig


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
        ({"id2label": {0: "TB", 1: "TB"}}, "id2label needs a name of its own for each finding, got 'TB'"),
        ({"id2label": {0: "TB|scar"}}, r"got 'TB\|scar'; a name is printable, without '|'"),
        ({"id2label": {0: "error"}}, "none of image, image_id"),
        ({"id2label": {1: "TB"}}, "id2label must count its findings from 0"),
        ({"id2label": {0: "TB"}, "pos_weight": [1.0, 2.0]}, "pos_weight needs 1 values, one a finding, got 2"),
        ({"block_config": (6, 12)}, "block_config needs 4"),
        ({"pos_weight": [1.0]}, "pos_weight needs 14"),
        ({"pooling_sharpness": -1.0}, "pooling_sharpness must be 0 or more"),
    ],
)
def test_a_config_of_another_network_is_refused(changes: dict, said: str):
    with pytest.raises(ValueError, match=said):
        CxrFpnConfig(**changes)
