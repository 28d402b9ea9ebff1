"""The reliability diagram: how often the model is right at each confidence, before and after the temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.metrics.calibration import NUM_BINS, Reliability
from finetune.report.svg import Palette, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def diagram(raw: Reliability, calibrated: Reliability, temperature: float, paint: Palette) -> Figure:
    """Two panels, or one where the temperature is 1; the bars below show where the images are."""
    panels = [(f"As trained: ECE {raw.ece:.3f}", raw)]
    if temperature != 1.0:
        panels.append((f"Temperature {temperature:.2f}: ECE {calibrated.ece:.3f}", calibrated))
    drawing = figure(3.4 * len(panels), 3.3)
    for number, (title, curve) in enumerate(panels, start=1):
        axes = drawing.add_subplot(1, len(panels), number)
        filled = curve.images > 0
        share = curve.images / curve.images.sum()
        edges = [bin_number / NUM_BINS for bin_number in range(NUM_BINS)]
        axes.bar(edges, share, width=1 / NUM_BINS, align="edge", color=paint.muted, alpha=0.25, label="share of images")
        axes.plot([0, 1], [0, 1], color=paint.muted, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        line: dict[str, Any] = {"color": paint.series[0], "label": "model"}
        axes.plot(curve.confidence[filled], curve.accuracy[filled], "o-", markersize=4, **line)
        axes.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left")
    return drawing
