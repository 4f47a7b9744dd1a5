"""Float32 graphs -> fp16 or int8. The heads stay in float32: they cost nothing and decide.

An int8 model's text tower is fp16: with its word embeddings that file is smaller, class names are
encoded too rarely to need speed, and an error there would favour one class on every image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from fewclip.contract import CLASSES_INPUT
from fewclip.errors import OptionError
from fewclip_export.graph import CUTS, ONE_FILE, RAW, quiet, save_graph

PRECISIONS = ("fp32", "fp16", "int8")


def check_precision(precision: str) -> str:
    """Return the precision unchanged.

    Raises:
        OptionError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}; use {', '.join(PRECISIONS)}")
    return precision


def to_fp16(source: Path, target: Path) -> None:
    """Write `source`, a float32 graph with `CUTS` among its outputs, in float16.

    Inputs and outputs stay float32.
    """
    tower, head = _split(onnx.load(str(source)))
    with quiet():
        save_graph(_join(_half(tower), head), target)


def to_int8(source: Path, target: Path, float_products: Sequence[str] = ()) -> None:
    """Write `source`, a float32 graph with `CUTS` among its outputs, quantised.

    Weights of matrix products are quantised per channel, their other operand dynamically.

    Args:
        float_products: names of matrix products that stay in float32.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        tower = Tower(source, Path(folder))
        chosen = [name for name in tower.products if name not in float_products]
        save_graph(_join(onnx.load(str(tower.quantised(chosen))), tower.head), target)


def _half(tower: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half: onnx.ModelProto = convert_float_to_float16(tower, keep_io_types=True)
    OnnxModel(half).topological_sort()  # the converter appends its casts at the end
    return half


class Tower:
    """The part of a float32 image graph that int8 converts, prepared once.

    Attributes:
        prepared: the graph before quantisation.
        head: the rest of the graph, which stays as it is.
        products: names of the matrix products that may be quantised, in the graph's order. The
            projection is not among them: one row of work, and a third of the error.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        from onnxruntime.quantization import quant_pre_process

        tower, self.head = _split(onnx.load(str(source)))
        plain, self.prepared = folder / "plain.onnx", folder / "prepared.onnx"
        self._done = folder / "done.onnx"
        save_graph(tower, plain)
        self._large = tower.ByteSize() > ONE_FILE
        # Symbolic shape inference fails on these graphs, and nothing here needs it.
        quant_pre_process(
            str(plain),
            str(self.prepared),
            skip_symbolic_shape=True,
            save_as_external_data=self._large,
        )
        graph = onnx.load(str(self.prepared), load_external_data=False).graph
        constant = {initializer.name for initializer in graph.initializer}
        self.products = [
            node.name
            for node in graph.node
            if node.op_type in ("MatMul", "Gemm")
            and node.input[1] in constant
            and RAW not in node.output
        ]

    def quantised(self, products: Sequence[str]) -> Path:
        """The graph with these products quantised; the next call overwrites it."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(self.prepared),
            str(self._done),
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=list(products),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=self._large,
            extra_options={"MatMulConstBOnly": True},
        )
        return self._done


def _split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The tower, which ends in `CUTS`, and the head, which begins there."""
    outputs = [output.name for output in model.graph.output]
    cuts = [name for name in outputs if name in CUTS]
    after = {*cuts, CLASSES_INPUT}
    tower: list[onnx.NodeProto] = []
    head: list[onnx.NodeProto] = []
    for node in model.graph.node:  # in topological order, as ONNX requires
        if after & set(node.input):
            after |= set(node.output)
            head.append(node)
        else:
            tower.append(node)
    inputs = [i.name for i in model.graph.input if i.name != CLASSES_INPUT]
    return (
        _part(model, tower, inputs, cuts),
        _part(model, head, [CLASSES_INPUT], [name for name in outputs if name not in CUTS]),
    )


def _part(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """Some nodes of a graph with the weights they use; graph inputs and outputs by name."""
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        model.graph.name,
        [i for i in model.graph.input if i.name in inputs],
        [o for o in model.graph.output if o.name in outputs],
        [i for i in model.graph.initializer if i.name in used],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def _join(tower: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    tower.graph.node.extend(head.graph.node)
    tower.graph.input.extend(head.graph.input)
    held = {initializer.name for initializer in tower.graph.initializer}
    tower.graph.initializer.extend(i for i in head.graph.initializer if i.name not in held)
    del tower.graph.output[:]
    tower.graph.output.extend(head.graph.output)
    return tower
