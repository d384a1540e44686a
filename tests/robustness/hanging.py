"""A model that takes minutes for a picture with ink, and no time for a blank one."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.answering import answering


def hanging() -> bytes:
    """It counts to 2**40 for an ink of 255, one by one: the loop of an ONNX model, which can be ended between steps."""
    model = ModelProto.FromString(answering(0))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go on"], ["still"]), helper.make_node("Add", ["sum", "one"], ["next"])],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2**32, np.int64), "many"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(True), "yes"),
        ]
    )
    for node in [
        helper.make_node("ReduceMax", ["pixels"], ["ink"], keepdims=0),
        helper.make_node("Cast", ["ink"], ["ink number"], to=TensorProto.INT64),
        helper.make_node("Mul", ["ink number", "many"], ["steps"]),
        helper.make_node("Loop", ["steps", "yes", "zero"], ["counted"], body=body),
        helper.make_node("Mul", ["counted", "zero"], ["nothing"]),
        helper.make_node("Add", ["digit_score raw", "nothing"], ["digit_score"]),
    ]:
        model.graph.node.append(node)
    next(node for node in model.graph.node if node.op_type == "ReduceMax").output[0] = "digit_score raw"
    data: bytes = model.SerializeToString()
    return data
