/* An app's page: its form becomes a run, the run's jobs are watched, the result grows or is scored. */

import "../site/main";

import { BlocksView } from "../blocks/view";
import { find, fromTemplate, readJson, setText, show } from "../site/dom";
import { request, RequestFailed } from "../site/http";
import { failure, number, plural, t } from "../site/strings";
import { openStream } from "../stream/browser";
import { isTerminal, type Notice } from "../stream/protocol";

interface AppData {
  run_url: string;
  result_url: string;
  result: "text" | "scores";
  examples: Record<string, string>[];
}

interface Started {
  run: { id: string; url: string };
  jobs: { id: string; label: string }[];
  kind: "text" | "scores";
}

interface Result {
  state: string;
  text: string;
  scores: { label: string; name: string; probability: number }[];
  error: string;
}

const data = readJson<AppData>("app-data");
const root = find("#app");
const form = find<HTMLFormElement>("[data-form]", root);
const part = (name: string): HTMLElement => find(`[data-${name}]`, root);
const stream = openStream(root.dataset.socket ?? "/ws/jobs");
let running: string[] = [];

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running.length === 0) void run();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
part("stop").addEventListener("click", () => stop());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
for (const button of root.querySelectorAll<HTMLElement>("[data-example]")) {
  button.addEventListener("click", () => {
    const example = data.examples[Number(button.dataset.example)] ?? {};
    for (const [name, value] of Object.entries(example)) {
      const input = form.elements.namedItem(name);
      if (input && "value" in input) input.value = value;
    }
  });
}

function stop(): void {
  for (const job of running) stream.cancel(job);
}

async function run(): Promise<void> {
  reset();
  const inputs = Object.fromEntries(new FormData(form).entries());
  setText(part("status"), t("state.sending"));
  try {
    const started = await request<Started>("POST", data.run_url, { inputs });
    running = started.jobs.map(({ id }) => id);
    show(part("stop"), true);
    show(part("run"), false);
    if (started.kind === "text") followText(started);
    else followScores(started);
  } catch (error) {
    refuse(error);
  }
}

function reset(): void {
  for (const element of root.querySelectorAll<HTMLElement>("[data-error]")) show(element, false);
  for (const name of ["problem", "text", "scores"]) show(part(name), false);
  part("text").replaceChildren();
  part("scores").replaceChildren();
}

function refuse(error: unknown): void {
  finish();
  const message = error instanceof Error ? error.message : String(error);
  const field = error instanceof RequestFailed ? error.field : null;
  const holder = field ? root.querySelector(`[data-input="${CSS.escape(field)}"]`) : null;
  const place = holder ? find("[data-error]", holder) : part("problem");
  setText(place, message);
  show(place, true);
}

function finish(): void {
  running = [];
  setText(part("status"), "");
  show(part("stop"), false);
  show(part("run"), true);
}

function notice({ state, position }: Notice): void {
  const waiting = position ? t("state.queued", { n: number(position) }) : t("state.waiting");
  setText(part("status"), state === "queued" ? waiting : t(`state.${state}`));
}

function followText({ jobs, run: { url } }: Started): void {
  const view = new BlocksView(part("text"), { labels: { copy: t("copy") } });
  let tokens = 0;
  show(part("placeholder"), false);
  show(part("text"), true);
  for (const { id } of jobs) {
    stream.watch(id, 0, {
      notice,
      entry: (_seq, event) => {
        if (event.type === "delta") {
          view.push(event.text ?? "");
          tokens += event.token_ids.length;
          setText(part("status"), plural("tokens", tokens));
        }
        if (!isTerminal(event)) return;
        view.finish();
        finish();
        setText(part("status"), plural("tokens", tokens));
        if (event.type === "failed") refuse(new Error(failure(event)));
      },
      error: () => void showResult(url),
    });
  }
}

function followScores({ jobs, run: { url } }: Started): void {
  let left = jobs.length;
  for (const { id } of jobs) {
    const done = () => {
      left -= 1;
      if (left === 0) void showResult(url);
    };
    stream.watch(id, 0, {
      notice,
      entry: (_seq, event) => isTerminal(event) && done(),
      error: done,
    });
  }
}

async function showResult(url: string): Promise<void> {
  try {
    const result = await request<Result>("GET", url);
    finish();
    if (result.error) { refuse(new Error(result.error)); return; }
    show(part("placeholder"), false);
    if (data.result === "text") {
      const view = new BlocksView(part("text"), { labels: { copy: t("copy") } });
      part("text").replaceChildren();
      view.push(result.text);
      view.finish();
      return;
    }
    part("scores").replaceChildren(...result.scores.map(scoreRow));
    show(part("scores"), true);
  } catch (error) {
    refuse(error);
  }
}

function scoreRow({ name, probability }: Result["scores"][number]): HTMLElement {
  const row = fromTemplate("score");
  setText(find("[data-name]", row), name);
  setText(find("[data-chance]", row), `${number(probability * 100)} %`);
  const bar = find<HTMLElement & { value: number }>("progress", row);
  bar.value = probability;
  bar.setAttribute("aria-label", name);
  return row;
}
