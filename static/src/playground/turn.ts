/* One answer: its text as it grows, what its job is doing, and the figures under it. */

import { BlocksView, renderInto } from "../blocks/view";
import { find, fromTemplate, setText, show } from "../site/dom";
import { RequestFailed } from "../site/http";
import { failure, number, plural, t } from "../site/strings";
import type { JobEvent, Notice } from "../stream/protocol";
import { PlainView } from "./plain";
import { Counter } from "./stats";
import type { JobInfo, MessageInfo, Mode, Stats } from "./types";

export interface TurnActions {
  regenerate(turn: Turn): void;
  goOn(turn: Turn): void;
  retry(turn: Turn): void;
  written(): void;
}

/** What an answer's text is shown with. */
interface Body {
  push(text: string): void;
  finish(): void;
}

export class Turn {
  readonly element = fromTemplate("t-turn");
  id: string | null = null;
  job: string | null = null;
  text = "";
  prompt = "";
  running = false;
  private body: Body | null = null;
  private counter = new Counter(true, performance.now());
  private readonly part = (name: string): HTMLElement => find(`[data-${name}]`, this.element);
  private retryTimer = 0;

  constructor(
    readonly mode: Mode,
    model: string,
    private readonly actions: TurnActions,
  ) {
    setText(this.part("model"), model);
    this.part("regenerate").addEventListener("click", () => this.actions.regenerate(this));
    this.part("continue").addEventListener("click", () => this.actions.goOn(this));
    this.part("again").addEventListener("click", () => this.actions.retry(this));
    this.part("copy-answer").addEventListener("click", () => void this.copy());
  }

  /** An answer that is about to be asked for, or is being written. */
  begin(live: boolean): void {
    clearInterval(this.retryTimer);
    this.text = "";
    this.running = true;
    this.counter = new Counter(live, performance.now());
    const root = this.freshBody();
    this.body =
      this.mode === "completion"
        ? new PlainView(root, this.prompt, () => this.actions.written())
        : new BlocksView(root, {
            labels: { copy: t("copy") },
            written: () => this.actions.written(),
          });
    this.element.classList.add("writing");
    this.element.setAttribute("aria-busy", "true");
    show(this.part("problem"), false);
    show(this.part("actions"), false);
    this.clearStats();
    this.say(live ? t("state.sending") : "");
  }

  /** What had been written when the page was made; the stream goes on after it. */
  resume({ text, job }: MessageInfo): void {
    this.text = text;
    if (text) this.body?.push(text);
    this.counter.skip(Math.max(0, (job?.last_seq ?? 0) - 1));
  }

  /** An answer that has ended before the page was opened. */
  showEnded(message: MessageInfo): void {
    this.id = message.id;
    this.text = message.text;
    const root = this.freshBody();
    if (this.mode === "completion") {
      const view = new PlainView(root, this.prompt, () => undefined);
      view.push(message.text);
      view.finish();
    } else renderInto(root, message.text, { copy: t("copy") });
    const job = message.job;
    if (!job) { this.end("stop"); return; }
    this.showStats(job.stats ?? {});
    this.end(job.state === "finished" ? (job.reason ?? "stop") : job.state);
    const problem = problemOf(job);
    if (problem) this.complain(problem);
  }

  take(event: JobEvent): void {
    this.counter.take(event, performance.now());
    switch (event.type) {
      case "started":
        if (this.counter.count === 0) this.say(t("state.reading"), "good");
        break;
      case "delta":
        if (event.choice) return;
        this.text += event.text ?? "";
        if (event.text) this.body?.push(event.text);
        this.say(t("state.writing"), "good");
        this.showStats(this.counter.stats());
        break;
      case "finished":
        this.showStats(this.counter.stats(event.usage));
        this.end(event.reason);
        break;
      case "cancelled":
        this.showStats(this.counter.stats(event.usage));
        this.end("cancelled");
        break;
      case "failed":
        this.showStats(this.counter.stats(event.usage));
        this.end("failed");
        this.complain(failure(event));
    }
  }

  notice(notice: Notice): void {
    if (!this.running) return;
    const { state, position, fraction } = notice;
    if (state === "queued") {
      const text = position ? t("state.queued", { n: number(position) }) : t("state.waiting");
      this.say(text, "warn");
    } else if (state === "loading") {
      const at = fraction === undefined ? null : number(Math.round(fraction * 100));
      this.say(at === null ? t("state.loading") : t("state.loading_at", { n: at }), "warn");
    } else this.say(t("state.resuming"), "warn");
  }

  stopping(): void {
    this.say(t("state.stopping"), "warn");
  }

  /** It could not be asked for, or not be followed. */
  refuse(error: unknown): void {
    this.end("failed");
    this.complain(error instanceof Error ? error.message : String(error));
    if (error instanceof RequestFailed && error.retryAfter) this.countDown(error.retryAfter);
  }

  private end(reason: string): void {
    this.running = false;
    this.body?.finish();
    this.body = null;
    this.element.classList.remove("writing");
    this.element.removeAttribute("aria-busy");
    this.say("");
    setText(this.stat("reason"), t(`reason.${reason}`));
    show(this.part("actions"), true);
    show(this.part("copy-answer"), this.text !== "");
    show(this.part("regenerate"), true);
    show(this.part("continue"), this.mode === "completion" && this.text !== "");
    this.actions.written();
  }

  private complain(message: string): void {
    setText(this.part("message"), message);
    show(this.part("problem"), true);
    show(this.part("regenerate"), false); // "try again" says the same
  }

  private countDown(seconds: number): void {
    const button = this.part("again") as HTMLButtonElement;
    const label = button.textContent;
    let left = Math.ceil(seconds);
    const tick = () => {
      button.disabled = left > 0;
      button.textContent = left > 0 ? t("error.retry_in", { n: left }) : label;
      if (left-- <= 0) clearInterval(this.retryTimer);
    };
    tick();
    this.retryTimer = window.setInterval(tick, 1000);
  }

  private showStats(stats: Partial<Stats>): void {
    const { completion_tokens: tokens, tokens_per_second: rate, first_token_s: first } = stats;
    if (tokens !== undefined) setText(this.stat("tokens"), plural("tokens", tokens));
    if (rate) setText(this.stat("rate"), t("rate", { n: number(rate, rate < 10 ? 1 : 0) }));
    if (first !== null && first !== undefined) {
      setText(this.stat("first"), t("first", { n: number(first, 2) }));
    }
  }

  private clearStats(): void {
    for (const name of ["tokens", "rate", "first", "reason"]) setText(this.stat(name), "");
  }

  private say(text: string, tone: "good" | "warn" | "" = ""): void {
    setText(this.part("state"), text ? `· ${text}` : "");
    const name = `dot ${tone ? `dot-${tone}` : ""}`;
    if (this.part("dot").className !== name) this.part("dot").className = name;
  }

  private stat(name: string): HTMLElement {
    return find(`[data-stat="${name}"]`, this.element);
  }

  private freshBody(): HTMLElement {
    const root = this.part("body");
    root.replaceChildren();
    root.className = this.mode === "completion" ? "sheet-text" : "prose";
    return root;
  }

  private async copy(): Promise<void> {
    await navigator.clipboard.writeText(this.mode === "completion" ? this.prompt + this.text : this.text);
    const button = this.part("copy-answer");
    setText(button, t("copied"));
    setTimeout(() => setText(button, t("copy")), 1600);
  }
}

function problemOf(job: JobInfo): string | null {
  if (!job.error) return null;
  return typeof job.error === "string" ? job.error : job.error.message;
}
