# SPDX-License-Identifier: Apache-2.0
"""The instruction set: one declaration, from which encoder (`instruction.py`), assembler, C header and reference page follow.

An instruction is a header of two 64-bit words and its fields, packed from bit 0 upwards in declared order and padded to
whole words. Everything is little-endian.

    word 0: opcode 8 | queue 4 | words 8 | debug 32 | reserved 12
    word 1: three waits and two posts of 12 bits each (semaphore 6, count 6; count 0: unused) | reserved 4
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

VERSION = (1, 0)
HEADER_BITS = 128
MOST_WAITS, MOST_POSTS = 3, 2
SEMAPHORES = 64
MOST_COUNT = 63


class Queue(enum.IntEnum):
    """In-order instruction queues of a core."""

    CTL = 0
    LD0 = 1
    LD1 = 2
    LD2 = 3
    ST = 4
    MMA = 5
    VEC = 6


class Type(enum.IntEnum):
    """Element types as encoded."""

    I8 = 0
    U8 = 1
    I16 = 2
    I32 = 3
    I64 = 4
    F16 = 5
    BF16 = 6
    F32 = 7
    I4 = 8


class Round(enum.IntEnum):
    """Rounding of a requantisation (`docs/numerics.md` section 2)."""

    UP = 0
    TFL2 = 1
    EVEN = 2
    AWAY = 3
    FLOOR = 4
    ZERO = 5
    F32 = 6


class Binary(enum.IntEnum):
    """Functions of VBIN."""

    ADD = 0
    SUB = 1
    MUL = 2
    MIN = 3
    MAX = 4
    EQUAL = 5
    GREATER = 6
    AND = 7
    OR = 8
    XOR = 9
    SHL = 10
    SHR = 11
    SELECT = 12


class Unary(enum.IntEnum):
    """Functions of VUN."""

    CAST = 0
    NEG = 1
    ABS = 2
    CLZ = 3
    EXP2 = 4
    LOG2 = 5
    RCP = 6
    RSQRT = 7
    TANH = 8
    SIGMOID = 9
    ERF = 10
    SIN = 11
    COS = 12
    ROUND = 13
    FLOOR = 14
    CEIL = 15


class Reduce(enum.IntEnum):
    """Functions of VRED."""

    SUM = 0
    MAX = 1
    MIN = 2
    ABSMAX = 3
    ARGMAX = 4
    SUMSQ = 5


class Pool(enum.IntEnum):
    """Functions of VPOOL and of the drain's pooling."""

    NONE = 0
    MAX = 1
    AVG = 2


class Activation(enum.IntEnum):
    """What the drain applies before the result is written."""

    NONE = 0
    LEAKY = 1
    LUT = 2


#: f32 coefficients, constant first, of the polynomials behind VUN's f32 functions (how they are used: `VUN`). `exp2` is a
#: relative minimax fit of 2^r over |r| <= 1/2 within 0.051 * 2^-24; the others are the first guesses of Newton's method.
POLYNOMIALS: Mapping[str, tuple[float, ...]] = {
    "exp2": tuple(map(float.fromhex, (
        "0x1p+0", "0x1.62e430p-1", "0x1.ebfbdcp-3", "0x1.c6af7cp-5", "0x1.3b2de0p-7", "0x1.5f0830p-10", "0x1.416b5ep-13",
    ))),
    "rcp": tuple(map(float.fromhex, ("0x1.0f83e0p+2", "-0x1.745d18p+2", "0x1.4afd6ap+1"))),
    "rsqrt": tuple(map(float.fromhex, ("0x1.8e6250p+1", "-0x1.7a4c54p+2", "0x1.8eb774p+2", "-0x1.381f46p+1"))),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field: width in bits, signedness, unit for the reference page, and the enumeration of its values."""

    name: str
    bits: int
    signed: bool = False
    unit: str = ""
    values: type[enum.IntEnum] | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, (1 << self.bits) - 1)


@dataclass(frozen=True)
class Spec:
    """One instruction: opcode, queues that take it, fields, and its page (action, notes)."""

    name: str
    opcode: int
    queues: tuple[Queue, ...]
    fields: tuple[Field, ...]
    action: str
    notes: str = ""

    @cached_property
    def words(self) -> int:
        """Length in 64-bit words."""
        return -(-(HEADER_BITS + sum(f.bits for f in self.fields)) // 64)

    @cached_property
    def layout(self) -> dict[str, tuple[int, int, int, int]]:
        """First bit, smallest and largest value, and mask of each field."""
        return {name: (at, *item.range, (1 << item.bits) - 1) for name, (at, item) in self.positions.items()}

    @cached_property
    def positions(self) -> dict[str, tuple[int, Field]]:
        """First bit of each field."""
        found, at = {}, HEADER_BITS
        for item in self.fields:
            found[item.name] = (at, item)
            at += item.bits
        return found


def _sram(name: str) -> tuple[Field, ...]:
    """An SRAM address, optionally plus an address register (0: none, n: register n - 1)."""
    return Field(name, 26, unit="B"), Field(f"{name}_reg", 6, unit="register + 1")


def _dram(name: str) -> tuple[Field, ...]:
    """A DRAM address: region, offset, optional address register."""
    return (Field(f"{name}_region", 3), Field(name, 36, unit="B"), Field(f"{name}_reg", 6, unit="register + 1"))


def _dims(*sides: str, first: int = 1, last: int = 3) -> tuple[Field, ...]:
    """Counts and signed byte strides of dimensions, innermost first."""
    found = []
    for number in range(first, last + 1):
        found.append(Field(f"n{number}", 24, unit="count"))
        found += [Field(f"{side}_s{number}", 32, True, "B") for side in sides]
    return tuple(found)


def _requant(prefix: str = "") -> tuple[Field, ...]:
    return Field(f"{prefix}multiplier", 32, True), Field(f"{prefix}shift", 6)


_TYPE = {"bits": 3, "values": Type}
_ROUND = Field("rounding", 3, values=Round)
_CLAMP = (Field("lo", 32, True, "value, or f32 bits"), Field("hi", 32, True, "value, or f32 bits"))


def _type(name: str) -> Field:
    return Field(name, 3, values=Type)


#: i4 weights lie two to a byte, the first in the low half; every row of them starts on a byte.
_WEIGHTS = Field("w_type", 4, values=Type)
_WINDOW = (
    *_sram("x_addr"), Field("x_row_stride", 26, unit="B"), Field("x_pix_stride", 24, unit="B"), Field("ih", 16), Field("iw", 16),
    Field("ic", 16), Field("kh", 12), Field("kw", 12), Field("stride_h", 8), Field("stride_w", 8), Field("dil_h", 8),
    Field("dil_w", 8), Field("pad_top", 12, True), Field("pad_left", 12, True), Field("x_zp", 16, True), _type("x_type"),
    Field("oh", 16), Field("ow", 16),
)  # fmt: skip
_ACC = (Field("acc_addr", 24, unit="B"), Field("accumulate", 1))
LOADS = (Queue.LD0, Queue.LD1, Queue.LD2)
ANY = tuple(Queue)

SPECS: tuple[Spec, ...] = (
    Spec(
        "LD", 1, LOADS,
        (*_dram("src"), *_sram("dst"), Field("row_bytes", 26, unit="B"), *_dims("src", "dst"),
         Field("pad1_before", 12), Field("pad1_after", 12), Field("pad2_before", 12), Field("pad2_after", 12),
         Field("pad_value", 32), Field("elem_bytes", 4), Field("transpose", 1), Field("decode", 1), Field("multicast", 8),
         Field("decoded_bytes", 26, unit="B")),
        "Copies n3 x n2 x n1 rows of row_bytes from DRAM to SRAM. Padding rows (dimensions 1 and 2) are filled with pad_value, "
        "repeated per element of elem_bytes; they lie before and after the copied rows at the same destination stride. "
        "transpose swaps elements with dimension 1 (rows of elements become columns). decode expands the zb1 stream of row_bytes "
        "bytes, one row, to decoded_bytes.",
        "A count of 0 is read as 1. multicast names the cores that receive the data as well.",
    ),
    Spec(
        "ST", 2, (Queue.ST,),
        (*_sram("src"), *_dram("dst"), Field("row_bytes", 26, unit="B"), *_dims("src", "dst"), Field("accumulate", 1)),
        "Copies n3 x n2 x n1 rows of row_bytes from SRAM to DRAM. accumulate adds i32 elements to what is there.",
    ),
    Spec(
        "FILL", 3, LOADS,
        (*_sram("dst"), Field("size", 26, unit="B"), Field("value", 32), Field("elem_bytes", 4)),
        "Fills size bytes with value, repeated per element.",
    ),
    Spec(
        "MMA_CONV", 8, (Queue.MMA,),
        (*_WINDOW, *_sram("w_addr"), Field("w_zp", 8, True), _WEIGHTS, Field("oc", 16), *_ACC),
        "acc[p, q, o] (+)= sum over (i, j, c) of (x[p*stride_h + i*dil_h - pad_top, q*stride_w + j*dil_w - pad_left, c] - x_zp) * "
        "(w[o, i, j, c] - w_zp). Taps outside [0, ih) x [0, iw) contribute zero. Weights lie as [oc][kh][kw][ic].",
        "Types i8 x i8 or i4 -> i32, i16 x i8 -> i64 cells that hold 48 bits, f16 and bf16 -> f32 in the order i, j, c. acc is dense "
        "[oh][ow][oc]. An i32 sum that overflows stops the simulator.",
    ),
    Spec(
        "MMA_DW", 9, (Queue.MMA,),
        (*_WINDOW, *_sram("w_addr"), Field("w_tap_stride", 24, unit="B"), _WEIGHTS, *_ACC),
        "acc[p, q, c] (+)= sum over (i, j) of (x[..., c] - x_zp) * w[i, j, c]: one filter per channel; ic channels. Tap (i, j) "
        "lies at w_addr + (i*kw + j)*w_tap_stride.",
    ),
    Spec(
        "MMA_MATMUL", 10, (Queue.MMA,),
        (*_sram("a_addr"), *_sram("b_addr"), Field("m", 20), Field("n", 20), Field("k", 20), Field("batch", 16),
         Field("a_stride", 26, unit="B"), Field("b_stride", 26, unit="B"), Field("a_batch_stride", 26, unit="B"),
         Field("b_batch_stride", 26, unit="B"), Field("b_kn", 1), Field("a_zp", 16, True), Field("b_zp", 16, True),
         _type("x_type"), _WEIGHTS, *_ACC),
        "acc[b, i, j] (+)= sum over k of (a[b, i, k] - a_zp) * (B[b, j, k] - b_zp), with B stored [N, K], or [K, N] when b_kn.",
    ),
    Spec(
        "EPI", 12, (Queue.MMA,),
        (Field("acc_addr", 24, unit="B"), Field("oh", 16), Field("ow", 16), Field("oc", 16), _type("x_type"), *_sram("out_addr"),
         Field("out_row_stride", 26, unit="B"), Field("out_pix_stride", 24, unit="B"), _type("out_type"),
         Field("bias", 1), *_sram("bias_addr"), Field("per_channel", 1), *_sram("multiplier_addr"), *_sram("shift_addr"),
         Field("per_row", 1), *_sram("row_multiplier_addr"), *_sram("row_shift_addr"), *_requant(), _ROUND, Field("requant", 1), Field("zp", 16, True), *_CLAMP, Field("activation", 2, values=Activation),
         *_sram("lut_addr"), Field("slope", 32, True, "multiplier, or f32 bits"), Field("slope_shift", 6), Field("residual", 1), *_sram("res_addr"),
         Field("res_row_stride", 26, unit="B"), Field("res_pix_stride", 24, unit="B"), _type("res_type"),
         Field("res_zp", 16, True), *_requant("res_"), Field("pool", 2, values=Pool)),
        "Drains acc[oh][ow][oc]. Integers: y = clamp(zp + act(R(acc + bias)) + R1(res - res_zp), lo, hi), then the 256-entry table "
        "when activation is LUT (i8). Floats: y = round(clamp(act(acc + bias) + res, lo, hi)). LEAKY multiplies negative values: "
        "integers act(r) = Rs(r * slope, slope_shift). pool: 2x2 windows of stride 2 of the results before they are written.",
        "The scale of R: multiplier and shift; with per_channel entry o of a table (i32 multipliers, u8 shifts); with per_row entry "
        "p*ow + q of a table of the same form (a row of a matrix product); with both one scale for their product: the multiplier "
        "round(q_row * q_channel / 2^b) and the shift s_row + s_channel - b, b = 31 (15 for cells of 48 bits), or, where that "
        "multiplier is below 2^(b-1), the same with b - 1; halves round up; a shift outside 1..62 stops the simulator. Rounding F32: "
        "multipliers are f32 bits, their product is rounded once.",
    ),
    Spec(
        "VBIN", 16, (Queue.VEC,),
        (Field("function", 4, values=Binary), *_sram("a_addr"), *_sram("b_addr"), *_sram("out_addr"), *_sram("cond_addr"),
         _type("a_type"), _type("b_type"), _type("out_type"), *_dims("a", "b", "out", "cond", first=0), Field("a_zp", 16, True), Field("b_zp", 16, True),
         Field("out_zp", 16, True), Field("rescale", 1), *_requant("a_"), *_requant("b_"), *_requant("out_"), _ROUND, *_CLAMP),
        "Elementwise over four dimensions, strides in elements, 0 broadcasts. rescale, add and sub: clamp(out_zp + Ro(Ra(a - a_zp) "
        "+- Rb(b - b_zp))); mul: clamp(out_zp + Ro((a - a_zp) * (b - b_zp))). select: cond is of bytes, a where it is not 0, else b, "
        "with rescale clamp(out_zp + Ro(Ra(a - a_zp))) or the same of b; no other function reads cond. Without rescale the function "
        "applies to the plain numbers. Floats compute in f32 and round once.",
    ),
    Spec(
        "VUN", 17, (Queue.VEC,),
        (Field("function", 4, values=Unary), *_sram("a_addr"), *_sram("out_addr"), _type("a_type"), _type("out_type"),
         Field("count", 26), Field("a_zp", 16, True), Field("out_zp", 16, True), Field("rescale", 1), *_requant("out_"), _ROUND,
         *_CLAMP),
        "Elementwise over count contiguous elements. CAST, NEG, ABS and CLZ with rescale: clamp(out_zp + R(f(a) - a_zp)). f16 results are correctly "
        "rounded.",
        "f32 results of EXP2, RCP and RSQRT are within 1 ulp and these sequences of fused multiply-adds, P(x) by Horner's rule with "
        "the coefficients of the table of polynomials. EXP2: n = a rounded to even, P(a - n) * 2^n. RCP: a = m * 2^e with m in "
        "[1/2, 1); y = P(m); three times y = fma(y, fma(-m, y, 1), y); y * 2^-e. RSQRT: a = m * 2^e with e even and m in [1/4, 1); "
        "y = P(m); three times t = m * y, d = fma(m, y, -t), y = fma(y / 2, fma(-d, y, fma(-t, y, 1)), y); y * 2^(-e/2). The last "
        "scaling rounds once where the result is subnormal.",
    ),
    Spec(
        "VLUT", 18, (Queue.VEC,),
        (*_sram("a_addr"), *_sram("table_addr"), *_sram("out_addr"), _type("a_type"), _type("out_type"), Field("count", 26)),
        "Table look-up: i8 -> i8 or i16 with 256 entries; i16 -> i16 with 513 entries and linear interpolation, rounded half up.",
    ),
    Spec(
        "VRED", 19, (Queue.VEC,),
        (Field("function", 3, values=Reduce), *_sram("x_addr"), *_sram("out_addr"), _type("type"), _type("out_type"),
         Field("n", 24), Field("n_stride", 26), Field("m", 24), Field("m_stride", 26), Field("x_zp", 16, True),
         Field("out_zp", 16, True), Field("rescale", 1), *_requant(), _ROUND, *_CLAMP),
        "out[j] = reduction over i < n of x[i*n_stride + j*m_stride] for j < m (strides in elements), wide accumulators, i "
        "ascending; SUM, SUMSQ and ABSMAX take x - x_zp. With rescale: clamp(out_zp + R(reduction)).",
    ),
    Spec(
        "VPOOL", 20, (Queue.VEC,),
        (Field("function", 2, values=Pool), *_WINDOW, *_sram("out_addr"), Field("out_row_stride", 26, unit="B"),
         Field("out_pix_stride", 24, unit="B"), Field("out_zp", 16, True), *_requant(), Field("entries", 16), *_sram("table_addr"),
         _ROUND, *_CLAMP),
        "Windows over [ih][iw][ic], channels innermost. MAX ignores padding. AVG: clamp(out_zp + R(sum of (x - x_zp))); with "
        "entries > 0 multiplier and shift come from a table of i32 multipliers followed by i32 shifts, by the number of "
        "elements inside the image.",
    ),
    Spec(
        "VRSZ", 21, (Queue.VEC,),
        (*_sram("x_addr"), Field("x_row_stride", 26, unit="B"), Field("x_pix_stride", 24, unit="B"), Field("ih", 16),
         Field("iw", 16), Field("c", 16), _type("type"), *_sram("out_addr"), Field("out_row_stride", 26, unit="B"),
         Field("out_pix_stride", 24, unit="B"), Field("oh", 16), Field("ow", 16), Field("row_base", 16), Field("nearest", 1),
         *_sram("row_table"), *_sram("col_table"), Field("x_zp", 16, True), Field("out_zp", 16, True), *_requant(), _ROUND,
         *_CLAMP),
        "Resampling. Each output row and column has a table entry of four i16: lower index, upper index, weight of the upper one "
        "(11 fractional bits), 0. Row indices count from row_base. acc = sum of (x - x_zp) * wy * wx (22 bits); "
        "y = clamp(out_zp + R(acc)). nearest: y = x[lower, lower].",
        "Tables hold any coordinate rule, TOSA RESIZE's among them.",
    ),
    Spec(
        "VTR", 22, (Queue.VEC,),
        (*_sram("x_addr"), *_sram("out_addr"), Field("elem_bytes", 4), *_dims("x", "out", first=0)),
        "Copies elements of 1, 2 or 4 bytes over four dimensions with independent byte strides: any permutation.",
    ),
    Spec("SET", 32, (Queue.CTL,), (Field("reg", 5), Field("value", 36)), "Address register reg = value."),
    Spec("ADDA", 33, (Queue.CTL,), (Field("reg", 5), Field("delta", 36, True)), "Address register reg += delta."),
    Spec("REP", 34, (Queue.CTL,), (Field("count", 24),), "Repeats up to the matching ENDR; nests three deep."),
    Spec("ENDR", 35, (Queue.CTL,), (), "End of a loop."),
    Spec("WAIT", 36, ANY, (), "Waits as its header says."),
    Spec("POST", 37, ANY, (), "Posts as its header says, when all earlier instructions of its queue are complete."),
    Spec("BAR", 38, (Queue.CTL,), (Field("cores", 8),), "Waits until every named core is at its barrier with empty queues."),
    Spec("CALLC", 39, (Queue.CTL,), (Field("id", 16), Field("bytes_in", 32), Field("bytes_out", 32)),
         "Yields to a host operator; the bytes count as DRAM traffic."),
    Spec("PROF", 40, ANY, (Field("id", 32),), "A marker in the trace."),
    Spec("END", 41, (Queue.CTL,), (), "End of the program."),
)  # fmt: skip
BY_NAME: Mapping[str, Spec] = {s.name: s for s in SPECS}
BY_OPCODE: Mapping[int, Spec] = {s.opcode: s for s in SPECS}
