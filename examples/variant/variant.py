"""A variant of one's own for attention: one struct in decay.h, one line here."""

import numpy as np

import dimorph as dm
from dimorph.attention import Causal, attention, compose

DECAY = dm.Variant("Decay", header="decay.h", params=(dm.scalar("rate"),))


def main() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 512, 8, 64), dtype=np.float32) for _ in range(3))
    far = attention(q, k, v, variant=Causal)
    near = attention(q, k, v, variant=compose(Causal, DECAY(rate=0.5)))
    print("mean weight moved to nearby keys changes the output by", float(np.abs(near - far).mean()))


if __name__ == "__main__":
    main()
