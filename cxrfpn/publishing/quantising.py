"""An ONNX file in 8-bit integers or for bf16, kept only where it ranks test images as well as in single precision."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tqdm import tqdm

from cxrfpn.data.cohort import OfficialProtocol
from cxrfpn.data.schema import Row, Source
from cxrfpn.data.sharpness import SHARP_SIDE, SIDE_COLUMN
from cxrfpn.evaluation.figures import Compared, Estimate
from cxrfpn.evaluation.predictions import Scored, match
from cxrfpn.evaluation.running import run_model
from cxrfpn.evaluation.scoring import Settings, compare, select_split
from cxrfpn.files import written_beside
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.onnx_export import export_onnx, require_folder
from engine_cxrfpn import Engine
from exported_cxrfpn import BF16_KEY, INPUTS, INT8_KEY, OnnxRuntimeEngine, OpenVinoEngine, extra
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# The most by which the mean AUROC of the findings may fall.
LARGEST_FALL = 0.002
CALIBRATION_IMAGES = 100


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
    images = _some(source, select_split(source.metadata(), "train", OfficialProtocol()))
    with written_beside(output) as beside, TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        export_onnx(pipe, whole)
        quantise(whole, beside, tqdm(_inputs(pipe, images), "calibrating", len(images), unit=" images"))
        figures, lines = _guard(INT8_KEY, OnnxRuntimeEngine(beside), OnnxRuntimeEngine(whole), source)
        _add_metadata(beside, figures)
    return lines


def export_bf16(pipe: ChestXrayFindingsPipeline, source: Source, output: Path) -> str:
    """Write a package as an ONNX file in single precision that OpenVINO may compute in bf16.

    Arguments, result and errors are those of `export_int8`; the figures stand in the metadata under `bf16`, and without
    them the engine computes in single precision.
    """
    require_folder(output)
    if find_spec("openvino") is None:
        raise PublishError(f"--bf16 measures with openvino; {extra('openvino')}")
    with written_beside(output) as beside:
        export_onnx(pipe, beside)
        half = OpenVinoEngine(beside, "bf16")
        if not half.multiplies_bf16():
            raise PublishError("--bf16 needs a CPU that multiplies bf16, and this one does not; leave it out")
        figures, lines = _guard(BF16_KEY, half, OpenVinoEngine(beside, "fp32"), source)
        _add_metadata(beside, figures)
    return lines


def _guard(precision: str, engine: Engine, floating: Engine, source: Source) -> tuple[dict[str, str], str]:
    """Compare a precision with single precision on the test split -> metadata, and a line for each group of images.

    Raises:
        PublishError: too much is lost.
    """
    test = select_split(source.metadata(), "test", OfficialProtocol())
    groups = _compare(precision, _score(engine, source, test), _score(floating, source, test))
    lines = "\n".join(_line(precision, name, group) for name, group in groups.items())
    if any((group["mean_auroc"]["difference"] or 0.0) < -LARGEST_FALL for group in groups.values()):
        raise PublishError(f"not written, for more than {LARGEST_FALL} is lost; {lines.replace(chr(10), '; ')}")
    return {precision: json.dumps({"source": source.name, "split": "test", **groups})}, lines


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
    _add_metadata(output, OnnxRuntimeEngine(whole).metadata)


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
        sample = {"image": radiograph, "age": row.age, "sex": row.sex, "view_position": row.view_position}
        prepared = pipe.preprocess(sample)
        yield {name: prepared[name].numpy() for name in INPUTS}


def _score(engine: Engine, source: Source, metadata: pd.DataFrame) -> Scored:
    run = run_model(engine, source, metadata, maps=False)
    return match(run.scores, metadata, metadata, source.name, engine.findings)


def _compare(precision: str, ours: Scored, floating: Scored) -> dict[str, Compared]:
    sharp = (ours.metadata[SIDE_COLUMN] >= SHARP_SIDE).to_numpy()
    masks = {"all": np.ones_like(sharp)} | ({"sharp": sharp} if 0 < sharp.sum() < len(sharp) else {})
    groups = {name: compare(ours.of(mask), floating.of(mask), Settings()) for name, mask in masks.items()}
    if groups["all"]["mean_auroc"]["difference"] is None:
        raise PublishError(f"the test images cannot measure {precision}: each finding is on all of them or on none")
    return {name: group for name, group in groups.items() if group["mean_auroc"]["difference"] is not None}


def _line(precision: str, name: str, group: Compared) -> str:
    mean = group["mean_auroc"]
    difference = Estimate.of(mean, "difference").text("+.4f")
    return (
        f"{precision} on {group['images']:,} test images ({name}): mean AUROC {mean['first']:.4f}, in floating point "
        f"{mean['second']:.4f}, difference {difference}"
    )


def _add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**known, **metadata})
    onnx.save(model, path)
