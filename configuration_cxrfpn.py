"""What the network is: every width and rate, and the names of its findings."""

import copy
import math

from transformers import PreTrainedConfig

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .findings_cxrfpn import FINDINGS
except ImportError:
    from findings_cxrfpn import FINDINGS

# What the image processor normalises by: ImageNet's mean and standard deviation of red, green and blue.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
# The backbone that needs nothing but torchvision; any other name is a network of timm's.
DENSENET = "densenet121"
POOLINGS = ("features", "scores")

# What transformers' Auto classes and pipeline() find in config.json of every package that is saved.
AUTO_MAP = {
    "AutoConfig": "configuration_cxrfpn.CxrFpnConfig",
    "AutoModel": "modeling_cxrfpn.CxrFpnForImageClassification",
    "AutoModelForImageClassification": "modeling_cxrfpn.CxrFpnForImageClassification",
}
CUSTOM_PIPELINES = {
    "chest-xray-findings": {
        "impl": "pipeline_cxrfpn.ChestXrayFindingsPipeline",
        "pt": ["AutoModelForImageClassification"],
        "default": {"model": {}},
        "type": "image",
    }
}
# Columns of the tables that findings stand in.
RESERVED_NAMES = ("image", "image_id", "patient_id", "age", "sex", "view_position", "positive", "error", "embedding")


def _is_name(name: object) -> bool:
    """Whether a finding may be called so in tables, files and calls (A|B)."""
    return (
        isinstance(name, str)
        and 0 < len(name.strip()) == len(name) <= 80
        and name.isprintable()
        and ("|" not in name and name not in RESERVED_NAMES)
    )


def _shown(value: object) -> str:
    """Return a value as it stands in a message: on one line, and not too long."""
    return " ".join(repr(value).split())[:80]


class CxrFpnConfig(PreTrainedConfig):
    """Configure the network: a backbone, a Feature Pyramid Network and fusion with age, view position and sex.

    Args:
        image_size: side of the square input, in pixels.
        backbone: "densenet121", or the name of a timm network with features at strides 8, 16 and 32 (needs timm).
        growth_rate, block_config, stem_channels: the DenseNet; the defaults are DenseNet-121.
        pyramid_channels: channels of every pyramid level; 0 leaves the pyramid out, and the backbone's last features
            are pooled, as in a plain DenseNet.
        rectified: every level is normalised and cut off at zero, both as it enters the pyramid and before it is
            pooled; False leaves both out, as the report does.
        pooling: "features": each channel of each level is pooled over its places and the head reads the result, as in
            the report; "scores": the head scores each place of the finest level, and the scores are pooled. The second
            way makes finding maps of the scores themselves; it needs a pyramid.
        pooling_sharpness: how much more the strong places count than the weak ones when they are pooled; 0 is the mean,
            as in the report, and a large one the maximum.
        image_features: width of the image branch; 0 leaves it out, and the head reads the pooled features.
        patient_features: width of the patient branch; 0 leaves it out, and the patient is ignored.
        head_features: width of the hidden layer of the head; 0 leaves it out, and the head is linear.
        dropout: rate before the last layer.
        pos_weight: weight of the positive term of the loss, one a finding in the order of `findings`, or None.
        id2label: {0: name of the first finding, ...}; any names, the 14 of NIH by default.

    Raises:
        ValueError: findings without a name or named twice, or numbers that make no network.
    """

    model_type = "cxrfpn"
    # What Trainer leaves out of its predictions.
    keys_to_ignore_at_inference = ["pooler_output", "hidden_states"]

    image_size: int = 224
    backbone: str = DENSENET
    growth_rate: int = 32
    block_config: list[int] | tuple[int, ...] = (6, 12, 24, 16)
    stem_channels: int = 64
    pyramid_channels: int = 256
    rectified: bool = True
    pooling: str = "features"
    pooling_sharpness: float = 0.0
    image_features: int = 256
    patient_features: int = 8
    head_features: int = 128
    dropout: float = 0.3
    pos_weight: list[float] | tuple[float, ...] | None = None

    def __post_init__(self, **kwargs):
        # Without these, transformers would name the findings LABEL_0... and its pipeline would apply a softmax.
        if self.id2label is None:  # type: ignore[has-type]
            self.id2label = dict(enumerate(FINDINGS))
        self.problem_type = self.problem_type or "multi_label_classification"  # type: ignore[has-type]
        # A saved package brings its own modules, wherever the one that it was loaded from had them.
        kwargs.update(auto_map=dict(AUTO_MAP), custom_pipelines=copy.deepcopy(CUSTOM_PIPELINES))
        super().__post_init__(**kwargs)
        self.check()

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of the findings, in the order of the logits."""
        return tuple(self.id2label[index] for index in sorted(self.id2label))

    def check(self) -> None:
        """Bring the names of the findings into order, and raise a ValueError for what makes no network."""
        self.id2label = {int(index): name for index, name in self.id2label.items()}
        names = self.findings
        if not names or sorted(self.id2label) != list(range(len(names))):
            raise ValueError(f"id2label must count its findings from 0, got {list(self.id2label)}")
        if wrong := [name for name in names if not _is_name(name) or names.count(name) > 1]:
            raise ValueError(
                f"id2label needs a name of its own for each finding, got {_shown(wrong[0])}; a name is printable, "
                f"without '|', and none of {', '.join(RESERVED_NAMES)}"
            )
        self.label2id = {name: index for index, name in enumerate(names)}
        if len(self.block_config) != 4:
            raise ValueError(f"block_config needs 4 dense blocks, got {list(self.block_config)}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {_shown(self.pooling)}")
        if self.pooling == "scores" and not self.pyramid_channels:
            raise ValueError("pooling of scores needs a pyramid: pyramid_channels must be over 0")
        if not 0 <= self.pooling_sharpness < math.inf:
            raise ValueError(f"pooling_sharpness must be 0 or more, got {self.pooling_sharpness}")
        if self.pos_weight is not None and len(self.pos_weight) != len(names):
            raise ValueError(
                f"pos_weight needs {len(names)} values, one a finding, got {len(self.pos_weight)}; give others or None"
            )


CxrFpnConfig.register_for_auto_class()
