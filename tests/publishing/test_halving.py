"""Weights stored in 16 bits: half the room, the same scores."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cxrfpn.publishing.halving import halve


def test_only_large_weights_that_fit_are_stored_in_16_bits(tmp_path):
    import onnxruntime

    random = np.random.default_rng(0)
    large, small = random.normal(size=(8, 16)).astype(np.float32), np.ones(16, np.float32) / 3
    beyond = np.full((8, 16), 1e6, np.float32)  # more than 16 bits can hold
    weights = {"large": large, "small": small, "beyond": beyond}
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["a"]),
        helper.make_node("Add", ["a", "small"], ["b"]),
        helper.make_node("MatMul", ["x", "beyond"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 8), ("y", 16))]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "whole.onnx")
    halve(tmp_path / "whole.onnx", tmp_path / "halved.onnx")
    kinds = {each.name: each.data_type for each in onnx.load(tmp_path / "halved.onnx").graph.initializer}
    assert kinds == {"large.half": TensorProto.FLOAT16, "small": TensorProto.FLOAT, "beyond": TensorProto.FLOAT}
    x = random.normal(size=(1, 8)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(tmp_path / "halved.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, x @ large.astype(np.float16).astype(np.float32) + small + x @ beyond, rtol=1e-5)
