"""Draws docs/_static/social.png, the picture of a preview: `python docs/_social.py`.

matplotlib brings the fonts, so that every machine draws the same.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

GREEN, INK, QUIET = "#116329", "#1f2328", "#57606a"
TARGET = Path(__file__).parent / "_static" / "social.png"


def main() -> None:
    plt.rcParams["mathtext.fontset"] = "cm"
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1200), ylim=(0, 630))
    axes.axis("off")
    axes.axvspan(0, 24, color=GREEN, linewidth=0)
    axes.text(96, 500, "llmref", fontsize=64, color=INK, weight="bold", va="center")
    axes.text(
        96,
        400,
        "The mathematics of large language models:\nevery formula derived, executed and checked.",
        fontsize=29,
        color=QUIET,
        va="center",
        linespacing=1.4,
    )
    formula = r"$\mathrm{softmax}(x)_i=\frac{e^{x_i}}{\sum_j\; e^{x_j}}$"
    axes.text(96, 215, formula, fontsize=56, color=INK, va="center")
    axes.plot([780, 808, 868], [212, 182, 250], color=GREEN, linewidth=9, solid_capstyle="round")
    axes.text(900, 212, "Checked", fontsize=36, color=GREEN, weight="bold", va="center")
    axes.text(96, 76, "PyTorch code · permanent links · BibTeX", fontsize=24, color=QUIET)
    figure.canvas.draw()
    picture = Image.frombuffer("RGBA", (1200, 630), figure.canvas.buffer_rgba()).convert("RGB")
    picture.quantize(48).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
