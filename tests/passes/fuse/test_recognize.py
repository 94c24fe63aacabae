# SPDX-License-Identifier: Apache-2.0
"""Composites written out in small ops, in the forms that exporters use."""

from __future__ import annotations

import pytest
from rewriting import body_of, graph_of, run, unchanged

from gadl.compiler.ir.graph import Graph
from gadl.passes.canonicalize.normalize_products import normalize_products
from gadl.passes.fuse.recognize_composites import recognize_composites
from gadl.passes.fuse.recognize_norms import recognize_norms

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "half": 0.5, "sixth": 1 / 6, "slope": 0.1, "root2": 1.4142135,
    "invroot2": 0.70710677, "cubic": 0.044715, "root2pi": 0.7978846, "eps": 1e-5, "minus": -1.0, "four": 4.0,
}  # fmt: skip


def program(lines: str, shape: str = "2,3,4") -> str:
    """Lines such as `a = add x three` as graph text: operands first, then attributes in braces."""
    used, body, last = [], [], ""
    for line in lines.strip().splitlines():
        result, _, call = line.strip().partition(" = ")
        name, _, rest = call.partition(" ")
        operands, brace, attrs = rest.partition("{")
        names = operands.split()
        used += [n for n in names if n in CONSTANTS and n not in used]
        kept = "2,3,1" if name.startswith("reduce") else shape
        kept = "2,3,1" if names and names[0].startswith("r_") and name != "mul" else kept
        body.append(f"%{result} : f32[{kept}] = {name}({', '.join('%' + n for n in names)}) {brace}{attrs}".rstrip())
        last = result
    constants = [f"const %{n} : f32[] = f32[] [{CONSTANTS[n]!r}]" for n in used]
    return "\n".join([f"input %x : f32[{shape}]", *constants, *body, f'output "{last}" = %{last}'])


def recognise(graph: Graph) -> bool:
    """The recognition passes behind the normal form of products, as the pipeline runs them."""
    changed = normalize_products(graph)
    changed |= recognize_composites(graph)
    return recognize_norms(graph) or changed


#: name: (what an exporter writes, the op that it is)
FORMS: dict[str, tuple[str, str]] = {
    "hard_swish_clip_mul_div": (
        "a = add x three\nb = clamp a {lo = 0.0, hi = 6.0}\nc = mul x b\nd = div c six", "hard_swish()"),
    "hard_swish_clip_div_mul": (
        "a = add three x\nb = clamp a {lo = 0.0, hi = 6.0}\nc = div b six\nd = mul c x", "hard_swish()"),
    "hard_swish_min_max": (
        "a = add x three\nb = max a zero\nc = min b six\nd = mul c sixth\ne = mul x d", "hard_swish()"),
    "hard_swish_relu6": (
        "a = add x three\nb = relu a\nc = min six b\nd = mul x c\ne = mul d sixth", "hard_swish()"),
    "hard_swish_hard_sigmoid": (
        "a = hard_sigmoid x {alpha = 0.16666667, beta = 0.5}\nb = mul x a", "hard_swish()"),
    "hard_sigmoid": ("a = add x three\nb = clamp a {lo = 0.0, hi = 6.0}\nc = div b six",
                     "hard_sigmoid(alpha = 0.16666666666666666, beta = 0.5)"),
    "silu": ("a = sigmoid x\nb = mul x a", "silu()"),
    "silu_reversed": ("a = sigmoid x\nb = mul a x", "silu()"),
    "mish": ("a = softplus x\nb = tanh a\nc = mul x b", "mish()"),
    "leaky_relu": ("a = mul x slope\nb = max x a", "leaky_relu(alpha = 0.10000000149011612)"),
    "leaky_relu_reversed": ("a = mul slope x\nb = max a x", "leaky_relu(alpha = 0.10000000149011612)"),
    "relu": ("a = max x zero", "relu()"),
    "relu6": ("a = relu x\nb = min a six", "clamp(lo = 0.0, hi = 6.0)"),
    "min_max": ("a = min x six\nb = max a minus", "clamp(lo = -1.0, hi = 6.0)"),
    "clamps": ("a = clamp x {lo = -1.0, hi = 4.0}\nb = clamp a {lo = 0.0, hi = 6.0}\nc = relu b", "clamp(lo = 0.0, hi = 4.0)"),
    "clamp_that_is_relu": ("a = clamp x {lo = 0.0, hi = inf}", "relu()"),
    "gelu_div": ("a = div x root2\nb = erf a\nc = add b one\nd = mul x c\ne = mul d half", 'gelu(approximate = "none")'),
    "gelu_mul": ("a = mul x invroot2\nb = erf a\nc = add one b\nd = mul half x\ne = mul d c", 'gelu(approximate = "none")'),
    "gelu_half_inside": ("a = mul x invroot2\nb = erf a\nc = add b one\nd = mul c half\ne = mul x d", 'gelu(approximate = "none")'),
    "gelu_tanh_pow": (
        "a = pow x three\nb = mul a cubic\nc = add x b\nd = mul c root2pi\ne = tanh d\nf = add e one\ng = mul x half\nh = mul g f",
        'gelu(approximate = "tanh")'),
    "gelu_tanh_products": (
        "a = mul x x\nb = mul a x\nc = mul cubic b\nd = add x c\ne = mul d root2pi\nf = tanh e\ng = add f one\nh = mul x g\n"
        "i = mul h half", 'gelu(approximate = "tanh")'),
    "softmax": (
        "r_m = reduce_max x {axes = (2,), keepdims = true}\na = sub x r_m\nb = exp a\n"
        "r_s = reduce_sum b {axes = (-1,), keepdims = true}\nc = div b r_s", "softmax(axis = -1)"),
    "softmax_without_shift": (
        "b = exp x\nr_s = reduce_sum b {axes = (2,), keepdims = true}\nc = div b r_s", "softmax(axis = -1)"),
    "layer_norm_pow_div": (
        "r_m = reduce_mean x {axes = (-1,), keepdims = true}\na = sub x r_m\nb = pow a two\n"
        "r_v = reduce_mean b {axes = (-1,), keepdims = true}\nr_e = add r_v eps\nr_r = sqrt r_e\nc = div a r_r",
        "layer_norm(axis = -1, epsilon = 9.999999747378752e-06)"),
    "layer_norm_rsqrt": (
        "r_m = reduce_mean x {axes = (2,), keepdims = true}\na = sub x r_m\nb = mul a a\n"
        "r_v = reduce_mean b {axes = (2,), keepdims = true}\nr_e = add r_v eps\nr_r = rsqrt r_e\nc = mul r_r a",
        "layer_norm(axis = -1, epsilon = 9.999999747378752e-06)"),
    "rms_norm": (
        "b = pow x two\nr_v = reduce_mean b {axes = (-1,), keepdims = true}\nr_e = add r_v eps\nr_r = sqrt r_e\n"
        "r_i = reciprocal r_r\nc = mul x r_i", "rms_norm(axis = -1, epsilon = 9.999999747378752e-06)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    lines, expected = FORMS[name]
    text = program(lines)
    graph = run(recognise, text, tolerance=2e-4)
    (op,) = graph.ops
    attrs = ", ".join(f"{k} = {f'{chr(34)}{v}{chr(34)}' if isinstance(v, str) else v}" for k, v in op.attrs.items())
    assert f"{op.name}({attrs})" == expected
    assert op.inputs == graph.inputs and op.result.name == text.rpartition("%")[2]


#: Close to a composite, and not one.
OTHERS = {
    "wrong_shift": "a = add x two\nb = clamp a {lo = 0.0, hi = 6.0}\nc = mul x b",
    "other_operand": "a = sigmoid x\nb = exp x\nc = mul a b",
    "steep": "a = mul x two\nb = max x a",
    "disjoint_clamps": "a = clamp x {lo = 2.0, hi = 3.0}\nb = clamp a {lo = 4.0, hi = 5.0}",
    "not_a_half": "a = mul x invroot2\nb = erf a\nc = add b one\nd = mul x c",
    "sum_of_another_axis": "b = exp x\nr_s = reduce_sum b {axes = (2,), keepdims = true}\nd = exp b\nc = div d r_s",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_things_stay(name: str) -> None:
    unchanged(recognize_composites, program(OTHERS[name]))
    unchanged(recognize_norms, program(OTHERS[name]))


def test_centring_by_another_mean_is_no_layer_norm() -> None:
    """What is left is the quotient by a root mean square."""
    lines = (
        "z = exp x\nr_m = reduce_mean z {axes = (2,), keepdims = true}\na = sub x r_m\nb = mul a a\n"
        "r_v = reduce_mean b {axes = (2,), keepdims = true}\nr_e = add r_v eps\nr_r = sqrt r_e\nc = div a r_r"
    )
    graph = run(recognise, program(lines))
    assert [op.name for op in graph.ops] == ["exp", "reduce_mean", "sub", "rms_norm"]


def test_a_value_read_elsewhere_is_kept() -> None:
    graph = run(
        recognise,
        'input %x : f32[4]\n%a : f32[4] = sigmoid(%x)\n%b : f32[4] = mul(%x, %a)\n%c : f32[4] = exp(%a)\noutput "b" = %b\noutput "c" = %c',
    )
    assert [op.name for op in graph.ops] == ["sigmoid", "silu", "exp"]


def test_norms_take_scale_and_bias() -> None:
    graph = run(
        recognise,
        """input %x : f32[3,2]
        const %g : f32[2] = f32[2] [2.0, 3.0]
        const %b : f32[2] = f32[2] [0.5, -1.0]
        %n : f32[3,2] = layer_norm(%x) {axis = -1, epsilon = 1e-05}
        %s : f32[3,2] = mul(%n, %g)
        %y : f32[3,2] = add(%b, %s)
        %r : f32[3,2] = rms_norm(%y) {axis = -1, epsilon = 1e-05}
        %z : f32[3,2] = mul(%g, %r)
        %q : f32[3,2] = add(%z, %b)
        output "q" = %q""",
    )
    assert body_of(graph) == body_of(
        graph_of(
            """input %x : f32[3,2]
            const %g : f32[2] = f32[2] [2.0, 3.0]
            const %b : f32[2] = f32[2] [0.5, -1.0]
            %y : f32[3,2] = layer_norm(%x, %g, %b) {axis = -1, epsilon = 1e-05}
            %z : f32[3,2] = rms_norm(%y, %g) {axis = -1, epsilon = 1e-05}
            %q : f32[3,2] = add(%z, %b)
            output "q" = %q"""
        )
    )


def test_scale_of_another_shape_stays() -> None:
    unchanged(
        recognize_norms,
        """input %x : f32[3,2]
        const %g : f32[3,1] = f32[3,1] [2.0, 3.0, 4.0]
        %n : f32[3,2] = layer_norm(%x) {axis = -1, epsilon = 1e-05}
        %s : f32[3,2] = mul(%n, %g)
        output "s" = %s""",
    )


def test_group_norm_of_an_instance_norm() -> None:
    graph = run(
        recognise,
        """input %x : f32[2,4,3]
        const %one : f32[2] = f32[2] [1.0, 1.0]
        const %zero : f32[2] = f32[2] [0.0, 0.0]
        const %g : f32[4,1] = f32[4,1] [1.0, 2.0, 3.0, 4.0]
        const %b : f32[1,4,1] = f32[1,4,1] [0.5, -1.0, 0.0, 2.0]
        %f : f32[2,2,6] = reshape(%x) {shape = (2, 2, 6)}
        %n : f32[2,2,6] = instance_norm(%f, %one, %zero) {epsilon = 1e-05}
        %r : f32[2,4,3] = reshape(%n) {shape = (2, 4, 3)}
        %s : f32[2,4,3] = mul(%r, %g)
        %y : f32[2,4,3] = add(%s, %b)
        output "y" = %y""",
    )
    (op,) = graph.ops
    assert (op.name, op.attrs["groups"]) == ("group_norm", 2)
    assert [v.data.tolist() for v in op.inputs[1:] if v.data is not None] == [[1, 2, 3, 4], [0.5, -1, 0, 2]]


def test_instance_norm_of_other_channels_stays() -> None:
    """Folding pixels into channels is no grouping of channels."""
    unchanged(
        recognize_norms,
        """input %x : f32[1,4,3]
        const %one : f32[3] = f32[3] [1.0, 1.0, 1.0]
        const %zero : f32[3] = f32[3] [0.0, 0.0, 0.0]
        %f : f32[1,3,4] = reshape(%x) {shape = (1, 3, 4)}
        %n : f32[1,3,4] = instance_norm(%f, %one, %zero) {epsilon = 1e-05}
        %r : f32[1,4,3] = reshape(%n) {shape = (1, 4, 3)}
        output "r" = %r""",
    )
