"""Shapes of query, key and value that torch's scaled_dot_product_attention takes; the last serves again."""

from __future__ import annotations

SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "2 dimensions": ((7, 32), (9, 32)),
    "3": ((4, 7, 32), (4, 9, 32)),
    "4": ((2, 4, 7, 32), (2, 4, 9, 32)),
    "5": ((2, 3, 4, 7, 32), (2, 3, 4, 9, 32)),
    "6": ((2, 1, 3, 4, 7, 32), (2, 1, 3, 4, 9, 32)),
    "values of another size": ((3, 7, 32), (3, 9, 32), (3, 9, 16)),
    "a batch of queries": ((2, 4, 7, 32), (1, 4, 9, 32)),
    "a batch of keys": ((1, 4, 7, 32), (2, 4, 9, 32)),
    "a batch of values": ((1, 4, 7, 32), (1, 4, 9, 32), (2, 4, 9, 32)),
    "one head of keys and values": ((2, 4, 7, 32), (2, 1, 9, 32)),
    "one head of keys": ((2, 4, 7, 32), (2, 1, 9, 32), (2, 4, 9, 32)),
    "one head of queries": ((2, 1, 7, 32), (2, 4, 9, 32)),
    "only values have heads": ((2, 1, 7, 32), (2, 1, 9, 32), (2, 4, 9, 32)),
    "2 and 4 dimensions": ((7, 32), (2, 4, 9, 32)),
    "4 and 3 dimensions": ((2, 4, 7, 32), (4, 9, 32)),
    "4, 2 and 3 dimensions": ((2, 4, 7, 32), (9, 32), (4, 9, 32)),
    "5 and 2 dimensions": ((2, 3, 4, 7, 32), (9, 32)),
    "batches of each": ((2, 1, 4, 7, 32), (1, 3, 4, 9, 32), (3, 1, 9, 32)),
    "no batch": ((0, 4, 7, 32), (0, 4, 9, 32)),
    "no batch of 3 dimensions": ((0, 7, 32), (0, 9, 32)),
    "no heads": ((2, 0, 7, 32), (2, 0, 9, 32)),
    "no queries": ((2, 4, 0, 32), (2, 4, 9, 32)),
    "no keys": ((2, 4, 7, 32), (2, 4, 0, 32)),
    "no keys in 2 dimensions": ((7, 32), (0, 32)),
    "no head dim": ((2, 4, 7, 0), (2, 4, 9, 0)),
    "no head dim of values": ((2, 4, 7, 32), (2, 4, 9, 32), (2, 4, 9, 0)),
    "no second batch": ((2, 0, 4, 7, 32), (2, 0, 4, 9, 32)),
}
