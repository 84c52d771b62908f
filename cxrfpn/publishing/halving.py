"""An ONNX file whose weights take half the room: stored in 16 bits, computed with in 32."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cxrfpn.files import written_beside
from cxrfpn.publishing.contents import PublishError
from cxrfpn.publishing.onnx_export import export_onnx, random_inputs, require_folder
from exported_cxrfpn import OnnxRuntimeEngine
from pipeline_cxrfpn import ChestXrayFindingsPipeline

# Arrays of fewer numbers stay as they are: there is nothing to save.
LEAST_NUMBERS = 64
# The most by which a score may change.
LARGEST_CHANGE = 2e-4


def export_halved(pipe: ChestXrayFindingsPipeline, output: Path) -> None:
    """Write a package as an ONNX file with weights of 16 bits, which is used as the one of 32 bits is.

    Each library turns the weights into 32 bits when it loads them, so that it needs no arithmetic of 16 bits.

    Args:
        pipe: its network serves for nothing else afterwards.
        output: replaced where it exists.

    Raises:
        PublishError: as `export_onnx`, or a score changes by more than LARGEST_CHANGE.
    """
    require_folder(output)
    with written_beside(output) as beside, TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        export_onnx(pipe, whole)
        halve(whole, beside)
        _check_scores(pipe, whole, beside)


def halve(whole: Path, output: Path) -> None:
    """Store the weights of an ONNX file in 16 bits, each followed by a cast to 32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(whole)
    graph = model.graph
    casts = []
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_NUMBERS:
            continue
        name = tensor.name
        with np.errstate(over="ignore"):
            halved = numpy_helper.to_array(tensor).astype(np.float16)
        if np.isfinite(halved).all():
            graph.initializer[index].CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, output)


def _check_scores(pipe: ChestXrayFindingsPipeline, whole: Path, halved: Path) -> None:
    inputs = [each.numpy() for each in random_inputs(pipe, 8).values()]
    first, second = (1 / (1 + np.exp(-OnnxRuntimeEngine(path).run(*inputs)["logits"])) for path in (whole, halved))
    change = float(np.abs(first - second).max())
    if not change <= LARGEST_CHANGE:
        raise PublishError(f"with weights of 16 bits scores change by up to {change:.1g}, over {LARGEST_CHANGE:g}")
