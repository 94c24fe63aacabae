# SPDX-License-Identifier: Apache-2.0
"""Every op's real form against ONNX Runtime. Cases are data: an op, its operands, its attributes and the ONNX text that means the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.interpret import interpret
from gadl.compiler.ir.opdef import Builder, all_ops
from gadl.compiler.ir.types import Array, DType, Layout, TensorType
from gadl.compiler.ir.verify import verify

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

#: (rtol, atol) of `docs/numerics.md` section 6; for products atol is a share of the largest result.
PRODUCT, ELEMENTWISE, EQUAL = (1e-4, 1e-4), (1e-5, 1e-6), (0.0, 0.0)


@dataclass(frozen=True)
class Case:
    """One comparison. `operands`: shapes (`2,3`), with a kind in front (`pos 2,3`) where not plain noise; None where absent.

    `onnx`: statements that make `y` of `x0`, `x1`, … .
    """

    op: str
    operands: str
    onnx: str
    tolerance: tuple[float, float] = ELEMENTWISE
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        changing = ", ".join(f"{k}={v}" for k, v in self.attrs.items())
        return f"{self.op}({self.operands}) {changing}"


def case(op: str, operands: str, statements: str, tolerance: tuple[float, float] = ELEMENTWISE, **attrs: Any) -> Case:
    """A case with its attributes as keywords."""
    return Case(op, operands, statements, tolerance, attrs)


def conv(operands: str, onnx_attrs: str, rank: int = 2, **attrs: Any) -> Case:
    """A convolution with the attributes that are not given at rest."""
    full = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank, "groups": 1, **attrs}
    operand_list = ", ".join(f"x{i}" for i in range(operands.count(";") + 1))
    return case("conv", operands, f"y = Conv <{onnx_attrs}> ({operand_list})", PRODUCT, **full)


def transposed(operands: str, onnx_attrs: str, rank: int = 2, **attrs: Any) -> Case:
    """As `conv`, transposed."""
    full = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank, "groups": 1, "output_padding": (0,) * rank}
    operand_list = ", ".join(f"x{i}" for i in range(operands.count(";") + 1))
    return case("conv_transpose", operands, f"y = ConvTranspose <{onnx_attrs}> ({operand_list})", PRODUCT, **{**full, **attrs})


def pool(op: str, operands: str, onnx_attrs: str, tolerance: tuple[float, float], rank: int = 2, **attrs: Any) -> Case:
    """A pooling window."""
    full: dict[str, Any] = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "ceil_mode": False}
    full |= {"dilations": (1,) * rank} if op == "max_pool" else {"count_include_pad": False}
    name = {"max_pool": "MaxPool", "avg_pool": "AveragePool"}[op]
    return case(op, operands, f"y = {name} <{onnx_attrs}> (x0)", tolerance, **{**full, **attrs})


def resize(shape: str, sizes: tuple[int, ...], onnx_attrs: str, **attrs: Any) -> Case:
    """A resampling to `sizes`; positions follow out / in."""
    extents = [int(d) for d in shape.split(",")]
    scales = tuple(o / i for o, i in zip(sizes, extents))
    target = ",".join(map(str, sizes))
    text = f"s = Constant <value_ints=[{target}]> () y = Resize <{onnx_attrs}> (x0, , , s)"
    return case("resize", shape, text, ELEMENTWISE if attrs.get("mode") != "nearest" else EQUAL, sizes=sizes, scales=scales, **attrs)


def ints(name: str, *values: int) -> str:
    """A constant vector in ONNX text."""
    return f"{name} = Constant <value_ints=[{','.join(map(str, values))}]> ()"


NN = [
    conv("2,3,7,9; 4,3,3,3; 4", "pads=[1,2,0,1], strides=[2,1]", pads=(1, 2, 0, 1), strides=(2, 1)),
    conv("1,4,8,8; 6,2,3,2", "group=2, dilations=[2,1]", groups=2, dilations=(2, 1)),
    conv("1,5,9,9; 5,1,3,3; 5", "group=5, pads=[1,1,1,1], strides=[2,2]", groups=5, pads=(1, 1, 1, 1), strides=(2, 2)),
    conv("2,3,11; 4,3,3; 4", "pads=[1,1], dilations=[2]", rank=1, pads=(1, 1), dilations=(2,)),
    conv("0,3,4,4; 2,3,1,1", "group=1"),
    case("conv", "1,3,5,5; 4,3,1,1; 4; 1,4,5,5", "c = Conv (x0, x1, x2) s = Add(c, x3) y = Relu(s)", PRODUCT,
         strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), clamp=(0.0, float("inf"))),
    transposed("1,4,5,6; 4,3,3,3; 3", "strides=[2,2], pads=[1,0,1,2], output_padding=[1,0]",
               strides=(2, 2), pads=(1, 0, 1, 2), output_padding=(1, 0)),
    transposed("2,4,4,4; 4,2,3,2", "group=2, strides=[3,1], dilations=[1,2]", groups=2, strides=(3, 1), dilations=(1, 2)),
    transposed("1,2,7; 2,3,4; 3", "strides=[2], pads=[1,1]", rank=1, strides=(2,), pads=(1, 1)),
    transposed("1,3,4,4; 3,2,2,2", "pads=[3,0,0,1], strides=[2,2]", pads=(3, 0, 0, 1), strides=(2, 2)),
    case("linear", "5,7; 4,7; 4", "y = Gemm <transB=1> (x0, x1, x2)", PRODUCT),
    case("linear", "2,3,7; 4,7", "t = Transpose <perm=[1,0]> (x1) y = MatMul(x0, t)", PRODUCT),
    case("linear", "2,7; 4,7; 4; 2,4", "g = Gemm <transB=1> (x0, x1, x2) y = Add(g, x3)", PRODUCT),
    case("matmul", "2,1,3,4; 5,4,6", "y = MatMul(x0, x1)", PRODUCT),
    case("matmul", "3,4; 4,2", "m = MatMul(x0, x1) lo = Constant <value_float=-0.5> () hi = Constant <value_float=0.25> () y = Clip(m, lo, hi)",
         PRODUCT, clamp=(-0.5, 0.25)),
    pool("max_pool", "1,2,7,8", "kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]", EQUAL, kernel=(3, 2), strides=(2, 2), pads=(1, 0, 1, 1)),
    pool("max_pool", "1,2,8,8", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1", EQUAL, kernel=(3, 3), strides=(2, 2), ceil_mode=True),
    pool("max_pool", "1,2,9,9", "kernel_shape=[2,2], dilations=[3,2]", EQUAL, kernel=(2, 2), dilations=(3, 2)),
    pool("max_pool", "1,2,5,5", "kernel_shape=[2,2], strides=[3,3], pads=[1,1,1,1], ceil_mode=1", EQUAL,
         kernel=(2, 2), strides=(3, 3), pads=(1, 1, 1, 1), ceil_mode=True),
    pool("max_pool", "2,3,11", "kernel_shape=[4], strides=[3]", EQUAL, rank=1, kernel=(4,), strides=(3,)),
    pool("avg_pool", "1,2,7,8", "kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]", ELEMENTWISE,
         kernel=(3, 2), strides=(2, 2), pads=(1, 0, 1, 1)),
    pool("avg_pool", "1,2,7,7", "kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1", ELEMENTWISE,
         kernel=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True),
    pool("avg_pool", "1,2,8,8", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1", ELEMENTWISE,
         kernel=(3, 3), strides=(2, 2), ceil_mode=True),
    pool("avg_pool", "2,3,9", "kernel_shape=[3], strides=[2]", ELEMENTWISE, rank=1, kernel=(3,), strides=(2,)),
]  # fmt: skip

_UNARY = {
    "sigmoid": "y = Sigmoid(x0)", "tanh": "y = Tanh(x0)", "hard_swish": "y = HardSwish(x0)", "silu": "s = Sigmoid(x0) y = Mul(x0, s)",
    "mish": "y = Mish(x0)", "softplus": "y = Softplus(x0)", "exp": "y = Exp(x0)", "neg": "y = Neg(x0)", "abs": "y = Abs(x0)",
    "erf": "y = Erf(x0)", "sin": "y = Sin(x0)", "cos": "y = Cos(x0)", "floor": "y = Floor(x0)", "ceil": "y = Ceil(x0)", "sign": "y = Sign(x0)",
    "relu": "y = Relu(x0)",
}  # fmt: skip
_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "min": "Min", "max": "Max", "less": "Less", "less_equal": "LessOrEqual",
    "greater": "Greater", "greater_equal": "GreaterOrEqual",
}  # fmt: skip
ELEMENTWISE_CASES = [
    *(case(op, "2,3,1; 4", f"y = {name}(x0, x1)") for op, name in _BINARY.items()),
    *(case(op, "i64 9; i64 9", f"y = {_BINARY[op]}(x0, x1)", EQUAL) for op in ("add", "sub", "mul", "min", "max", "less_equal")),
    case("div", "i64 9; i64pos 9", "y = Div(x0, x1)", EQUAL),
    *(case(op, "3,4", text) for op, text in _UNARY.items()),
    case("add", "3,4; 3,4", "s = Add(x0, x1) y = Relu(s)", clamp=(0.0, float("inf"))),
    case("pow", "pos 3,4; 4", "y = Pow(x0, x1)"),
    case("mod", "i64 8; i64pos 8", "y = Mod(x0, x1)", EQUAL),
    case("equal", "i64 64; i64 64", "y = Equal(x0, x1)", EQUAL),
    case("not_equal", "i64 64; i64 64", "e = Equal(x0, x1) y = Not(e)", EQUAL),
    case("logical_and", "bool 3,4; bool 4", "y = And(x0, x1)", EQUAL),
    case("logical_or", "bool 3,4; bool 4", "y = Or(x0, x1)", EQUAL),
    case("logical_not", "bool 3,4", "y = Not(x0)", EQUAL),
    case("where", "bool 3,1; 3,4; 4", "y = Where(x0, x1, x2)", EQUAL),
    case("prelu", "2,3,4; 3,1", "y = PRelu(x0, x1)"),
    case("clamp", "3,4", "lo = Constant <value_float=-0.25> () hi = Constant <value_float=0.5> () y = Clip(x0, lo, hi)", EQUAL, lo=-0.25, hi=0.5),
    case("leaky_relu", "3,4", "y = LeakyRelu <alpha=0.1> (x0)", alpha=0.1),
    case("elu", "3,4", "y = Elu <alpha=1.5> (x0)", alpha=1.5),
    case("hard_sigmoid", "3,4", "y = HardSigmoid <alpha=0.3, beta=0.4> (x0)", alpha=0.3, beta=0.4),
    case("gelu", "3,4", "y = Gelu (x0)"),
    case("gelu", "3,4", 'y = Gelu <approximate="tanh"> (x0)', approximate="tanh"),
    case("log", "pos 3,4", "y = Log(x0)"),
    case("sqrt", "pos 3,4", "y = Sqrt(x0)"),
    case("rsqrt", "pos 3,4", "s = Sqrt(x0) y = Reciprocal(s)"),
    case("reciprocal", "pos 3,4", "y = Reciprocal(x0)"),
    case("round", "halves 25", "y = Round(x0)", EQUAL),
    case("cast", "3,4", "y = Cast <to=7> (x0)", EQUAL, dtype=DType.I64),
    case("cast", "3,4", "y = Cast <to=10> (x0)", EQUAL, dtype=DType.F16),
    case("cast", "i64 3,4", "y = Cast <to=9> (x0)", EQUAL, dtype=DType.BOOL),
]  # fmt: skip

NORM = [
    case("batch_norm", "2,3,4,5; 3; 3; 3; pos 3", "y = BatchNormalization <epsilon=0.01> (x0, x1, x2, x3, x4)", epsilon=0.01),
    case("layer_norm", "2,3,8; 8; 8", "y = LayerNormalization (x0, x1, x2)"),
    case("layer_norm", "2,3,8; 3,8", "y = LayerNormalization <axis=1, epsilon=0.001> (x0, x1)", axis=1, epsilon=0.001),
    case("instance_norm", "2,3,4,5; 3; 3", "y = InstanceNormalization <epsilon=0.01> (x0, x1, x2)", epsilon=0.01),
    case("group_norm", "2,6,4; 6; 6", f"{ints('s', 2, 2, -1)} {ints('t', 2, 6, 4)} g = Reshape(x0, s) one = Constant <value_floats=[1.0,1.0]> () "
         f"zero = Constant <value_floats=[0.0,0.0]> () n = InstanceNormalization (g, one, zero) r = Reshape(n, t) {ints('c', 6, 1)} "
         "a = Reshape(x1, c) b = Reshape(x2, c) m = Mul(r, a) y = Add(m, b)", groups=2),
    case("rms_norm", "2,3,8; 8", f"q = Mul(x0, x0) {ints('a', -1)} m = ReduceMean(q, a) e = Constant <value_float=0.001> () "
         "v = Add(m, e) s = Sqrt(v) d = Div(x0, s) y = Mul(d, x1)", epsilon=0.001),
    case("softmax", "2,3,8", "y = Softmax <axis=-1> (x0)"),
    case("softmax", "2,3,8", "y = Softmax <axis=1> (x0)", axis=1),
    case("log_softmax", "2,5", "y = LogSoftmax <axis=0> (x0)", axis=0),
]  # fmt: skip

_REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_l2": "ReduceL2",
}  # fmt: skip
REDUCE = [
    *(case(op, "2,3,4,5", f"{ints('a', 1, -1)} y = {name} <keepdims=0> (x0, a)", axes=(1, -1), keepdims=False) for op, name in _REDUCTIONS.items()),
    *(case(op, "2,3,4", f"{ints('a', 2)} y = {name} (x0, a)", axes=(2,)) for op, name in _REDUCTIONS.items()),
    case("argmax", "ties 4,9", "y = ArgMax <axis=1> (x0)", EQUAL, axis=1),
    case("argmax", "4,9,2", "y = ArgMax <axis=-2, keepdims=0> (x0)", EQUAL, axis=-2, keepdims=False),
    case("cumsum", "3,6", "a = Constant <value_int=1> () y = CumSum(x0, a)", axis=1),
]  # fmt: skip

_HALF = 'coordinate_transformation_mode="half_pixel"'
SHAPE = [
    case("reshape", "2,3,4", f"{ints('s', 6, 4)} y = Reshape(x0, s)", EQUAL, shape=(6, 4)),
    case("transpose", "2,3,4", "y = Transpose <perm=[2,0,1]> (x0)", EQUAL, perm=(2, 0, 1)),
    case("relayout", "1,2,3,4", "y = Identity(x0)", EQUAL, layout=Layout.CHANNELS_LAST),
    case("concat", "2,3; 2,1; 2,4", "y = Concat <axis=-1> (x0, x1, x2)", EQUAL, axis=-1),
    case("slice", "5,6", f"{ints('s', 1, -1)} {ints('e', 5, -7)} {ints('a', 0, 1)} {ints('t', 2, -2)} y = Slice(x0, s, e, a, t)", EQUAL,
         starts=(1, 5), sizes=(2, 3), steps=(2, -2)),
    case("pad", "3,4", f"{ints('p', 1, 0, 2, 3)} v = Constant <value_float=1.5> () y = Pad(x0, p, v)", EQUAL, pads=(1, 0, 2, 3), value=1.5),
    case("pad", "3,4", f'{ints("p", 1, 3, 2, 0)} y = Pad <mode="reflect"> (x0, p)', EQUAL, pads=(1, 3, 2, 0), mode="reflect"),
    case("pad", "3,4", f'{ints("p", 1, 0, 2, 5)} y = Pad <mode="edge"> (x0, p)', EQUAL, pads=(1, 0, 2, 5), mode="edge"),
    case("gather", "4,5; index 2,3", "y = Gather <axis=1> (x0, x1)", EQUAL, axis=1),
    case("gather_elements", "4,5; index 2,5", "y = GatherElements <axis=0> (x0, x1)", EQUAL, axis=0),
    case("expand", "3,1", f"{ints('s', 2, 3, 4)} y = Expand(x0, s)", EQUAL, shape=(2, 3, 4)),
    case("tile", "2,3", f"{ints('r', 2, 2)} y = Tile(x0, r)", EQUAL, repeats=(2, 2)),
    *(resize("1,2,5,6", (1, 2, 8, 11), f'mode="nearest", nearest_mode="{rule}", coordinate_transformation_mode="{where}"',
             mode="nearest", nearest=rule, coordinate=where)
      for rule in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") for where in ("half_pixel", "asymmetric")),
    *(resize("1,2,5,6", sizes, f'mode="linear", coordinate_transformation_mode="{where}"', mode="linear", coordinate=where)
      for sizes in ((1, 2, 9, 4), (1, 2, 1, 12)) for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")),
    resize("1,1,5,6", (1, 1, 8, 12), f'mode="cubic", cubic_coeff_a=-0.5, {_HALF}', mode="cubic", cubic_a=-0.5),
    resize("1,2,7", (1, 2, 3), f'mode="linear", {_HALF}', mode="linear"),
]  # fmt: skip

CASES = [*NN, *ELEMENTWISE_CASES, *NORM, *REDUCE, *SHAPE]
#: Ops without a real form, and where their meaning is tested.
INTEGER_ONLY = {"quantize", "dequantize", "requantize", "lut", "attention"}


def make(text: str, rng: np.random.Generator) -> Array:
    """An operand of a case."""
    kind, _, dims = text.strip().rpartition(" ")
    shape = tuple(int(d) for d in dims.split(","))
    match kind:
        case "pos":
            return rng.uniform(0.2, 3, shape).astype(np.float32)
        case "halves":
            return ((np.arange(np.prod(shape)) - 12) / 4).astype(np.float32)
        case "ties":
            return rng.integers(0, 3, shape).astype(np.float32)
        case "bool":
            return rng.random(shape) < 0.5
        case "i64":
            return rng.integers(-4, 5, shape)
        case "i64pos":
            return rng.integers(1, 5, shape)
        case "index":
            return rng.integers(-4, 4, shape)
        case _:
            return (rng.standard_normal(shape) * 2).astype(np.float32)


def run_onnx(statements: str, operands: list[Array], result: DType) -> Array:
    """What ONNX Runtime makes of the statements."""
    kinds = {DType.F32: "float", DType.F16: "float16", DType.I64: "int64", DType.BOOL: "bool"}
    inputs = ", ".join(f"{kinds[DType.of(a.dtype)]}[{','.join(map(str, a.shape))}] x{i}" for i, a in enumerate(operands))
    text = f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({kinds[result]} y) {{ {statements} }}'
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx.parser.parse_model(text).SerializeToString(), options, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["y"], {f"x{i}": a for i, a in enumerate(operands)})
    return np.asarray(wanted)


@pytest.mark.parametrize("item", CASES, ids=str)
def test_real_form(item: Case) -> None:
    rng = np.random.default_rng(list(str(item).encode()))
    operands = [make(text, rng) for text in item.operands.split(";")]
    graph = Graph()
    values = [graph.add_input(f"x{i}", TensorType(DType.of(a.dtype), a.shape)) for i, a in enumerate(operands)]
    graph.set_outputs([Builder(graph).create(item.op, values, item.attrs, result="y").result])
    verify(graph)
    found = interpret(graph, {f"x{i}": a for i, a in enumerate(operands)})["y"]
    wanted = run_onnx(item.onnx, operands, graph.outputs[0].dtype)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape) == (graph.outputs[0].dtype.numpy, graph.outputs[0].shape)
    rtol, atol = item.tolerance
    if item.tolerance == PRODUCT:
        atol *= float(np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def test_every_op_has_a_case() -> None:
    assert {c.op for c in CASES} | INTEGER_ONLY == {definition.name for definition in all_ops()}
