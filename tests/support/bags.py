"""Make, use, close and drop handles in several threads; print how many objects were made and destroyed."""

from __future__ import annotations

import random
import threading

import numpy as np

from support.kernels import BAG


def main() -> None:
    module, counts, values = BAG.load(), np.zeros(2, np.int64), np.ones(3, np.float32)
    shared = [module.keep(values, counts)]

    def work(seed: int) -> None:
        chosen = random.Random(seed)
        for step in range(300):
            bag = module.make(values, counts) if step else None
            try:
                assert module.first(shared[0]) == 1
            except ValueError as error:
                assert "which was closed" in str(error)
            if step % 50 == 49 and seed == 0:
                old, shared[0] = shared[0], module.keep(values, counts)
                old.close()
            if bag is not None:
                assert module.sum(bag, 1.0) == 3
                if chosen.random() < 0.5:
                    bag.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.clear()
    print(f"{counts[0]} made, {counts[1]} destroyed")


if __name__ == "__main__":
    main()
