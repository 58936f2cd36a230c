"""The arithmetic of an operator of examples/matrix_free, counted from its algorithm."""

from __future__ import annotations


def instructions(degree: int, physics: str) -> int:
    """Return the additions, multiplications and multiply-adds (one each) of one element; a division counts as one."""
    n, q = degree + 1, degree + 2
    there, back = _product(q, n, 1), _product(n, q, 1)
    first_two = (there + back) * (n * n + q * n)
    if physics == "Mass":
        # Along each line: the map 33, four cross products 24; at each point: det 2, its factor and that of u 2.
        return first_two + q * q * (there + back + 57) + 4 * q**3
    slopes = _product(q, n, -1) + _product(n, q, -1) + n
    derive = _product(q, q, -1) + _product(q, q, -1) + q
    # Along each line besides: rows B and C 24; at each point: rows 12, det 2, gradient 9 + 3, division, products 9.
    return first_two + q * q * (there + back + slopes + 2 * derive + 81) + 36 * q**3


def _product(rows: int, columns: int, sign: int) -> int:
    """Return the instructions of one product in its even-odd form."""
    pairs, evens = columns // 2, (columns + 1) // 2
    middle = (evens if sign > 0 else pairs) if rows % 2 else 0
    return 2 * pairs + rows // 2 * (evens + pairs + 2) + middle
