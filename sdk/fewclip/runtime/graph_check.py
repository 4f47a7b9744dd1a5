"""What an ONNX file holds, before ONNX Runtime is given it. Runs nothing; needs no `onnx`.

An untrusted graph is a program. Just enough of its protobuf is read to know that it has no
loops, no functions, no operators but those that fewclip's exports use, and no files of its own.
Tensors are skipped over, so a file of gigabytes costs no memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from fewclip.errors import ArtifactError

MAX_METADATA = 512 << 20  # bytes; many times the features of 10,000 classes and their whitening
MAX_FIELDS = 4_000_000

# Pure functions of their inputs. Operators that loop, branch, draw random numbers or make tensors
# of any size out of nothing (ConstantOfShape, Tile) are not among them.
OPERATORS = frozenset(
    """
    Abs Add And ArgMax Attention AveragePool BatchNormalization Cast CastLike Clip Concat Constant
    Conv DequantizeLinear Div DynamicQuantizeLinear Equal Erf Exp Expand Flatten Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool Greater GreaterOrEqual HardSigmoid HardSwish
    Identity LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MatMulInteger Max MaxPool Min
    Mod Mul Neg Not Or Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL2 ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Shape Sigmoid Slice
    Softmax Softplus Split Sqrt Squeeze Sub Swish Tanh Transpose Trilu Unsqueeze Where
    """.split()  # noqa: SIM905
)
DOMAINS = frozenset({"", "ai.onnx"})

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 14, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_MAX_NAME = 1000  # bytes of an operator's or a file's name


def check_graph(path: Path, files: Collection[str] = ()) -> None:
    """Refuse a graph that fewclip cannot have exported.

    Args:
        files: names of other files that may hold its tensors.

    Raises:
        ArtifactError: it is one, or not an ONNX file.
    """
    try:
        with path.open("rb") as file:
            _Check(file, path, files).model()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"cannot open {path}: it is not an ONNX file ({error}); export the model again"
        ) from error


class _Check:
    """One reading of one file."""

    def __init__(self, file: BinaryIO, path: Path, files: Collection[str]) -> None:
        self._file = file
        self._path = path
        self._files = files
        self._size = file.seek(0, 2)
        self._left = MAX_FIELDS
        self._metadata = 0

    def model(self) -> None:
        graphs = 0
        for number, start, end in self._fields(0, self._size):
            if number == _MODEL_GRAPH:
                graphs += 1
                self._graph(start, end)
            elif number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
                self._refuse("holds functions or training steps")
            elif number == _MODEL_METADATA:
                self._metadata += end - start
                if self._metadata > MAX_METADATA:
                    self._refuse(f"holds more than {MAX_METADATA >> 20} MB of metadata")
        if graphs != 1:
            self._refuse("holds no graph")

    def _graph(self, start: int, end: int) -> None:
        for number, first, last in self._fields(start, end):
            if number == _GRAPH_NODE:
                self._node(first, last)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(first, last)
            elif number == _GRAPH_SPARSE:
                self._refuse("holds sparse tensors")

    def _node(self, start: int, end: int) -> None:
        operator = domain = ""
        for number, first, last in self._fields(start, end):
            if number == _NODE_OPERATOR:
                operator = self._text(first, last)
            elif number == _NODE_DOMAIN:
                domain = self._text(first, last)
            elif number == _NODE_ATTRIBUTE:
                self._attribute(first, last)
        if operator not in OPERATORS or domain not in DOMAINS:
            self._refuse(f"uses the operator {domain + '.' if domain else ''}{operator[:50]!r}")

    def _attribute(self, start: int, end: int) -> None:
        for number, first, last in self._fields(start, end):
            if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(first, last)
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, *_ATTRIBUTE_SPARSE):
                self._refuse("holds a graph within its graph")

    def _tensor(self, start: int, end: int) -> None:
        for number, first, last in self._fields(start, end):
            if number != _TENSOR_EXTERNAL:
                continue
            entry = {n: self._text(f, e) for n, f, e in self._fields(first, last)}
            if entry.get(_ENTRY_KEY) == "location" and entry.get(_ENTRY_VALUE) not in self._files:
                self._refuse(f"reads the file {entry.get(_ENTRY_VALUE, '')[:100]!r}")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, end) of each field with content; numbers are skipped."""
        position = start
        while position < end:
            self._left -= 1
            if self._left < 0:
                self._refuse(f"has more than {MAX_FIELDS:,} parts")
            self._file.seek(position)
            key = self._varint()
            wire = key & 7
            if wire == _VARINT:
                self._varint()
                position = self._file.tell()
                continue
            if wire not in (_EIGHT, _FOUR, _LENGTH):
                raise EOFError(f"a field of kind {wire}")
            length = self._varint() if wire == _LENGTH else 8 if wire == _EIGHT else 4
            first = self._file.tell()
            position = first + length
            if position > end:
                raise EOFError("cut short")
            if wire == _LENGTH:
                yield key >> 3, first, position
        if position != end:
            raise EOFError("cut short")

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise EOFError("cut short")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise EOFError("a number of more than ten bytes")

    def _text(self, start: int, end: int) -> str:
        if end - start > _MAX_NAME:
            self._refuse("has a name that is too long")
        self._file.seek(start)
        return self._file.read(end - start).decode()

    def _refuse(self, what: str) -> None:
        raise ArtifactError(
            f"{self._path} {what}, which no export of fewclip does; do not use this model, or "
            "export it again with this version"
        )
