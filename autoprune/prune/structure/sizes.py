"""Integers that remember the axis whose size they are.

A forward computes sizes for its reshapes from the shapes of tensors and from numbers that modules keep (`num_heads`,
`head_dim`, ...). During a trace both are `Size`s. When one arrives in an operator as the size of a dimension, its axis
and the axis of that dimension must be the same; so the algebra learns which axis each number of a module refers to, and
its value in a smaller network. A plain integer that arrives there is a size written into the forward: that axis cannot
change, and is frozen with the line as the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autoprune.prune.passes.watch import line_of_model
from autoprune.prune.structure.axes import (
    Atom,
    Axis,
    Product,
    concatenate,
    cut_axis,
    factor,
    freeze,
    nest,
    resolve,
    size,
    symbolic_size,
    unify,
)

NumberKey = tuple[str, str]  # a module and the path of a number in it: "num_heads", "normalized_shape[0]"


@dataclass(frozen=True)
class Length:
    """The requested size of a dimension."""

    axis: Axis


@dataclass(frozen=True)
class Kept:
    """A number that a module keeps."""

    key: NumberKey


@dataclass(frozen=True)
class Combined:
    """Two sizes and the operator that combined them."""

    operator: str
    left: int
    right: int


class Size(int):
    """An int with an origin. Sums, differences, products and quotients keep it; all other results are plain numbers."""

    origin: Length | Kept | Combined
    sizes: Sizes

    def __new__(cls, value: int, origin: Length | Kept | Combined, sizes: Sizes) -> Size:
        self = super().__new__(cls, value)
        self.origin, self.sizes = origin, sizes
        return self

    def _combine(self, operator: str, left: int, right: Any, compute: Callable[[int, int], int]) -> Any:
        if not isinstance(right, int) or not isinstance(left, int):
            return NotImplemented
        return Size(compute(int(left), int(right)), Combined(operator, left, right), self.sizes)

    def __mul__(self, other: Any) -> Any:
        return self._combine("*", self, other, int.__mul__)

    def __rmul__(self, other: Any) -> Any:
        return self._combine("*", other, self, int.__mul__)

    def __add__(self, other: Any) -> Any:
        return self._combine("+", self, other, int.__add__)

    def __radd__(self, other: Any) -> Any:
        return self._combine("+", other, self, int.__add__)

    def __sub__(self, other: Any) -> Any:
        return self._combine("-", self, other, int.__sub__)

    def __rsub__(self, other: Any) -> Any:
        return self._combine("-", other, self, int.__sub__)

    def __floordiv__(self, other: Any) -> Any:
        return self._combine("//", self, other, int.__floordiv__)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine("//", other, self, int.__floordiv__)

    def __pow__(self, other: Any, *rest: Any) -> Any:
        return self.sizes.as_number(self).__pow__(other, *rest)

    def __truediv__(self, other: Any) -> Any:
        return self.sizes.as_number(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.sizes.as_number(self)

    def __float__(self) -> float:
        return float(self.sizes.as_number(self))

    def __neg__(self) -> Any:
        return Size(-int(self), Combined("-", 0, self), self.sizes)

    def __pos__(self) -> Size:
        return self

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Size) and int(self) == int(other):
            self.sizes.compared(self, other)
        return int(self) == other

    def __ne__(self, other: object) -> Any:
        if isinstance(other, Size) and int(self) == int(other):
            self.sizes.compared(self, other)
        return int(self) != other

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __reduce__(self) -> Any:  # stored and copied as a plain int
        return int, (int(self),)


@dataclass
class Sizes:
    """The axes of the numbers that modules keep."""

    kept: dict[NumberKey, Axis] = field(default_factory=dict)
    numbers: dict[NumberKey, str] = field(default_factory=dict)  # numbers used in other computations, with the line

    def length(self, axis: Axis, length: int) -> Size:
        return Size(length, Length(axis), self)

    def keep(self, key: NumberKey, value: int) -> Size:
        return Size(value, Kept(key), self)

    def axis(self, value: int, where: str) -> Axis:
        """The axis whose size an integer is; a plain integer is the size of a frozen one."""
        if not isinstance(value, Size) or value <= 0:
            return Atom(int(value), f"{where} has the fixed size {int(value)}")
        origin = value.origin
        if isinstance(origin, Length):
            return origin.axis
        if isinstance(origin, Kept):
            return self.kept.setdefault(origin.key, Atom(int(value)))
        return self._combined(origin, where)

    def require(self, value: int, axis: Axis, where: str) -> None:
        """Records that an axis has the size that a forward computed, so that its operands change with the axis.

        Two axes that are known to have equal sizes, such as the two sides of a shuffle, need not be the same.
        """
        if size(axis) != 1:
            given = self.axis(value, where)
            if symbolic_size(given) != symbolic_size(axis):
                unify(given, axis, where)

    def compared(self, left: Size, right: Size) -> None:
        """Records that a module's number was found equal to a length, as in sanity checks: it must stay equal."""
        for number, length in ((left, right), (right, left)):
            if isinstance(number.origin, Kept) and isinstance(length.origin, Length):
                self.require(number, length.origin.axis, "a comparison")

    def as_number(self, value: Size) -> int:
        """A plain int, for a size used in another computation, which another size would change."""
        where = f"{line_of_model()} computes with its size"
        if isinstance(value.origin, Kept):
            self.numbers.setdefault(value.origin.key, where)
        else:
            freeze(self.axis(value, where), where)
        return int(value)

    def settle(self) -> None:
        """Freezes the axes of numbers that were used in other computations."""
        for key, where in self.numbers.items():
            if key in self.kept:
                freeze(self.kept[key], where)

    def _combined(self, origin: Combined, where: str) -> Axis:
        left, right = int(origin.left), int(origin.right)
        if origin.operator == "*":
            return nest((self.axis(origin.left, where), self.axis(origin.right, where)))
        if origin.operator == "+":
            return concatenate((self.axis(origin.left, where), self.axis(origin.right, where)))
        whole = self.axis(origin.left, where)
        if origin.operator == "-" and 0 < right < left:
            first, rest = cut_axis(whole, [0, right, left], where)
            unify(first, self.axis(origin.right, where), where)
            return rest
        if origin.operator == "//" and 0 < right <= left and left % right == 0:
            return self._quotient(whole, self.axis(origin.right, where), where)
        reason = f"{where} computes a size as {left} {origin.operator} {right}"
        freeze(whole, reason)
        freeze(self.axis(origin.right, where), reason)
        return Atom(left - right if origin.operator == "-" else left // max(right, 1), reason)

    def _quotient(self, whole: Axis, divisor: Axis, where: str) -> Axis:
        """The rest of an axis after dividing off a factor, the innermost one if it has that size."""
        whole, count = resolve(whole), size(divisor)
        if _ends_in(whole, count):
            outer, inner = factor(whole, size(whole) // count, where)
            unify(inner, divisor, where)
            return outer
        outer, inner = factor(whole, count, where)
        unify(outer, divisor, where)
        return inner


def _ends_in(axis: Axis, count: int) -> bool:
    return isinstance(axis, Product) and not _starts_with(axis, count) and size(axis.factors[-1]) == count


def _starts_with(axis: Product, count: int) -> bool:
    return size(axis.factors[0]) == count
