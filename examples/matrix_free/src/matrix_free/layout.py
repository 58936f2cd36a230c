"""How the operator sees a mesh: unknowns numbered, elements in batches, batches in chunks that threads compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .mesh import Ints, Mesh


@dataclass(frozen=True)
class Layout:
    """The elements of a mesh in the order of their computation, and numbers for the unknowns.

    Those inside of elements come first, those that elements share next, those on the boundary last; each group in the
    order of its first use.

    Attributes:
        order: [elements], the element of the mesh that is computed at each place.
        starts: [elements, blocks], the first unknown of each block of nodes, in the order of computation.
        chunks: int32 [chunks, 4]: first batch, elements, first and last + 1 of the shared unknowns that it is the first
            to use.
        colours: int32 [colours + 1]: where the chunks begin that may be computed at the same time.
        unknowns: their number.
        inner: the number of those that are not on the boundary.
    """

    order: Ints
    starts: Ints
    chunks: NDArray[np.int32]
    colours: NDArray[np.int32]
    unknowns: int
    inner: int


@lru_cache(maxsize=4)
def layout(mesh: Mesh, degree: int, lanes: int, threads: int) -> Layout:
    """Return the layout for elements of a degree, `lanes` elements in a batch, and so many threads.

    Elements of two chunks of one colour share no unknown, so the result does not depend on who computes when.
    """
    edges, colour_of = min(
        (_colouring(mesh, lanes, parts) for parts in _candidates(mesh, lanes, threads)),
        key=lambda found: _time(found[0], found[1], threads),
    )
    rank = np.argsort(colour_of, kind="stable")
    sizes = np.diff(edges)[rank]
    order = np.concatenate([np.arange(edges[c], edges[c + 1]) for c in rank])
    first_batch = np.concatenate([[0], np.cumsum(-(-sizes // lanes))])[:-1]

    blocks = mesh.entities[order]
    if degree == 1:  # vertices alone
        blocks = blocks[:, [a + 3 * b + 9 * c for c in (0, 2) for b in (0, 2) for a in (0, 2)]]
    inner_sizes = np.array([(degree - 1) ** sum(x == 1 for x in (m % 3, m // 3 % 3, m // 9)) for m in range(27)])
    size_of = np.ones(8, np.int64) if degree == 1 else inner_sizes
    entities, first_use, inverse = np.unique(blocks.ravel(), return_index=True, return_inverse=True)
    group = np.where(mesh.on_boundary[entities], 2, 1)
    if degree > 1:
        group[first_use % 27 == 13] = 0
    in_order = np.lexsort([first_use, group])
    begin = np.concatenate([[0], np.cumsum(size_of[first_use[in_order] % blocks.shape[1]])])
    starts_of = np.empty(len(entities), np.int64)
    starts_of[in_order] = begin[:-1]
    shared, boundary = np.searchsorted(group[in_order], [1, 2])
    uses = first_use[in_order][shared:boundary] // blocks.shape[1]
    own = begin[shared + np.searchsorted(uses, np.concatenate([[0], np.cumsum(sizes)]))]
    chunks = np.stack([first_batch, sizes, own[:-1], own[1:]], axis=1).astype(np.int32)
    colours = np.concatenate([[0], np.cumsum(np.bincount(colour_of))]).astype(np.int32)
    return Layout(
        order, starts_of[inverse.reshape(blocks.shape)], chunks, colours, int(begin[-1]), int(begin[boundary])
    )


def _candidates(mesh: Mesh, lanes: int, threads: int) -> list[int]:
    most = -(-mesh.elements // lanes)
    return sorted(
        {min(most, max(1, parts)) for n in range(6) for parts in (threads * 2**n * 2, threads * 2**n * 3)} | {1}
    )


def _colouring(mesh: Mesh, lanes: int, parts: int) -> tuple[Ints, Ints]:
    """Cut the elements into chunks of whole batches, and give chunks that share a vertex different colours."""
    batches = -(-mesh.elements // lanes)
    edges = np.unique(np.minimum(np.linspace(0, batches, parts + 1).round().astype(np.int64) * lanes, mesh.elements))
    vertices = mesh.entities[:, [0, 2, 6, 8, 18, 20, 24, 26]]
    taken = np.zeros(len(mesh.on_boundary), np.int64)
    colour_of = np.empty(len(edges) - 1, np.int64)
    for chunk, (begin, end) in enumerate(pairwise(edges)):
        own = vertices[begin:end].ravel()
        used = int(np.bitwise_or.reduce(taken[own]))
        colour_of[chunk] = (~used & (used + 1)).bit_length() - 1
        taken[own] |= 1 << int(colour_of[chunk])
    return edges, colour_of


def _time(edges: Ints, colour_of: Ints, threads: int) -> float:
    """Estimate the elements that the busiest thread computes; a colour costs as much as some elements."""
    sizes = np.diff(edges)
    rounds = -(-np.bincount(colour_of) // threads)
    return float(sizes.max() * rounds.sum() + 0.001 * sizes.sum() * len(rounds))


def batched(values: NDArray[np.generic], layout: Layout, lanes: int) -> NDArray[np.generic]:
    """Return values of elements, [elements, ...] in the order of computation, as [batches, ..., lanes].

    The last batch of a chunk may have fewer elements; its other lanes repeat the last one.
    """
    rows = []
    begin = 0
    for elements in layout.chunks[:, 1]:
        whole = -(-elements // lanes) * lanes
        rows.append(np.minimum(np.arange(begin, begin + whole), begin + elements - 1))
        begin += elements
    flat = values.reshape(len(values), -1)[np.concatenate(rows)]
    return np.ascontiguousarray(flat.reshape(-1, lanes, flat.shape[1]).transpose(0, 2, 1))


def blocks(degree: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the block of each node of an element, and the node's place in it."""
    classes = min(degree + 1, 3)
    node = np.arange(degree + 1)
    of = np.where(node == 0, 0, np.where(node == degree, classes - 1, 1))
    place = np.where((node == 0) | (node == degree), 0, node - 1)
    size = np.where((node == 0) | (node == degree), 1, degree - 1)
    k, j, i = np.meshgrid(node, node, node, indexing="ij")
    block = (of[k] * classes + of[j]) * classes + of[i]
    return block.ravel(), ((place[k] * size[j] + place[j]) * size[i] + place[i]).ravel()
