"""What the network is: the 14 findings in their order, every width and rate."""

import math

from transformers import PreTrainedConfig

# The order of Wang et al. (CVPR 2017), which most published predictions share. Everything else maps by name.
FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

# What the image processor normalises by: ImageNet's mean and standard deviation of red, green and blue.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
# The backbone that needs nothing but torchvision; any other name is a network of timm's.
DENSENET = "densenet121"

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
        pooling_sharpness: how much more the strong places of a level count than the weak ones when it is pooled, each
            by exp(sharpness * feature); 0 is the mean, as in the report, and a large one the maximum.
        image_features: width of the image branch; 0 leaves it out, and the head reads the pooled features.
        patient_features: width of the patient branch; 0 leaves it out, and the patient is ignored.
        head_features: width of the hidden layer of the head; 0 leaves it out, and the head is linear.
        dropout: rate before the last layer.
        pos_weight: weight of the positive term of the loss, one a finding in the order of `FINDINGS`, or None.
    """

    model_type = "cxrfpn"

    image_size: int = 224
    backbone: str = DENSENET
    growth_rate: int = 32
    block_config: list[int] | tuple[int, ...] = (6, 12, 24, 16)
    stem_channels: int = 64
    pyramid_channels: int = 256
    rectified: bool = True
    pooling_sharpness: float = 0.0
    image_features: int = 256
    patient_features: int = 8
    head_features: int = 128
    dropout: float = 0.3
    pos_weight: list[float] | tuple[float, ...] | None = None

    def __post_init__(self, **kwargs):
        # Without these, transformers would name the findings LABEL_0... and its pipeline would apply a softmax.
        if self.id2label is None:
            self.id2label = dict(enumerate(FINDINGS))
            self.label2id = {finding: index for index, finding in enumerate(FINDINGS)}
        self.problem_type = self.problem_type or "multi_label_classification"
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", dict(CUSTOM_PIPELINES))
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        names = tuple(self.id2label[index] for index in sorted(self.id2label))
        if names != FINDINGS:
            raise ValueError(f"id2label must name the 14 findings in their order; got {', '.join(names)}")
        if len(self.block_config) != 4:
            raise ValueError(f"block_config needs 4 dense blocks, got {list(self.block_config)}")
        if not 0 <= self.pooling_sharpness < math.inf:
            raise ValueError(f"pooling_sharpness must be 0 or more, got {self.pooling_sharpness}")
        if self.pos_weight is not None and len(self.pos_weight) != len(FINDINGS):
            raise ValueError(f"pos_weight needs {len(FINDINGS)} values, got {len(self.pos_weight)}")


CxrFpnConfig.register_for_auto_class()
