# SPDX-License-Identifier: MIT
"""int8 layers of other engines with the weight and input of a case, where Python finds these engines.

ONNX Runtime: QGemm for int8 in and out, QuantizeLinear and MatMulIntegerToFloat for static layers between floats,
DynamicQuantizeMatMul for dynamic ones. OpenVINO: FakeQuantize and MatMul, for static layers between floats.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .cases import Case

# Each has one call that runs its layer on the case's input, and returns the output as NumPy's.
Peer = Callable[[], np.ndarray]
# What each needs, as Python and PyPI call it.
_NEEDS = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino",)}
PEERS = tuple(_NEEDS)


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for names in _NEEDS.values() for name in names if importlib.util.find_spec(name) is None]


def versions() -> dict[str, str]:
    return {engine: importlib.metadata.version(engine) for engine in PEERS}


def peers_of(case: Case) -> dict[str, Peer]:
    """The engines that have such a layer, with PyTorch's number of threads."""
    made = {"onnxruntime": _onnxruntime(case), "openvino": _openvino(case)}
    return {engine: call for engine, call in made.items() if call is not None}


def _onnxruntime(case: Case) -> Peer | None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    nodes, initial, types = _onnx_graph(case)
    if not nodes:
        return None
    x = _input(case)
    element = helper.np_dtype_to_tensor_dtype
    value = helper.make_tensor_value_info
    K, N = case.shape[1:]
    graph = helper.make_graph(
        nodes, "layer", [value("x", element(x.dtype), ["M", K])],
        [value("y", types or TensorProto.FLOAT, ["M", N])],
        [onnx.numpy_helper.from_array(array, name) for name, array in initial.items()],
    )  # fmt: skip
    # Opset 21, and the format's version that goes with it: newer ones than a runtime knows are refused.
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def _onnx_graph(case: Case) -> tuple[list[Any], dict[str, np.ndarray], int | None]:
    """Nodes, constants, and the output's type where it is not float."""
    from onnx import helper

    def node(operator: str, inputs: str, outputs: str, **options: Any) -> Any:
        domain = "" if operator == "QuantizeLinear" else "com.microsoft"
        names = [name.strip() for name in inputs.split(",")]
        return helper.make_node(operator, names, [outputs], domain=domain, **options)

    weight, scale = _weight(case)
    constants = {
        "w": np.ascontiguousarray(weight.T), "w_scale": scale.squeeze(),
        "w_zero": np.zeros_like(scale, np.int8).squeeze(), "bias": case.bias.numpy(),
    }  # fmt: skip
    activations = case.kind.split()[0]
    if activations == "dynamic":
        return [node("DynamicQuantizeMatMul", "x, w, w_scale, w_zero, bias", "y")], constants, None
    if activations == "static":
        layer = case.layers["acl"]
        constants |= {"x_scale": np.float32(layer.x_scale), "x_zero": np.int8(layer.x_zero_point)}
        return [
            node("QuantizeLinear", "x, x_scale, x_zero", "q"),
            node("MatMulIntegerToFloat", "q, w, x_scale, w_scale, x_zero, w_zero, bias", "y"),
        ], constants, None  # fmt: skip
    if case.x.is_quantized:
        layer, x = case.layers["acl"], case.x
        kind: Any = _input(case).dtype.type
        x_scale = np.float32(x.q_scale())
        constants |= {
            "x_scale": x_scale, "x_zero": kind(x.q_zero_point()),
            "bias": np.round(case.bias.numpy() / (x_scale * scale)).astype(np.int32),
            "y_scale": np.float32(layer.scale), "y_zero": kind(layer.zero_point),
        }  # fmt: skip
        inputs = "x, x_scale, x_zero, w, w_scale, w_zero, bias, y_scale, y_zero"
        return [node("QGemm", inputs, "y")], constants, helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return [], {}, None


def _openvino(case: Case) -> Peer | None:
    if case.kind.split()[0] != "static":
        return None
    import openvino
    from openvino import opset13 as ops

    layer, K = case.layers["acl"], case.shape[1]
    weight, scale = _weight(case)

    def quantized(values: Any, scale: np.ndarray, zero_point: int) -> Any:
        ends = [(scale * (end - zero_point)).astype(np.float32) for end in (-128, 127)]
        return ops.fake_quantize(values, *ends, *ends, 256)

    x = ops.parameter([-1, K], np.float32)
    scale = scale.reshape(-1, 1)
    w = quantized(ops.constant(weight * scale), scale, 0)
    product = ops.matmul(quantized(x, np.array(layer.x_scale), layer.x_zero_point), w, False, True)
    y = ops.add(product, ops.constant(case.bias.numpy()))
    model = openvino.Model([y], [x], "layer")
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    # infer() with an array costs 30 to 600 thousand cycles more, at any size.
    request.set_input_tensor(openvino.Tensor(_input(case), shared_memory=True))
    request.infer()
    output = request.get_output_tensor().data
    return lambda: (request.infer(), output)[1]


def _weight(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """int8 [N, K], and float32 [1] or [N]."""
    weight = case.weight
    per_channel = weight.qscheme() == torch.per_channel_affine
    scale = weight.q_per_channel_scales() if per_channel else torch.tensor([weight.q_scale()])
    return weight.int_repr().numpy(), scale.float().numpy()


def _input(case: Case) -> np.ndarray:
    return (case.x.int_repr() if case.x.is_quantized else case.x).numpy()
