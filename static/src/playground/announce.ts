/*
 * An answer for those who listen: whole sentences, politely, at most every two seconds. The answer
 * itself is no live region; it changes far too often.
 */

import { find } from "../site/dom";

const PAUSE_MS = 2000;
const SENTENCE = /^[^]*?[.!?…。！？](?=\s|$)|^[^]*\n/;

export class Announcer {
  private readonly region = find("#announce");
  private waiting = "";
  private timer = 0;

  /** Text of a growing answer. */
  write(text: string): void {
    this.waiting += text;
    this.timer ||= window.setTimeout(() => this.flush(false), PAUSE_MS);
  }

  /** A sentence of our own, after whatever is still unsaid. */
  say(text: string): void {
    this.flush(true);
    this.speak(text);
  }

  private flush(all: boolean): void {
    clearTimeout(this.timer);
    this.timer = 0;
    let ready = "";
    for (let found = SENTENCE.exec(this.waiting); found; found = SENTENCE.exec(this.waiting)) {
      ready += found[0];
      this.waiting = this.waiting.slice(found[0].length);
      if (!found[0]) break;
    }
    if (all) {
      ready += this.waiting;
      this.waiting = "";
    }
    if (ready.trim()) this.speak(ready.trim());
  }

  private speak(text: string): void {
    const line = document.createElement("p");
    line.textContent = text;
    this.region.append(line);
    while (this.region.childElementCount > 12) this.region.firstElementChild?.remove();
  }
}
