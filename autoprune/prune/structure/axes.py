"""Axis algebra: what the dimensions of tensors are made of, and how two of them turn out to be the same.

Every dimension has an axis: an `Atom` of n positions, a `Sum` (concatenation) of axes, or a `Product` (row-major) of
axes. Relating two dimensions is unification: an atom takes the shape of anything; sums are cut at the union of their
boundaries; products are split by common factors; a sum meets a product by distributing where the boundaries allow it.
What cannot be related is frozen on both sides with the reason, which is always sound: a frozen position stays.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autoprune.core.unit import Span


@dataclass(eq=False)
class Atom:
    """n positions that are not known to consist of smaller parts.

    `frozen` is the reason why all must stay, or empty. `binding` is the axis that the atom was found to equal.
    """

    size: int
    frozen: str = ""
    binding: Axis | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """A concatenation of axes."""

    parts: tuple[Axis, ...]


@dataclass(frozen=True, eq=False)
class Product:
    """Nested axes, the first one outermost: index = (i0 * n1 + i1) * n2 + i2 ..."""

    factors: tuple[Axis, ...]


Axis = Atom | Sum | Product
PIECES = 64  # most pieces that an axis may fall into where it is related with itself, moved by some positions


def one() -> Atom:
    """The axis of a dimension of size 1."""
    return Atom(1, "size 1")


def fresh(sizes: Sequence[int], reason: str) -> tuple[Axis, ...]:
    """New frozen axes of the given sizes."""
    return tuple(Atom(n, reason) for n in sizes)


def size(axis: Axis) -> int:
    """The number of positions."""
    if isinstance(axis, Sum):
        return sum(size(part) for part in axis.parts)
    if isinstance(axis, Product):
        return math.prod(size(factor) for factor in axis.factors)
    return axis.size


def concatenate(parts: Sequence[Axis]) -> Axis:
    """The sum of axes; nested sums are flattened, empty parts dropped."""
    flat: list[Axis] = []
    for part in map(resolve, parts):
        flat.extend(part.parts if isinstance(part, Sum) else [part])
    flat = [part for part in flat if size(part)]
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def nest(factors: Sequence[Axis]) -> Axis:
    """The row-major product of axes; nested products are flattened, factors of size 1 dropped."""
    flat: list[Axis] = []
    for factor in map(resolve, factors):
        flat.extend(factor.factors if isinstance(factor, Product) else [factor])
    flat = [factor for factor in flat if size(factor) != 1]
    if not flat:
        return one()
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def resolve(axis: Axis) -> Axis:
    """The present form of an axis, with bindings followed, flattened one level."""
    bound: list[Atom] = []
    while isinstance(axis, Atom) and axis.binding is not None:
        bound.append(axis)
        axis = axis.binding
    if isinstance(axis, Sum):
        axis = concatenate(axis.parts)
    elif isinstance(axis, Product):
        axis = nest(axis.factors)
    for atom in bound:  # the next resolution is one step
        atom.binding = axis
    return axis


def leaves(axis: Axis) -> Iterator[Atom]:
    """The atoms of an axis, in order."""
    axis = resolve(axis)
    if isinstance(axis, Atom):
        yield axis
        return
    for part in axis.parts if isinstance(axis, Sum) else axis.factors:
        yield from leaves(part)


def symbolic_size(axis: Axis) -> dict[tuple[int, ...], int]:
    """The size as a polynomial in the sizes of prunable atoms: products of their ids -> coefficient."""
    axis = resolve(axis)
    if isinstance(axis, Atom):
        return {(): axis.size} if axis.frozen else {(id(axis),): 1}
    if isinstance(axis, Sum):
        return _added_up(pair for part in axis.parts for pair in symbolic_size(part).items())
    total: dict[tuple[int, ...], int] = {(): 1}
    for part in axis.factors:
        sizes = symbolic_size(part).items()
        total = _added_up((tuple(sorted(a + b)), m * n) for a, m in total.items() for b, n in sizes)
    return total


def _added_up(terms: Iterable[tuple[tuple[int, ...], int]]) -> dict[tuple[int, ...], int]:
    total: dict[tuple[int, ...], int] = {}
    for atoms, count in terms:
        total[atoms] = total.get(atoms, 0) + count
    return total


def freeze(axis: Axis, reason: str) -> None:
    """Freezes every position of an axis; the first reason given is kept."""
    for atom in leaves(axis):
        atom.frozen = atom.frozen or reason


def unify(left: Axis, right: Axis, where: str) -> None:
    """Identifies two axes of equal size, position by position; freezes both if that cannot be expressed."""
    left, right = resolve(left), resolve(right)
    if left is right:
        return
    if size(left) != size(right):
        _give_up((left, right), f"{where} relates axes of {size(left)} and {size(right)} positions")
    elif isinstance(left, Atom):
        _bind(left, right, where)
    elif isinstance(right, Atom):
        _bind(right, left, where)
    elif isinstance(left, Sum) and isinstance(right, Sum):
        _unify_sums(left, right, where)
    elif isinstance(left, Product):
        _unify_product(left, right, where)
    elif isinstance(right, Product):
        _unify_product(right, left, where)


def cut_axis(axis: Axis, boundaries: Sequence[int], where: str) -> list[Axis]:
    """The consecutive pieces of an axis between boundaries 0 = b0 < b1 < ... < bk = its size."""
    axis = resolve(axis)
    if len(boundaries) == 2:
        return [axis]
    lengths = [end - start for start, end in itertools.pairwise(boundaries)]
    if isinstance(axis, Atom):
        pieces: list[Axis] = [Atom(length, axis.frozen) for length in lengths]
        if not axis.frozen:  # of positions that all stay nothing else is known: a long axis would fall into single ones
            axis.binding = Sum(tuple(pieces))
        return pieces
    if isinstance(axis, Sum):
        return _cut_sum(axis, boundaries, where)
    outer, inner = axis.factors[0], nest(axis.factors[1:])
    step = size(inner)
    if any(boundary % step for boundary in boundaries):
        _give_up((axis,), f"{where} cuts through blocks of {step} positions")
        return [Atom(length, f"{where} cuts through blocks of {step} positions") for length in lengths]
    return [nest((piece, inner)) for piece in cut_axis(outer, [boundary // step for boundary in boundaries], where)]


def factor(axis: Axis, outer: int, where: str) -> tuple[Axis, Axis]:
    """The axes (a, b) with axis = a x b row-major and `outer` positions in a; `outer` must divide the size."""
    axis = resolve(axis)
    inner = size(axis) // outer
    if inner == 1:
        return axis, one()
    if outer == 1:
        return one(), axis
    if isinstance(axis, Atom):
        pair = Atom(outer, axis.frozen), Atom(inner, axis.frozen)
        if not axis.frozen:
            axis.binding = Product(pair)
        return pair
    return _factor_sum(axis, outer, where) if isinstance(axis, Sum) else _factor_product(axis, outer, where)


def spans(axis: Axis) -> list[tuple[Atom, Span]]:
    """The location of each atom's positions along an axis."""
    return list(_walk(axis, Span()))


def _walk(axis: Axis, span: Span) -> Iterator[tuple[Atom, Span]]:
    axis = resolve(axis)
    if isinstance(axis, Atom):
        yield axis, span
    elif isinstance(axis, Sum):
        offset = span.offset
        for part in axis.parts:
            yield from _walk(part, Span(offset, span.inner, span.repeats))
            offset += size(part) * span.inner
    else:
        repeats = span.repeats
        for index, part in enumerate(axis.factors):
            inner = span.inner * math.prod(size(f) for f in axis.factors[index + 1 :])
            yield from _walk(part, Span(span.offset, inner, repeats))
            repeats = (*repeats, (size(part), inner))


def _bind(atom: Atom, axis: Axis, where: str) -> None:
    if isinstance(axis, Atom):
        axis.frozen = axis.frozen or atom.frozen
    elif any(leaf is atom for leaf in leaves(axis)):
        _give_up((axis,), f"{where} relates an axis with a part of itself")
        return
    elif atom.frozen:
        freeze(axis, atom.frozen)
    atom.binding = axis


def _unify_sums(left: Sum, right: Sum, where: str) -> None:
    if _is_near_itself(left, right):
        _give_up((left, right), f"{where} relates an axis with itself, moved by a few positions")
        return
    ends = set(itertools.accumulate(map(size, left.parts))) | set(itertools.accumulate(map(size, right.parts)))
    boundaries = [0, *sorted(ends)]
    pieces = zip(_cut_sum(left, boundaries, where), _cut_sum(right, boundaries, where), strict=True)
    for a, b in pieces:
        unify(a, b, where)


def _is_near_itself(left: Sum, right: Sum) -> bool:
    """Whether both have a part in common, moved by so little that relating them would cut it into too many pieces."""
    begins = {_key(part): begin for part, begin in _begins(left)}
    return any(0 < PIECES * abs(begin - begins.get(_key(part), begin)) < size(part) for part, begin in _begins(right))


def _begins(axis: Sum) -> Iterator[tuple[Axis, int]]:
    """The parts of an axis, each with the position where it begins."""
    return zip(axis.parts, itertools.accumulate(map(size, axis.parts), initial=0), strict=False)


def _key(axis: Axis) -> tuple[int, ...]:
    """The same for parts that are the same; products are made anew whenever an axis is resolved."""
    return tuple(map(id, axis.factors)) if isinstance(axis, Product) else (id(axis),)


def _unify_product(product: Product, other: Axis, where: str) -> None:
    """Splits the common outer factor off both sides and relates the rest."""
    first, rest = product.factors[0], nest(product.factors[1:])
    head = size(other.factors[0]) if isinstance(other, Product) else size(first)
    outer = math.gcd(size(first), head)
    if outer == 1 or outer not in (size(first), head):
        _give_up((product, other), f"{where} relates blocks of {size(first)} and {head} positions")
        return
    a, b = factor(first, outer, where)
    c, d = factor(other, outer, where)
    unify(a, c, where)
    unify(nest((b, rest)), d, where)


def _cut_sum(axis: Sum, boundaries: Sequence[int], where: str) -> list[Axis]:
    pieces: list[Axis] = []
    start = 0
    for part in axis.parts:
        end = start + size(part)
        inside = [b - start for b in boundaries[bisect_right(boundaries, start) : bisect_left(boundaries, end)]]
        pieces += cut_axis(part, [0, *inside, end - start], where)
        start = end
    # parts without a boundary between them form one piece
    grouped: list[list[Axis]] = [[] for _ in boundaries[1:]]
    index = position = 0
    for piece in pieces:
        while position >= boundaries[index + 1]:
            index += 1
        grouped[index].append(piece)
        position += size(piece)
    return [concatenate(group) for group in grouped]


def _factor_sum(axis: Sum, outer: int, where: str) -> tuple[Axis, Axis]:
    inner = size(axis) // outer
    pairs: list[tuple[Axis, Axis]] = []
    parts: list[Axis] = []
    for part in axis.parts:
        parts.append(part)
        length = sum(map(size, parts))
        if length % inner == 0:  # whole blocks; several parts only if they form one block together
            if len(parts) > 1 and length > inner:
                return _unfactorable(axis, outer, where)
            pairs.append(factor(concatenate(parts), length // inner, where))
            parts = []
    for _, block in pairs[1:]:
        unify(pairs[0][1], block, where)
    return concatenate([head for head, _ in pairs]), pairs[0][1]


def _factor_product(axis: Product, outer: int, where: str) -> tuple[Axis, Axis]:
    taken: list[Axis] = []
    rest = list(axis.factors)
    while outer > 1:
        head = size(rest[0])
        if outer % head == 0:
            taken.append(rest.pop(0))
            outer //= head
        elif head % outer == 0:
            first, second = factor(rest.pop(0), outer, where)
            taken.append(first)
            rest.insert(0, second)
            outer = 1
        else:
            return _unfactorable(axis, math.prod(map(size, taken)) * outer, where)
    return nest(taken), nest(rest)


def _unfactorable(axis: Axis, outer: int, where: str) -> tuple[Axis, Axis]:
    reason = f"{where} splits {size(axis)} positions into {outer} blocks across their parts"
    _give_up((axis,), reason)
    return Atom(outer, reason), Atom(size(axis) // outer, reason)


def _give_up(axes: Sequence[Axis], reason: str) -> None:
    for axis in axes:
        freeze(axis, reason)
