/* The developers' page: the key goes into every example, and calls can be tried. */

import "../site/main";

import { find, setText, show } from "../site/dom";
import { number, t } from "../site/strings";
import { type Call, send } from "./call";

const root = find("#reference");
const base = root.dataset.base ?? "";
const key = find<HTMLInputElement>("#key");
const unknown = "llm_…";

function fillIn(): void {
  for (const place of root.querySelectorAll<HTMLElement>("[data-secret]")) {
    setText(place, key.value.trim() || unknown);
  }
}
key.addEventListener("input", fillIn);
fillIn();

for (const tab of root.querySelectorAll<HTMLButtonElement>("[data-tab]")) {
  tab.addEventListener("click", () => choose(tab));
}

function choose(chosen: HTMLButtonElement): void {
  for (const tab of root.querySelectorAll<HTMLButtonElement>("[data-tab]")) {
    const on = tab === chosen;
    tab.setAttribute("aria-pressed", String(on));
    show(find(`#start-${tab.dataset.tab ?? ""}`, root), on);
  }
}

for (const form of root.querySelectorAll<HTMLFormElement>("form[data-call]")) {
  const leave = find("[data-leave]", form);
  let running: AbortController | null = null;
  leave.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    running?.abort();
    const mine = (running = new AbortController());
    show(leave, true);
    void run(form, mine.signal).finally(() => {
      if (running === mine) show(leave, false);
    });
  });
}

async function run(form: HTMLFormElement, signal: AbortSignal): Promise<void> {
  const status = find("[data-status]", form);
  const shown = find("[data-answer]", form);
  const started = performance.now();
  setText(status, t("state.sending"));
  setText(shown, "");
  show(shown, true);
  try {
    const answer = await send(base, described(form), signal, ({ text }) => setText(shown, text));
    setText(shown, answer.text);
    const seconds = number((performance.now() - started) / 1000, 2);
    setText(status, t("call.answered", { status: answer.status, seconds }));
  } catch {
    setText(status, t(signal.aborted ? "call.left" : "error.network"));
  }
}

function described(form: HTMLFormElement): Call {
  const parameters = [...form.querySelectorAll<HTMLInputElement>("input[data-place]")];
  return {
    method: form.dataset.method ?? "GET",
    path: form.dataset.path ?? "",
    parameters: parameters.map(({ name, value, dataset }) => ({
      name,
      value: value.trim(),
      place: dataset.place ?? "query",
    })),
    body: form.querySelector("textarea")?.value ?? null,
    key: key.value.trim(),
  };
}
