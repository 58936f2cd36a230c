"""Divide the logits of each sequence, or of each head, by a temperature: two structs in temperature.h."""

import numpy as np

import dimorph as dm
from dimorph.attention import Causal, attention, compose

SEQUENCES = dm.Variant(
    "SequenceTemperature", header="temperature.h", params=(dm.tensor("temperatures", "float32", "batch"),)
)
HEADS = dm.Variant("HeadTemperature", header="temperature.h", params=(dm.tensor("temperatures", "float32", "heads"),))


def main() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 100, 4, 64), dtype=np.float32) for _ in range(3))
    for variant, size, shape in ((SEQUENCES, 2, (2, 1, 1, 1)), (HEADS, 4, (1, 1, 4, 1))):
        temperatures = np.linspace(0.5, 1.5, size, dtype=np.float32)
        out = attention(q, k, v, variant=compose(Causal, variant(temperatures)))
        expected = attention(q / temperatures.reshape(shape), k, v, variant=Causal)
        print(variant.name, "differs from queries divided by hand by", float(np.abs(out - expected).max()))


if __name__ == "__main__":
    main()
