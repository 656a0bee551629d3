/* Bars of prompt and generated tokens, upright by day or lying by name, in the page's colours. */

import { BarChart } from "echarts/charts";
import { GridComponent, LegendComponent, TooltipComponent } from "echarts/components";
import { type EChartsCoreOption, init, use } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";

import { language } from "../site/strings";

use([BarChart, GridComponent, LegendComponent, TooltipComponent, CanvasRenderer]);

/** A name, prompt tokens, generated tokens. */
export type Bar = [string, number, number];

export interface Names {
  prompt: string;
  completion: string;
}

const ROW = 34;

/** Draws into `element`, and again when its width or the page's colours change. */
export function bars(element: HTMLElement, rows: Bar[], names: Names, lying: boolean): void {
  if (lying) element.style.height = `${rows.length * ROW + 70}px`;
  const chart = init(element);
  const draw = (): void => chart.setOption(options(element, rows, names, lying), true);
  draw();
  new ResizeObserver(() => chart.resize()).observe(element);
  new MutationObserver(draw).observe(document.documentElement, {
    attributeFilter: ["data-theme"],
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

function options(
  element: HTMLElement,
  rows: Bar[],
  names: Names,
  lying: boolean,
): EChartsCoreOption {
  const colour = (name: string): string => getComputedStyle(element).getPropertyValue(name).trim();
  const short = new Intl.NumberFormat(language(), { notation: "compact" });
  const whole = new Intl.NumberFormat(language());
  const { fontFamily } = getComputedStyle(element); // a canvas inherits nothing
  const text = { color: colour("--mute"), fontSize: 12, fontFamily };
  const line = { lineStyle: { color: colour("--line") } };
  const category = {
    type: "category",
    data: rows.map(([name]) => name),
    inverse: lying,
    axisLabel: { ...text, width: lying ? 130 : undefined, overflow: "truncate" },
    axisLine: line,
    axisTick: { show: false },
  };
  const value = {
    type: "value",
    axisLabel: { ...text, formatter: (n: number) => short.format(n) },
    splitLine: line,
    splitNumber: 4,
  };
  const series = (name: string, column: 1 | 2, opacity: number): object => ({
    name,
    type: "bar",
    stack: "tokens",
    data: rows.map((row) => row[column]),
    itemStyle: { color: colour("--color-primary"), opacity },
    barMaxWidth: 22,
  });
  return {
    animation: false,
    grid: { left: 4, right: 12, top: 34, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    legend: { left: 0, top: 0, textStyle: text, itemWidth: 12, itemHeight: 12, selectedMode: false },
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      axisPointer: { type: "shadow" },
      backgroundColor: colour("--color-base-100"),
      borderColor: colour("--line"),
      textStyle: { color: colour("--color-base-content"), fontSize: 13, fontFamily },
      valueFormatter: (n: number) => whole.format(n),
    },
    xAxis: lying ? value : category,
    yAxis: lying ? category : value,
    series: [
      series(names.prompt, 1, 0.35),
      series(names.completion, 2, 1),
    ],
  };
}
