"""Whether a row's bits depend on what is computed beside it: one set of sequences, computed in many arrangements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from support.attention_configs import Array

# (q, cache, variant=, cu_seqlens_q=, max_seqlen_q=, return_lse=True) -> (out, lse), all of them NumPy's.
Attend = Callable[..., tuple[Array, Array]]
CAUSAL = {
    "causal": at.Causal(),
    "window and soft cap": at.compose(at.Causal, at.Window(70, 0), at.SoftCap(4.0)),
    "sinks": at.compose(at.Causal, at.Sinks(np.linspace(-2, 2, 4, dtype=np.float32))),
    "alibi": at.compose(at.Causal, at.ALiBi((2.0 ** -np.arange(1, 5)).astype(np.float32))),
    "sigmoid": at.compose(at.Causal, at.FlashSigmoid(0.1, -4.0)),
}
VARIANTS = CAUSAL | {"plain": at.Plain()}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@dataclass(frozen=True)
class Piece:
    """Some queries of a sequence.

    Attributes:
        sequence: its number.
        first, last: the queries [first, last).
        keys: how many keys they see, of the first ones.
    """

    sequence: int
    first: int
    last: int
    keys: int


class Sequences:
    """Sequences of tokens, each with a query, a key and a value for each head; one has values that are not finite.

    Args:
        lengths: of the sequences. The first one has the values.
        queries: how many of the last tokens are computed.
        float8: keys and values are in 8 bits.
        head_dim, dtype, variant: a name of `DTYPES`, and of `VARIANTS`.
    """

    def __init__(
        self, lengths: list[int], head_dim: int, dtype: str, variant: str, queries: int = 2**30, float8: bool = False
    ) -> None:
        self.lengths, self.name, self.rng = lengths, variant, np.random.default_rng(0)
        self.starts = [max(0, n - queries) for n in lengths]
        self.variant: dm.BoundVariant = VARIANTS[variant]
        # Logits that grow raise the row max again and again, at other keys in each row.
        growing = [np.linspace(1, 3, n)[:, None, None] for n in lengths]
        self.tokens = [
            tuple((self.rng.standard_normal((n, heads, head_dim)) * grow).astype(DTYPES[dtype]) for heads in (4, 2, 2))
            for n, grow in zip(lengths, growing, strict=True)
        ]
        self.scales = {"k_scale": 0.5, "v_scale": 0.25} if float8 else {}
        if float8:
            self.tokens = [(q, *(x.astype(ml_dtypes.float8_e5m2) for x in kv)) for q, *kv in self.tokens]
        self.nonfinite = (self.starts[0] + lengths[0]) // 2
        self.tokens[0][2][self.nonfinite, 0, :3] = np.inf, np.nan, -np.inf

    def whole(self) -> list[Piece]:
        """Return each sequence as one piece."""
        return [Piece(b, start, n, n) for b, (start, n) in enumerate(zip(self.starts, self.lengths, strict=True))]

    def alone(self, attend: Attend) -> list[tuple[Array, Array]]:
        """Return out and lse of each sequence, computed by itself in one piece."""
        return [self._compute(attend, [piece], 16)[0] for piece in self.whole()]

    def differences(self, attend: Attend, alone: list[tuple[Array, Array]], sizes: tuple[int, ...]) -> list[str]:
        """Compute the sequences in other arrangements; return a text for each piece with other bits than alone.

        Args:
            sizes: of pages, of which each arrangement has one.
        """
        found = []
        for number, (name, pieces) in enumerate(self._arrangements()):
            size = sizes[number % len(sizes)]
            for piece, results in zip(pieces, self._compute(attend, pieces, size), strict=True):
                start = self.starts[piece.sequence]
                expected = [x[piece.first - start : piece.last - start] for x in alone[piece.sequence]]
                for what, x, y in zip(("out", "lse"), results, expected, strict=True):
                    if not same_bits(x, y):
                        found.append(f"{what} of {self.name}, {name}, pages of {size}: {piece}")
        return found

    def _arrangements(self) -> Iterator[tuple[str, list[Piece]]]:
        whole = self.whole()
        yield "in pages of another size", [whole[-1]]
        yield "together", whole
        yield "in another order", [whole[i] for i in self.rng.permutation(len(whole))]
        yield "the same sequence twice", [whole[0], whole[0], whole[-1]]
        cuts = [[p.first, *np.sort(self.rng.integers(p.first, p.last + 1, 3)), p.last] for p in whole]
        for i in range(4):
            yield f"chunk {i}", [self._piece(b, int(cut[i]), int(cut[i + 1])) for b, cut in enumerate(cuts)]
        for _ in range(3):
            yield "one token", [self._token(b) for b in range(len(self.lengths))]
        yield "one token alone", [self._token(len(self.lengths) - 1)]
        yield "before values that are not finite", [self._piece(0, self.nonfinite - 3, self.nonfinite), whole[-1]]
        chunk = self._piece(1, (self.starts[1] + 2 * self.lengths[1]) // 3, self.lengths[1])
        yield "a token, a chunk and a prefill", [self._token(0), chunk, self._token(2), *whole[:1]]

    def _piece(self, sequence: int, first: int, last: int) -> Piece:
        return Piece(sequence, first, last, last if self.name in CAUSAL else self.lengths[sequence])

    def _token(self, sequence: int) -> Piece:
        first = int(self.rng.integers(self.starts[sequence], self.lengths[sequence]))
        return self._piece(sequence, first, first + 1)

    def _compute(self, attend: Attend, pieces: list[Piece], size: int) -> list[tuple[Array, Array]]:
        """Compute pieces in one call, over pages of `size` in random order with NaN between them."""
        used = [-(-piece.keys // size) for piece in pieces]
        numbers = self.rng.permutation(sum(used) + 2).astype(np.int32)
        like = self.tokens[0][1]
        pools = [np.full(((sum(used) + 2) * size, *like.shape[1:]), np.nan, like.dtype) for _ in "kv"]
        table = np.full((len(pieces), max(used, default=0) + 1), -1, np.int32)
        for b, piece in enumerate(pieces):
            pages, numbers = numbers[: used[b]], numbers[used[b] :]
            table[b, : used[b]] = pages
            places = (pages[:, None] * size + np.arange(size)).reshape(-1)[: piece.keys]
            for pool, x in zip(pools, self.tokens[piece.sequence][1:], strict=True):
                pool[places] = x[: piece.keys]
        lengths = np.array([piece.keys for piece in pieces], np.int32)
        shaped = [pool.reshape(-1, size, *pool.shape[1:]) for pool in pools]
        cache = at.KVCache(shaped[0], shaped[1], block_table=table, seqlens=lengths, **self.scales)
        q = np.concatenate([self.tokens[piece.sequence][0][piece.first : piece.last] for piece in pieces])
        starts = np.cumsum([0, *(piece.last - piece.first for piece in pieces)], dtype=np.int32)
        longest = int(np.diff(starts).max())
        options = {"cu_seqlens_q": starts, "max_seqlen_q": longest, "return_lse": True}
        out, lse = attend(q, cache, variant=self.variant, **options)
        return [(out[i:j], lse[i:j]) for i, j in pairwise(starts)]


def same_bits(x: Array, y: Array) -> bool:
    """Return True if two arrays have the same bits, where they are not NaN in both."""
    bits = [array.view(f"u{array.dtype.itemsize}") for array in (x, y)]
    return bool(((bits[0] == bits[1]) | (np.isnan(x) & np.isnan(y))).all())


if (
    __name__ == "__main__"
):  # prints a digest of some results, to compare those of processes with other numbers of threads
    sequences = Sequences([1500, 40, 9], 64, "bfloat16", "causal")
    digest = hashlib.sha256()
    for attended in sequences.alone(partial(at.attention, batch_invariant=True)):
        for result in attended:
            digest.update(result.tobytes())
    print(digest.hexdigest())
