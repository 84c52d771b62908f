"""An ONNX file in 8-bit integers, kept only where it ranks test images as well as the one in floating point."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cxrfpn.data.cohort import OfficialProtocol
from cxrfpn.data.schema import Row, Source
from cxrfpn.data.sharpness import SHARP_SIDE, SIDE_COLUMN
from cxrfpn.evaluation.predictions import Scored, match
from cxrfpn.evaluation.running import run_model
from cxrfpn.evaluation.scoring import Settings, compare, select_split
from cxrfpn.files import written_beside
from cxrfpn.prediction.onnx_backend import OnnxClassifier, load_onnx_pipeline
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.onnx_export import export_onnx, require_folder
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# The most by which the mean AUROC of the findings may fall.
LARGEST_FALL = 0.002
CALIBRATION_IMAGES = 100
JUDGEMENT_KEY = "int8"


def export_int8(pipe: ChestXrayFindingsPipeline, source: Source, output: Path) -> str:
    """Write a package as an ONNX file whose convolutions work in 8-bit integers.

    What ranges their inputs take is seen on images of the source's official train split. The file is then held against
    the one in floating point on the test split, with intervals over patients; the result stands in its metadata under
    `int8`. It is used as the other is.

    Args:
        pipe: its network serves for nothing else afterwards.
        source: labelled radiographs that the network was not tuned on.
        output: replaced where it exists.

    Returns:
        a line for each group of test images: all, and the sharp ones where there are blurred ones too.

    Raises:
        PublishError: the mean AUROC of a group falls by more than LARGEST_FALL, or the file cannot be written.
        SourceError: the source lacks one of the splits.
    """
    require_folder(output)
    metadata = source.metadata()
    train, test = (select_split(metadata, split, OfficialProtocol()) for split in ("train", "test"))
    with written_beside(output) as beside, TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        export_onnx(pipe, whole)
        images = _some(source, train)
        quantise(whole, beside, tqdm(_inputs(pipe, images), "calibrating", len(images), unit=" images"))
        int8, floating = (_score(path, source, test) for path in (beside, whole))
        groups = _compare(int8, floating)
        lines = [_told(name, group) for name, group in groups.items()]
        if any(-group["mean_auroc"]["difference"] > LARGEST_FALL for group in groups.values()):
            raise PublishError(f"not written, for more than {LARGEST_FALL} is lost; {'; '.join(lines)}")
        _add_metadata(beside, {JUDGEMENT_KEY: json.dumps({"source": source.name, "split": "test", **groups})})
    return "\n".join(lines)


def quantise(whole: Path, output: Path, inputs: Iterable[dict[str, np.ndarray]]) -> None:
    """Give the convolutions of an ONNX file 8-bit weights (a scale for each channel) and 8-bit inputs.

    What lies between them, the pooling and the head stay in floating point: a concatenation in DenseNet would force
    one scale upon features of many layers.

    Args:
        whole: the file in floating point.
        output: the file to write.
        inputs: what `whole` takes, to see the ranges of every convolution's input.
    """
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        fused = Path(folder) / "fused.onnx"  # a BatchNorm behind a convolution becomes part of its weights
        quant_pre_process(whole, fused, skip_symbolic_shape=True)
        quantize_static(
            fused,
            output,
            _Reader(iter(inputs)),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    _add_metadata(output, OnnxClassifier(whole).metadata)


@dataclass(frozen=True)
class _Reader:
    """Inputs as onnxruntime's calibration asks for them."""

    inputs: Iterator[dict[str, np.ndarray]]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def _some(source: Source, metadata: pd.DataFrame) -> list[Row]:
    count = min(CALIBRATION_IMAGES, len(metadata))
    wanted = set(metadata["image_id"].sample(count, random_state=0))
    return [row for part in source.parts() for row in source.rows(part, wanted)]


def _inputs(pipe: ChestXrayFindingsPipeline, images: Iterable[Row]) -> Iterator[dict[str, np.ndarray]]:
    for row in images:
        radiograph = pipe.image_processor.read(row.content(), row.image_id)
        told = {"image": radiograph, "age": row.age, "sex": row.sex, "view_position": row.view_position}
        yield {name: tensor.numpy() for name, tensor in pipe.preprocess(told).items()}


def _score(path: Path, source: Source, metadata: pd.DataFrame) -> Scored:
    run = run_model(load_onnx_pipeline(str(path)), source, metadata, maps=False)  # ONNX draws none
    return match(run.scores, metadata, metadata, source.name)


def _compare(int8: Scored, floating: Scored) -> dict[str, dict[str, Any]]:
    sharp = (int8.metadata[SIDE_COLUMN] >= SHARP_SIDE).to_numpy()
    masks = {"all": np.ones_like(sharp)} | ({"sharp": sharp} if 0 < sharp.sum() < len(sharp) else {})
    groups = {name: compare(int8.of(mask), floating.of(mask), Settings()) for name, mask in masks.items()}
    if groups["all"]["mean_auroc"]["difference"] is None:
        raise PublishError("the test images cannot judge int8: each finding is on all of them or on none")
    return {name: group for name, group in groups.items() if group["mean_auroc"]["difference"] is not None}


def _told(name: str, group: dict[str, Any]) -> str:
    mean = group["mean_auroc"]
    low, high = mean["difference_ci"]
    return (
        f"int8 on {group['images']:,} test images ({name}): mean AUROC {mean['first']:.4f}, in floating point "
        f"{mean['second']:.4f}, difference {mean['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    )


def _add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**known, **metadata})
    onnx.save(model, path)
