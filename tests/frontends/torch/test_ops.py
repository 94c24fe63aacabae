# SPDX-License-Identifier: Apache-2.0
"""Every op that the torch front end reads, against torch itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from gadl.compiler.diag import GadlError  # noqa: E402
from gadl.compiler.ir.interpret import interpret  # noqa: E402
from gadl.compiler.ir.verify import verify  # noqa: E402
from gadl.frontends.torch import import_torch  # noqa: E402

Function = Callable[..., Any]
LINE, IMAGE, VECTOR = (2, 6, 12), (2, 4, 9, 8), (2, 5)


class Wrapped(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def samples(*shapes: tuple[int, ...]) -> list[Any]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(s, generator=generator) * 2 for s in shapes]


def check(function: Function, inputs: list[Any], tolerance: float = 2e-5) -> Any:
    """Import, interpret and compare; returns the graph."""
    module = Wrapped(function).eval()
    with torch.no_grad():
        expected = module(*inputs)
    graph = import_torch(torch.export.export(module, tuple(inputs)))
    verify(graph)
    found = interpret(graph, {v.name: x.numpy() for v, x in zip(graph.inputs, inputs)})
    wanted = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    assert len(found) == len(wanted)
    for a, b in zip(found.values(), wanted):
        assert a.shape == tuple(b.shape) and a.dtype == b.numpy().dtype
        np.testing.assert_allclose(a, b.numpy(), rtol=tolerance, atol=tolerance)
    return graph


def layer(name: str, *args: Any, **kwargs: Any) -> Any:
    """A seeded layer whose norms have statistics worth the name."""
    torch.manual_seed(3)
    made = getattr(torch.nn, name)(*args, **kwargs).eval()
    with torch.no_grad():
        for key, held in [*made.named_parameters(), *made.named_buffers()]:
            if held.dtype.is_floating_point and held.ndim == 1:
                held.copy_(torch.rand_like(held) + (0.5 if "var" in key or "weight" in key else 0))
    return made


#: name: (function, input shapes, the IR op that must be among the result's)
CASES: dict[str, tuple[Function, list[tuple[int, ...]], str]] = {
    "conv2d": (layer("Conv2d", 4, 6, 3, stride=2, padding=1), [IMAGE], "conv"),
    "conv2d_groups": (layer("Conv2d", 4, 8, (3, 1), dilation=(2, 1), groups=2, bias=False), [IMAGE], "conv"),
    "conv2d_same": (layer("Conv2d", 4, 4, 4, padding="same"), [IMAGE], "conv"),
    "conv2d_unbatched": (layer("Conv2d", 4, 4, 3), [IMAGE[1:]], "conv"),
    "conv1d": (layer("Conv1d", 6, 4, 3, padding=1), [LINE], "conv"),
    "conv_transpose2d": (layer("ConvTranspose2d", 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), [IMAGE],
                         "conv_transpose"),
    "conv_transpose1d": (layer("ConvTranspose1d", 6, 4, 4, stride=2), [LINE], "conv_transpose"),
    "linear": (layer("Linear", 12, 5), [LINE], "linear"),
    "linear_computed_weights": (lambda x, w: F.linear(x, w), [(3, 5), (4, 5)], "matmul"),
    "addmm": (lambda b, x, w: torch.addmm(b, x, w, beta=2, alpha=3), [(4,), (3, 5), (5, 4)], "matmul"),
    "matmul": (torch.matmul, [(2, 3, 4, 5), (3, 5, 2)], "matmul"),
    "matmul_vectors": (torch.matmul, [(5,), (5,)], "matmul"),
    "bmm": (torch.bmm, [(3, 4, 5), (3, 5, 2)], "matmul"),
    "einsum": (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], "matmul"),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)], "softmax"),
    "attention_causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 4, 5)] * 3, "where"),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), [IMAGE], "max_pool"),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), [LINE], "max_pool"),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), [IMAGE], "avg_pool"),
    "avg_pool2d_ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), [IMAGE], "avg_pool"),
    "avg_pool2d_exclude": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), [IMAGE], "avg_pool"),
    "adaptive_avg_pool_1": (lambda x: F.adaptive_avg_pool2d(x, 1), [IMAGE], "reduce_mean"),
    "adaptive_avg_pool_divides": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), [IMAGE], "avg_pool"),
    "adaptive_avg_pool_uneven": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), [IMAGE], "linear"),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), [IMAGE], "max_pool"),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), [IMAGE], "resize"),
    "nearest_size": (lambda x: F.interpolate(x, size=(5, 11)), [IMAGE], "resize"),
    "nearest_exact": (lambda x: F.interpolate(x, size=(5, 11), mode="nearest-exact"), [IMAGE], "resize"),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"), [IMAGE], "resize"),
    "bilinear_corners": (lambda x: F.interpolate(x, size=(5, 11), mode="bilinear", align_corners=True), [IMAGE], "resize"),
    "bicubic": (lambda x: F.interpolate(x, size=(12, 5), mode="bicubic"), [IMAGE], "resize"),
    "linear1d": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), [LINE], "resize"),
    "batch_norm": (layer("BatchNorm2d", 4), [IMAGE], "batch_norm"),
    "batch_norm_plain": (layer("BatchNorm1d", 6, affine=False), [LINE], "batch_norm"),
    "instance_norm": (layer("InstanceNorm2d", 4, affine=True), [IMAGE], "instance_norm"),
    "layer_norm": (layer("LayerNorm", 12), [LINE], "layer_norm"),
    "layer_norm_axes": (layer("LayerNorm", (6, 12)), [LINE], "layer_norm"),
    "group_norm": (layer("GroupNorm", 2, 4), [IMAGE], "group_norm"),
    "rms_norm": (layer("RMSNorm", 12), [LINE], "rms_norm"),
    "softmax": (lambda x: x.softmax(1), [LINE], "softmax"),
    "log_softmax": (lambda x: F.log_softmax(x, -1), [LINE], "log_softmax"),
    "logsumexp": (lambda x: x.logsumexp(1), [LINE], "exp"),
    "sum": (lambda x: x.sum((0, -1), keepdim=True), [LINE], "reduce_sum"),
    "sum_all": (lambda x: x.sum(), [LINE], "reduce_sum"),
    "mean": (lambda x: x.mean([2, 3]), [IMAGE], "reduce_mean"),
    "amax": (lambda x: x.amax(1), [LINE], "reduce_max"),
    "max_dim": (lambda x: x.max(1), [LINE], "argmax"),
    "min_dim": (lambda x: x.min(1, keepdim=True).values, [LINE], "reduce_min"),
    "argmax": (lambda x: x.argmax(-1), [LINE], "argmax"),
    "argmax_all": (lambda x: x.argmax(), [LINE], "argmax"),
    "cumsum": (lambda x: x.cumsum(1), [LINE], "cumsum"),
    "norm": (lambda x: x.norm(dim=1), [LINE], "reduce_l2"),
    "normalize": (lambda x: F.normalize(x, dim=1), [LINE], "reduce_l2"),
    "var": (lambda x: x.var(1), [LINE], "reduce_mean"),
    "std": (lambda x: x.std((1, 2), correction=0, keepdim=True), [LINE], "sqrt"),
    "any": (lambda x: (x > 4).any(1), [LINE], "reduce_max"),
    "prod": (lambda x: x.prod(1), [VECTOR], "reduce_prod"),
    "add_scalar": (lambda x: x + 3, [LINE], "add"),
    "add_alpha": (lambda x, y: torch.add(x, y, alpha=2), [LINE, LINE[1:]], "add"),
    "rsub": (lambda x: 1 - x, [LINE], "sub"),
    "mul": (torch.mul, [LINE, (6, 1)], "mul"),
    "div": (lambda x, y: x / (y.abs() + 1), [LINE, LINE], "div"),
    "div_floor": (lambda x: torch.div(x, 0.7, rounding_mode="floor"), [LINE], "floor"),
    "div_trunc": (lambda x: torch.div(x, 0.7, rounding_mode="trunc"), [LINE], "floor"),
    "remainder": (lambda x: x % 3, [LINE], "mod"),
    "pow": (lambda x: x.abs() ** 1.5, [LINE], "pow"),
    "pow_scalar_base": (lambda x: 2**x, [LINE], "pow"),
    "compare": (lambda x, y: (x > y) & ~(x < 1) | (y == 0), [LINE, LINE], "logical_and"),
    "where": (lambda x: torch.where(x > 0, x, 0.5), [LINE], "where"),
    "masked_fill": (lambda x: x.masked_fill(x > 1, float("-inf")).softmax(-1), [LINE], "where"),
    "clamp": (lambda x: x.clamp(-1, 1.5), [LINE], "clamp"),
    "clamp_min": (lambda x: x.clamp(min=0), [LINE], "relu"),
    "clamp_tensor": (lambda x, y: x.clamp(min=y), [LINE, LINE], "max"),
    "log1p": (lambda x: torch.log1p(x.abs()), [LINE], "log"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [IMAGE], "transpose"),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), [(2, 3, 4, 6)], "transpose"),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), [IMAGE], "transpose"),
    "prelu": (layer("PReLU", 4), [IMAGE], "prelu"),
    "selu": (F.selu, [LINE], "elu"),
    "celu": (F.celu, [LINE], "elu"),
    "celu_alpha": (lambda x: F.celu(x, 0.5), [LINE], "elu"),
    "logsigmoid": (F.logsigmoid, [LINE], "softplus"),
    "softplus_beta": (lambda x: F.softplus(x, beta=2), [LINE], "softplus"),
    "glu": (lambda x: F.glu(x, 1), [LINE], "sigmoid"),
    "dropout": (torch.nn.Sequential(layer("Linear", 12, 3), torch.nn.Dropout()), [LINE], "linear"),
    "flatten": (lambda x: x.flatten(1), [IMAGE], "reshape"),
    "view": (lambda x: x.view(2, -1, 3), [LINE], "reshape"),
    "unsqueeze_squeeze": (lambda x: x.unsqueeze(1).relu().squeeze(1), [LINE], "relu"),
    "permute": (lambda x: x.permute(0, 2, 3, 1), [IMAGE], "transpose"),
    "transpose": (lambda x: x.transpose(1, -1), [IMAGE], "transpose"),
    "movedim": (lambda x: x.movedim(1, 3), [IMAGE], "transpose"),
    "cat": (lambda x, y: torch.cat([x, y], -1), [LINE, (2, 6, 3)], "concat"),
    "stack": (lambda x, y: torch.stack([x, y], 1), [LINE, LINE], "concat"),
    "split": (lambda x: x.split(5, 2), [LINE], "slice"),
    "split_sizes": (lambda x: x.split([1, 2, 3], 1), [LINE], "slice"),
    "chunk": (lambda x: x.chunk(4, 2), [LINE], "slice"),
    "unbind": (lambda x: x.unbind(0), [LINE], "slice"),
    "slice": (lambda x: x[:, 1:-1, ::2], [LINE], "slice"),
    "select": (lambda x: x[:, -1], [LINE], "slice"),
    "expand": (lambda x: x[:, :1].expand(2, 4, 12), [LINE], "expand"),
    "repeat": (lambda x: x.repeat(2, 1, 3, 1), [LINE], "tile"),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), [IMAGE], "pad"),
    "pad_negative": (lambda x: F.pad(x, (-1, 2)), [LINE], "pad"),
    "pad_reflect": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), [IMAGE], "pad"),
    "pad_replicate": (lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), [IMAGE], "pad"),
    "flip": (lambda x: x.flip(1, 2), [LINE], "slice"),
    "roll": (lambda x: x.roll((2, -1), (1, 2)), [LINE], "concat"),
    "index_select": (lambda x: x[:, torch.tensor([2, 0, 2])], [LINE], "gather"),
    "take_along": (lambda x: x.gather(1, torch.tensor([[[1]], [[3]]]).expand(2, 1, 12)), [LINE], "gather_elements"),
    "grid_index": (lambda x: x[:, :, torch.tensor([[3], [1]]), torch.tensor([[0, 2, 5]])], [IMAGE], "gather"),
    "tril": (lambda x: x.tril(-1), [LINE], "where"),
    "positions": (lambda x: x + torch.arange(12, dtype=torch.float32), [LINE], "add"),
    "created": (lambda x: x * torch.full((12,), 2.0) + torch.ones_like(x) - torch.zeros(12), [LINE], "mul"),
    "to_half_and_back": (lambda x: x.half().float(), [LINE], "cast"),
    "integers": (lambda x: (x.to(torch.int32) // 3).float(), [LINE], "cast"),
    "cosine": (lambda x, y: F.cosine_similarity(x, y, dim=1), [LINE, LINE], "div"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name: str) -> None:
    function, shapes, expected = CASES[name]
    graph = check(function, samples(*shapes), 3e-4 if name == "nearest_exact" else 2e-5)
    assert expected in {op.name for op in graph.ops}


UNARY = ("relu", "sigmoid", "tanh", "hardswish", "silu", "mish", "relu6", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "gelu",
         "softplus", "exp", "sqrt", "rsqrt", "log", "reciprocal", "neg", "abs", "erf", "sin", "cos", "floor", "ceil", "round", "sign",
         "square", "expm1")  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor(name: str) -> None:
    function = getattr(F, name, None) or getattr(torch, name)
    (x,) = samples(LINE)
    graph = check(function, [x.abs() + 0.1 if name in ("sqrt", "rsqrt", "log", "reciprocal") else x])
    assert len(graph.ops) <= 2


def test_gelu_keeps_its_form() -> None:
    graph = check(lambda x: F.gelu(x, approximate="tanh"), samples(LINE))
    assert [op.name for op in graph.ops] == ["gelu"] and graph.ops[0].attrs["approximate"] == "tanh"


def test_embedding_takes_integers() -> None:
    graph = check(layer("Embedding", 10, 4), [torch.tensor([[1, 9], [0, 3]])])
    assert [op.name for op in graph.ops] == ["gather"]


def test_constants_share_memory() -> None:
    module = layer("Linear", 12, 5)
    program = torch.export.export(module, tuple(samples(LINE)))
    weight = import_torch(program).ops[0].inputs[1]
    assert weight.data is not None and weight.data.ctypes.data == module.weight.data_ptr()


def test_locations_name_module_and_line() -> None:
    graph = check(torch.nn.Sequential(layer("Linear", 12, 5)), samples(LINE))
    place = str(graph.ops[0].loc)
    assert "node 'function.0/linear'" in place and "test_ops.py:" in place and " in forward" in place


def test_every_unsupported_op_is_reported() -> None:
    program = torch.export.export(
        Wrapped(lambda x: (x.sort(1).values, torch.special.bessel_j0(x), torch.max_pool2d(x, 2))), tuple(samples(IMAGE))
    )
    with pytest.raises(GadlError) as caught:
        import_torch(program)
    codes = [(d.code, d.values["op"]) for d in caught.value.diagnostics]
    assert codes == [("GADL-F012", "aten.sort"), ("GADL-F012", "aten.special_bessel_j0")]
    assert "test_ops.py:" in str(caught.value)


def test_training_mode_is_explained() -> None:
    module = torch.nn.BatchNorm2d(4).train()
    with pytest.raises(GadlError, match="model.eval"):
        import_torch(torch.export.export(module, tuple(samples(IMAGE))))


def test_dict_results_keep_their_keys() -> None:
    program = torch.export.export(Wrapped(lambda x: {"logits": x + 1, "mask": x * 2}), tuple(samples(LINE)))
    assert import_torch(program).output_names == ["logits", "mask"]


def test_missing_torch_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GadlError, match=r"GADL-F010[\s\S]*opengadl\[torch\]"):
        import_torch("model.pt2")


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = layer("LSTM", 4, 6, batch_first=True)
        self.encoder = layer("TransformerEncoderLayer", 6, 2, 12, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.encoder(self.lstm(x)[0])


def test_layers_that_torch_decomposes() -> None:
    """Time steps are unrolled; attention is written out."""
    graph = check(Recurrent().eval(), samples((2, 3, 4)))
    assert {"layer_norm", "softmax", "sigmoid"} <= {op.name for op in graph.ops}


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        return x + self.calls


def test_state_is_refused() -> None:
    with pytest.raises(GadlError, match=r"GADL-F013[\s\S]*calls"):
        import_torch(torch.export.export(Counter(), tuple(samples(LINE))))


def dynamic_program() -> Any:
    batch = torch.export.Dim("batch", min=1, max=16)
    module = Wrapped(layer("Conv2d", 4, 6, 3))
    return torch.export.export(module, tuple(samples(IMAGE)), dynamic_shapes=(({0: batch},),))


def test_open_dimensions_are_listed_and_fixed() -> None:
    program = dynamic_program()
    with pytest.raises(GadlError) as caught:
        import_torch(program)
    assert [d.code for d in caught.value.diagnostics] == ["GADL-F003"]
    name = caught.value.diagnostics[0].values["name"]
    graph = import_torch(program, {name: (3, *IMAGE[1:])})
    assert graph.inputs[0].shape == (3, *IMAGE[1:])
    (x,) = samples((3, *IMAGE[1:]))
    with torch.no_grad():
        expected = program.module()(x).numpy()
    found = interpret(graph, {graph.inputs[0].name: x.numpy()})
    np.testing.assert_allclose(next(iter(found.values())), expected, atol=1e-5)


def test_wrong_shape_arguments() -> None:
    program = dynamic_program()
    with pytest.raises(GadlError, match="GADL-F006"):
        import_torch(program, {"nobody": (1,)})
    with pytest.raises(GadlError, match="GADL-F005"):
        import_torch(program, {"args_0": (1, 5, 9, 8)})
    with pytest.raises(GadlError, match="GADL-F001"):
        import_torch(object())
