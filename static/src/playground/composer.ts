/* Where one writes: Ctrl/⌘-Enter sends, Esc stops, ↑ in an empty box edits the last message. */

import { find, setText, show } from "../site/dom";
import { plural, t } from "../site/strings";
import type { Mode } from "./types";

const COUNT_AFTER_MS = 400;
const COUNT_UP_TO = 200_000;

export interface ComposerActions {
  send(text: string): void;
  stop(): void;
  editLast(): void;
  cancelEdit(): void;
  count(text: string): Promise<number>;
}

export class Composer {
  private readonly box = find<HTMLTextAreaElement>("#prompt");
  private readonly counter = find("#count");
  private readonly sendButton = find<HTMLButtonElement>("#send");
  private readonly stopButton = find<HTMLButtonElement>("#stop");
  private running = false;
  private timer = 0;
  editing = false;

  constructor(private readonly actions: ComposerActions) {
    find("#composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.box.addEventListener("input", () => this.changed());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.stopButton.addEventListener("click", () => this.actions.stop());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
      if (this.running) this.actions.stop();
      else if (this.editing) this.actions.cancelEdit();
    });
  }

  get text(): string {
    return this.box.value;
  }

  set text(value: string) {
    this.box.value = value;
    this.changed();
  }

  focus(): void {
    this.box.focus({ preventScroll: true });
    this.box.setSelectionRange(this.box.value.length, this.box.value.length);
  }

  setMode(mode: Mode): void {
    this.box.placeholder = t(`placeholder.${mode}`);
  }

  setRunning(running: boolean): void {
    const focused = document.activeElement;
    this.running = running;
    show(this.stopButton, running);
    show(this.sendButton, !running);
    if (focused === this.stopButton || focused === this.sendButton) this.focus();
  }

  setEditing(editing: boolean): void {
    this.editing = editing;
    if (editing) setText(this.counter, t("editing"));
    else this.changed();
  }

  say(text: string): void {
    setText(this.counter, text);
  }

  private submit(): void {
    if (this.running) return;
    if (this.box.value.trim() === "") {
      this.say(t("empty_prompt"));
      this.focus();
    } else this.actions.send(this.box.value);
  }

  private key(event: KeyboardEvent): void {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && this.box.value === "" && !this.running) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  private changed(): void {
    if (!CSS.supports("field-sizing", "content")) {
      this.box.style.height = "auto";
      this.box.style.height = `${this.box.scrollHeight}px`;
    }
    clearTimeout(this.timer);
    if (this.editing) return;
    const text = this.box.value;
    if (text === "" || text.length > COUNT_UP_TO) setText(this.counter, "");
    else this.timer = window.setTimeout(() => void this.count(text), COUNT_AFTER_MS);
  }

  private async count(text: string): Promise<void> {
    try {
      const tokens = await this.actions.count(text);
      if (text === this.box.value && !this.editing) setText(this.counter, plural("tokens", tokens));
    } catch {
      setText(this.counter, ""); // a figure nobody asked for: no reason to complain
    }
  }
}
