"""A chart of ratios as SVG: bars against the best peer, with the goals, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP, FOOT = 720, 190, 70, 34, 46, 52
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2937 }
  .small { font-size: 12px; fill: #6b7280 }
  .ground { fill: #ffffff } .line { stroke: #d1d5db } .one { stroke: #6b7280 }
  .bar { fill: #0f766e } .goal { stroke: #b45309; stroke-width: 2.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb } .small { fill: #9ca3af }
    .ground { fill: #111827 } .line { stroke: #374151 } .one { stroke: #9ca3af }
    .bar { fill: #2dd4bf } .goal { stroke: #fbbf24 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """``ratio`` to ``peer``, and the goal for it where there is one."""

    what: str
    ratio: float
    peer: str
    goal: float | None = None


def draw(bars: Sequence[Bar], title: str) -> str:
    """One bar a row; a tick where its goal lies, a line at 1 ×. Text is text: it can be read
    aloud, and each bar says its figure."""
    most = max([1.0, *(bar.ratio for bar in bars), *(bar.goal or 0 for bar in bars)])
    height = TOP + ROW * len(bars) + FOOT

    def x(ratio: float) -> float:
        return round(LEFT + ratio / most * (WIDTH - LEFT - RIGHT), 1)

    bottom = TOP + ROW * len(bars)
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 100) if most / s <= 8 or s == 100)
    ticks = [step * i for i in range(int(most / step) + 1)]
    said = "; ".join(f"{bar.what} {bar.ratio:.2f} × {bar.peer}" for bar in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(f"{title}: {said}", quote=True)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text x="16" y="27" font-weight="600">{escape(title)}</text>',
    ]
    for tick in ticks:
        kind = "one" if tick == 1 else "line"
        parts.append(f'<path class="{kind}" d="M{x(tick)} {TOP - 4}V{bottom + 4}"/>')
        label = f'<text class="small" x="{x(tick)}" y="{bottom + 20}" text-anchor="middle">'
        parts.append(f"{label}{tick:g} ×</text>")
    for number, bar in enumerate(bars):
        parts += _bar(bar, TOP + ROW * number, x)
    parts.append(
        f'<path class="goal" d="M{LEFT} {height - 22}v13"/>'
        f'<text class="small" x="{LEFT + 8}" y="{height - 11}">goal</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _bar(bar: Bar, y: int, x: object) -> list[str]:
    assert callable(x)
    end, middle = x(bar.ratio), y + ROW / 2
    # The figure stands after whatever reaches further, the bar or the tick of its goal.
    after = max(end, x(bar.goal) if bar.goal and bar.goal >= bar.ratio else 0) + 8
    parts = [
        f'<text x="{LEFT - 10}" y="{middle + 4.5}" text-anchor="end">{escape(bar.what)}</text>',
        f'<rect class="bar" x="{LEFT}" y="{y + 7}" width="{round(end - LEFT, 1)}"'
        f' height="{ROW - 14}" rx="3"/>',
        f'<text x="{after}" y="{middle + 4.5}">{bar.ratio:.2f}</text>',
    ]
    if bar.goal:
        parts.append(f'<path class="goal" d="M{x(bar.goal)} {y + 4}V{y + ROW - 4}"/>')
    return parts
