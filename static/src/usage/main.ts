/* The usage page: its tables as charts. */

import "../site/main";

import { type Bar, bars } from "../charts/bars";
import { readJson } from "../site/dom";
import { t } from "../site/strings";

interface Charts {
  days: Bar[];
  by: Record<string, Bar[]>;
}

const data = readJson<Charts>("charts");
const names = { prompt: t("prompt"), completion: t("completion") };

for (const element of document.querySelectorAll<HTMLElement>("[data-chart]")) {
  const name = element.dataset.chart ?? "";
  const days = name === "days";
  const rows = days ? data.days : (data.by[name] ?? []);
  bars(element, rows, names, !days);
}
