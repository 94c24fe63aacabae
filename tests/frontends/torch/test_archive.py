# SPDX-License-Identifier: Apache-2.0
"""`.pt2` files: sound ones load, damaged and hostile ones are refused before torch sees them."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gadl.compiler.diag import GadlError  # noqa: E402
from gadl.compiler.ir.interpret import interpret  # noqa: E402
from gadl.frontends.torch import import_torch  # noqa: E402

Members = dict[str, bytes]
MODEL = "net/models/model.json"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.register_buffer("offset", torch.arange(3.0).reshape(3, 1, 1), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.conv(x).relu() + self.offset


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.manual_seed(1)
    net = Net().eval()
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2, 6, 5),)), path)
    return path, net


def test_a_saved_program_loads(saved: tuple[Path, Any]) -> None:
    path, net = saved
    graph = import_torch(path)
    assert graph.name == "net" and graph.ops[0].loc.file == "net.pt2"
    x = torch.randn(1, 2, 6, 5)
    found = next(iter(interpret(graph, {graph.inputs[0].name: x.numpy()}).values()))
    np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-5)


def rewritten(path: Path, target: Path, change: Callable[[Members], None], **options: Any) -> Path:
    """The archive with some members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    change(members)
    with zipfile.ZipFile(target, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


class Bomb:
    """Unpickling it sets a mark that the tests look for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.environ['GADL_TEST_BOMB'] = 'exploded'",)


def edit(members: Members, name: str, change: Callable[[Any], None]) -> None:
    value = json.loads(members[name])
    change(value)
    members[name] = json.dumps(value).encode()


def pickled_weight(members: Members) -> None:
    def change(config: Any) -> None:
        entry = next(iter(config["config"].values()))
        entry["use_pickle"], entry["tensor_meta"] = True, None
        members[f"net/data/weights/{entry['path_name']}"] = pickle.dumps(Bomb())

    edit(members, "net/data/weights/model_weights_config.json", change)


def custom_object(members: Members) -> None:
    members["net/data/constants/custom_obj_0"] = pickle.dumps(Bomb())
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit(members, "net/data/constants/model_constants_config.json", lambda c: c["config"].update(held=entry))


def path_outside(members: Members) -> None:
    def change(config: Any) -> None:
        next(iter(config["config"].values()))["path_name"] = "../../../weight_0"

    edit(members, "net/data/weights/model_weights_config.json", change)


def compiled_code(members: Members) -> None:
    members["net/data/aotinductor/model/code.so"] = b"\x7fELF"


def python_expression(members: Members) -> None:
    expression = {"as_expr": {"expr_str": "__import__('os').environ.__setitem__('GADL_TEST_BOMB', 'exploded')", "hint": None}}

    def change(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = expression

    edit(members, MODEL, change)


def imported_class(members: Members) -> None:
    spec = '[1, {"type": "collections.defaultdict", "context": "{\\"default_factory_module\\": \\"os\\"}", "children_spec": []}]'

    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    edit(members, MODEL, change)


HOSTILE = (pickled_weight, custom_object, path_outside, compiled_code, python_expression, imported_class)


@pytest.mark.parametrize("change", HOSTILE, ids=lambda c: c.__name__)
def test_code_is_refused(saved: tuple[Path, Any], tmp_path: Path, change: Callable[[Members], None]) -> None:
    os.environ.pop("GADL_TEST_BOMB", None)
    with pytest.raises(GadlError, match="GADL-F011"):
        import_torch(rewritten(saved[0], tmp_path / "bad.pt2", change))
    assert "GADL_TEST_BOMB" not in os.environ


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("s0", True), ("Add(FloorDiv(Symbol('s5', positive=True, integer=True), Integer(2)), Integer(-1))", True),
        ("Symbol('exec(1)')", False), ("Symbol('s5', commutative=print())", False), ("Pow(Integer(9), Pow(Integer(9), Integer(9)))", False),
        ("Pow(s0, Integer(2))", True), ("2*s77 + 1", True), ("FloorDiv(s0 - 1, 2)**2", True), ("Max(1, u0)", True),
        ("exit()", False), ("s0.real", False), ("9**9**9**9", False), ("2**999", False), ("((9**9)**9)**9**9**9", False),
        ("__class__", False), ("s0[0]", False), ("9" * 50, False), ("lambda: 0", False), (7, False),
    ],
)  # fmt: skip
def test_expressions(text: Any, sound: bool) -> None:
    from gadl.frontends.torch.archive import is_arithmetic

    assert is_arithmetic(text) == sound


def test_dynamic_programs_load(tmp_path: Path) -> None:
    program = torch.export.export(Net().eval(), (torch.zeros(2, 2, 6, 5),), dynamic_shapes=({0: torch.export.Dim("n", max=8), 2: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "dynamic.pt2")
    with pytest.raises(GadlError, match=r"GADL-F003[\s\S]*--shape x:"):
        import_torch(tmp_path / "dynamic.pt2")
    assert import_torch(tmp_path / "dynamic.pt2", {"x": (3, 2, 6, 5)}).outputs[0].shape == (3, 3, 4, 3)


def test_pickled_examples_are_never_read(saved: tuple[Path, Any], tmp_path: Path) -> None:
    def change(members: Members) -> None:
        buffer = io.BytesIO()
        torch.save(Bomb(), buffer)
        members["net/data/sample_inputs/model.pt"] = buffer.getvalue()

    os.environ.pop("GADL_TEST_BOMB", None)
    assert len(import_torch(rewritten(saved[0], tmp_path / "good.pt2", change)).ops) == 3
    assert "GADL_TEST_BOMB" not in os.environ


def test_targets_outside_aten_are_listed(saved: tuple[Path, Any], tmp_path: Path) -> None:
    def change(program: Any) -> None:
        for node, target in zip(program["graph_module"]["graph"]["nodes"], ("torch.hub.load", "torch.ops.aten.from_file.default")):
            node["target"] = target

    with pytest.raises(GadlError) as caught:
        import_torch(rewritten(saved[0], tmp_path / "bad.pt2", lambda m: edit(m, MODEL, change)))
    assert [d.values["op"] for d in caught.value.diagnostics] == ["torch.hub.load", "aten.from_file.default"]


def test_guards_are_dropped(saved: tuple[Path, Any], tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["guards_code"] = ["__import__('os').abort()"]

    assert import_torch(rewritten(saved[0], tmp_path / "good.pt2", lambda m: edit(m, MODEL, change))).ops


def test_compressed_members_are_refused(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path = rewritten(saved[0], tmp_path / "bad.pt2", lambda m: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(GadlError, match="GADL-F001"):
        import_torch(path)


def test_damage_is_a_coded_error(saved: tuple[Path, Any], tmp_path: Path) -> None:
    whole = saved[0].read_bytes()
    generator = random.Random(5)
    cases = [b"", b"PK", whole[: len(whole) // 2], whole[:-10]]
    for _ in range(8):
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        cases.append(bytes(flipped))
    path = tmp_path / "bad.pt2"
    for data in cases:
        path.write_bytes(data)
        try:
            import_torch(path)
        except GadlError:
            continue
    with pytest.raises(GadlError, match="GADL-F001"):
        import_torch(tmp_path / "absent.pt2")


def test_wrong_json_is_a_coded_error(saved: tuple[Path, Any], tmp_path: Path) -> None:
    """Values of the graph replaced by others of the wrong kind: never anything but a GadlError."""
    generator = random.Random(9)

    def places(value: Any) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            found += [(value, key), *places(item)]
        return found

    def change(program: Any) -> None:
        container, key = generator.choice(places(program))
        container[key] = generator.choice([None, -1, 1 << 70, "x", [], {}, [[]], True, {"as_int": 1 << 40}])

    for _ in range(8):
        path = rewritten(saved[0], tmp_path / "bad.pt2", lambda m: edit(m, MODEL, change))
        try:
            import_torch(path)
        except GadlError:
            continue
