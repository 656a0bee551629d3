/*
 * A growing text as finished blocks and a tail. A top-level block is finished when a complete later
 * line has started the next one; from then on nothing that is written can change it, so it is
 * rendered once. Only the tail, the last block, is read again as it grows.
 */

import { blocksOf, type Group } from "./markdown";

/** A line that may still become something else: a rule, a heading's underline, a list, a fence. */
const UNDECIDED = /^ {0,3}(?:[-=*_`~+#>$|:\\]{1,3}|\d{1,3}[.)]?)[ \t]*$/;

export interface Piece {
  group: Group;
  /** The lines that `group.from` and `group.to` count. */
  lines: string[];
}

export interface Update {
  /** In order; the first one is what the tail has become. */
  finished: Piece[];
  /** One block; more only while the last line is unfinished and looks like another one. */
  tail: Piece[];
}

export class GrowingText {
  private tail = "";
  private heldReturn = false;
  private unread = false;

  /** Takes any cut of the text, also one through a line end. */
  push(chunk: string): void {
    if (chunk === "") return;
    let text = this.heldReturn ? `\r${chunk}` : chunk;
    this.heldReturn = text.endsWith("\r");
    if (this.heldReturn) text = text.slice(0, -1);
    text = text.replace(/\r\n?/g, "\n").replaceAll("\0", "\uFFFD");
    if (text.includes("\n")) this.unread = true;
    this.tail += text;
  }

  /** What has been finished since the last update, and the tail as it is now. */
  update(): Update {
    const finished = this.unread ? this.takeFinished(this.tail.lastIndexOf("\n") + 1) : [];
    this.unread = false;
    return { finished, tail: this.readTail() };
  }

  /** The end of the text: everything is finished. */
  finish(): Update {
    if (this.heldReturn) this.tail += "\n";
    const lines = this.tail.split("\n");
    const finished = blocksOf(this.tail).map((group) => ({ group, lines }));
    this.tail = "";
    this.heldReturn = false;
    this.unread = false;
    return { finished, tail: [] };
  }

  private takeFinished(complete: number): Piece[] {
    const source = this.tail.slice(0, complete);
    const found = blocksOf(source);
    const last = found.at(-1);
    if (found.length < 2 || !last) return [];
    const lines = source.split("\n");
    const taken = lines.slice(0, last.from).reduce((sum, line) => sum + line.length + 1, 0);
    this.tail = this.tail.slice(taken);
    return found.slice(0, -1).map((group) => ({ group, lines }));
  }

  /** The tail for showing. An undecided last line waits, so that nothing flickers. */
  /** The tail for showing. An undecided last line waits, so that nothing flickers. */
  private readTail(): Piece[] {
    const lastLine = this.tail.lastIndexOf("\n") + 1;
    const undecided = UNDECIDED.test(this.tail.slice(lastLine));
    const shown = undecided ? this.tail.slice(0, lastLine) : this.tail;
    const lines = shown.split("\n");
    return blocksOf(shown).map((group) => ({ group, lines }));
  }
}
