"""Draw the vortex street behind a cylinder, and the cavity beside Ghia's values: python picture.py [DIRECTORY].

Takes about two minutes on two cores; needs `pip install '.[picture]'`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import Progress

from lattice_boltzmann import TRT, Array, Flow, Kind
from lattice_boltzmann.cavity import BOTELLA, GHIA, cavity, profiles

BACKGROUND = "#06070d"
# Vortices that turn left are warm, those that turn right are cold, and calm is dark.
COLORS = mpl.colors.LinearSegmentedColormap.from_list(
    "street", ["#d9f6ff", "#5ad1ff", "#1f6fe0", "#12245e", BACKGROUND, "#5e1a1f", "#e0532a", "#ffb347", "#fff3d6"]
)


def street(progress: Progress, steps: int = 60_000) -> tuple[Array, Array]:
    """Return the vorticity of a flow past a cylinder at Reynolds number 220, and how much of each cell it covers."""
    height, width, radius, speed, reynolds = 512, 1536, 32, 0.08, 220
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - 240, y - height / 2)
    kinds = np.where(distance < radius, Kind.WALL, Kind.FLUID)
    kinds[:, 0] = kinds[:, -1] = kinds[0] = kinds[-1] = Kind.OPEN
    flow = Flow((height, width), TRT(speed * 2 * radius / reynolds, 3 / 16), kinds=kinds, boundary=(speed, 0.0))
    still = np.zeros((height, width, 2))
    still[..., 0], still[..., 1] = (
        speed,
        0.3 * speed * np.exp(-(((x - 400) / 60) ** 2)) * (np.abs(y - height / 2) < 100),
    )
    flow.start(velocity=still)
    task = progress.add_task("vortex street", total=steps)
    for _ in range(100):
        flow.advance(steps // 100)
        progress.advance(task, steps // 100)
    u = flow.velocity()
    return np.gradient(u[..., 1], axis=1) - np.gradient(u[..., 0], axis=0), np.clip(radius + 2 - distance, 0, 1)


def draw_street(file: Path, vorticity: Array, cylinder: Array) -> None:
    shown = np.s_[40:-40, 130:-170]
    vorticity, cylinder = vorticity[shown], cylinder[shown]
    most = np.quantile(np.abs(vorticity), 0.985)
    # The power brings out the weak vortices far behind.
    level = np.sign(vorticity) * np.clip(np.abs(vorticity) / most, 0, 1) ** 0.6
    image = COLORS(0.5 + 0.5 * level)
    image += cylinder[..., None] * (np.array(mpl.colors.to_rgba("#e8e6e1")) - image)
    plt.imsave(file, image[::-1])


def draw_cavity(file: Path, progress: Progress) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for cells, reynolds, turns, color in (
        (128, 100, 15, "#1f6fe0"),
        (128, 400, 40, "#c8741a"),
        (256, 1000, 60, "#a3243b"),
    ):
        flow, task = cavity(cells, reynolds), progress.add_task(f"cavity, Re {reynolds}", total=100)
        for _ in range(100):
            flow.advance(turns * cells // 10)
            progress.advance(task)
        found = profiles(flow)
        left.plot(found.u, found.y, color=color, label=f"Re {reynolds}")
        right.plot(found.x, found.v, color=color)
        left.plot(GHIA[reynolds].u, GHIA[reynolds].y, "o", color=color, markersize=4, fillstyle="none")
        right.plot(GHIA[reynolds].x, GHIA[reynolds].v, "o", color=color, markersize=4, fillstyle="none")
    left.plot(BOTELLA.u, BOTELLA.y, "x", color="black", markersize=4, label="Botella and Peyret 1998, Re 1000")
    right.plot(BOTELLA.x, BOTELLA.v, "x", color="black", markersize=4)
    left.plot([], [], "o", color="gray", markersize=4, fillstyle="none", label="Ghia et al. 1982")
    left.set(xlabel="u / lid", ylabel="y", title="on the vertical centre line")
    right.set(xlabel="x", ylabel="v / lid", title="on the horizontal centre line")
    left.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=130)


def main() -> None:
    place = Path(sys.argv[1] if sys.argv[1:] else ".")
    with Progress() as progress:
        draw_street(place / "lattice_boltzmann.png", *street(progress))
        draw_cavity(place / "lattice_boltzmann_cavity.png", progress)


if __name__ == "__main__":
    main()
