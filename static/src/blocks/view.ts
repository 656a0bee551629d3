/*
 * A growing answer in the page. DOM is written once per frame; finished blocks are never touched
 * again. The tail keeps what it can: a fence appends to its text, a list and a table replace only
 * the items and rows whose source changed.
 */

import type { Token } from "markdown-it";

import { enhance, type EnhanceLabels } from "./enhance";
import { GrowingText, type Piece, type Update } from "./growing";
import { groups, renderTokens, renderWhole } from "./markdown";
import { toFragment } from "./sanitize";

export interface BlocksOptions {
  labels: EnhanceLabels;
  schedule?: (run: () => void) => void;
  /** Called after the page was written to. */
  written?: () => void;
}

export class BlocksView {
  private readonly text = new GrowingText();
  private readonly tail: BlockView[] = [];
  private readonly schedule: (run: () => void) => void;
  private scheduled = false;
  private ended = false;

  constructor(
    private readonly root: HTMLElement,
    private readonly options: BlocksOptions,
  ) {
    this.schedule = options.schedule ?? ((run) => void requestAnimationFrame(run));
  }

  push(chunk: string): void {
    this.text.push(chunk);
    if (this.scheduled || this.ended) return;
    this.scheduled = true;
    this.schedule(() => {
      this.scheduled = false;
      if (!this.ended) this.show(this.text.update());
    });
  }

  finish(): void {
    if (this.ended) return;
    this.ended = true;
    this.show(this.text.finish());
  }

  private show({ finished, tail }: Update): void {
    for (const piece of finished) {
      const view = this.fitting(0, piece);
      view.show(piece, false);
      this.tail.shift();
    }
    tail.forEach((piece, index) => this.fitting(index, piece).show(piece, true));
    for (const surplus of this.tail.splice(tail.length)) surplus.root.remove();
    this.options.written?.();
  }

  /** The block view at `index` of the tail, replaced if the text turned out to be another kind. */
  private fitting(index: number, piece: Piece): BlockView {
    const present = this.tail[index];
    if (present?.type === piece.group.type) return present;
    const made = makeView(piece.group.type, this.options.labels);
    if (present) present.root.replaceWith(made.root);
    else this.root.append(made.root);
    this.tail[index] = made;
    return made;
  }
}

/** One whole render of a finished text, as the growing view ends up. */
export function renderInto(root: HTMLElement, source: string, labels: EnhanceLabels): void {
  root.replaceChildren(toFragment(renderWhole(source)));
  enhance(root, labels);
}

abstract class BlockView {
  abstract root: HTMLElement;
  constructor(
    readonly type: string,
    protected readonly labels: EnhanceLabels,
  ) {}
  abstract show(piece: Piece, live: boolean): void;

  protected element(html: string): HTMLElement {
    const fragment = toFragment(html);
    enhance(fragment, this.labels);
    return (fragment.firstElementChild ?? document.createElement("p")) as HTMLElement;
  }
}

function makeView(type: string, labels: EnhanceLabels): BlockView {
  switch (type) {
    case "fence":
      return new FenceView(type, labels);
    case "bullet_list_open":
    case "ordered_list_open":
      return new ListView(type, labels);
    case "table_open":
      return new TableView(type, labels);
    default:
      return new WholeView(type, labels);
  }
}

/** Only code looks different while it grows: it is coloured at its end. */
function hasFence(tokens: Token[]): boolean {
  return tokens.some(({ type }) => type === "fence");
}

/** Paragraphs, headings, quotes: short, replaced as a whole when their source changed. */
class WholeView extends BlockView {
  root: HTMLElement = document.createElement("p");
  private shown = "";

  show({ group, lines }: Piece, live: boolean): void {
    const key = `${String(live && hasFence(group.tokens))}\n${lines.slice(group.from, group.to).join("\n")}`;
    if (key === this.shown) return;
    this.shown = key;
    const next = this.element(renderTokens(group.tokens, { live }));
    this.root.replaceWith(next);
    this.root = next;
  }
}

/** Code appends to one text node while it grows and is coloured once, at its end. */
class FenceView extends BlockView {
  root: HTMLElement = document.createElement("div");
  private text: Text | null = null;

  show({ group, lines }: Piece, live: boolean): void {
    const token = group.tokens[0];
    if (!token) return;
    if (!live || !this.text) {
      const next = this.element(renderTokens(group.tokens, { live }));
      this.root.replaceWith(next);
      this.root = next;
      const code = next.querySelector("code");
      if (live && code) {
        if (!code.firstChild) code.append("");
        this.text = code.firstChild as Text | null;
      }
      return;
    }
    const had = this.text.data;
    const has = group.to >= lines.length ? withoutClosing(token.content, token.markup) : token.content;
    if (has.startsWith(had)) this.text.appendData(has.slice(had.length));
    else this.text.data = has;
    const name = /^[\w+#.-]+/.exec(token.info.trim())?.[0]?.toLowerCase() ?? "";
    const label = this.root.querySelector(".code-lang");
    if (label && label.textContent !== name) label.textContent = name;
  }
}

/** Hides a last line that is about to become the closing mark. */
function withoutClosing(content: string, markup: string): string {
  const start = content.lastIndexOf("\n", content.length - 2) + 1;
  const last = content.slice(start).trim();
  const mark = markup[0] ?? "`";
  return last !== "" && last === mark.repeat(last.length) ? content.slice(0, start) : content;
}

/** Replaces only the children whose source changed. */
abstract class ChildrenView extends BlockView {
  protected keys: string[] = [];

  protected sync(parent: Element, keys: string[], make: (index: number) => Element): void {
    keys.forEach((key, index) => {
      if (this.keys[index] === key) return;
      const present = parent.children[index];
      const next = make(index);
      if (present) present.replaceWith(next);
      else parent.append(next);
    });
    while (parent.children.length > keys.length) parent.lastElementChild?.remove();
    this.keys = keys;
  }
}

class ListView extends ChildrenView {
  root: HTMLElement = document.createElement("ul");
  private shell = "";

  show({ group, lines }: Piece, live: boolean): void {
    const open = group.tokens[0];
    const close = group.tokens.at(-1);
    if (!open || !close) return;
    const shell = renderTokens([open, close]);
    if (shell !== this.shell) {
      const next = this.element(shell);
      this.root.replaceWith(next);
      this.root = next;
      this.shell = shell;
      this.keys = [];
    }
    const items = groups(group.tokens.slice(1, -1), open.level + 1);
    const keys = items.map((item, index) => {
      const growing = live && index === items.length - 1 && hasFence(item.tokens);
      const tight = item.tokens.map((token) => (token.hidden ? "h" : ".")).join("");
      return `${String(growing)}${tight}\n${lines.slice(item.from, item.to).join("\n")}`;
    });
    this.sync(this.root, keys, (index) => {
      const growing = live && index === items.length - 1;
      return this.element(renderTokens(items[index]?.tokens ?? [], { live: growing }));
    });
  }
}

class TableView extends ChildrenView {
  root: HTMLElement = document.createElement("div");
  private head = "";

  show({ group, lines }: Piece): void {
    const rows = groups(group.tokens, 2).filter(({ type }) => type === "tr_open");
    const head = lines.slice(group.from, group.from + 2).join("\n");
    if (head !== this.head) {
      const bodyAt = group.tokens.findIndex(({ type }) => type === "tbody_open");
      const close = group.tokens.at(-1);
      if (!close) return;
      const tokens = bodyAt < 0 ? group.tokens : [...group.tokens.slice(0, bodyAt), close];
      const next = this.element(renderTokens(tokens));
      this.root.replaceWith(next);
      this.root = next;
      this.head = head;
      this.keys = [];
    }
    const body = rows.slice(1);
    const table = this.root.querySelector("table");
    if (!table || body.length === 0) return;
    const parent = table.tBodies[0] ?? table.createTBody();
    const keys = body.map((row) => lines.slice(row.from, row.to).join("\n"));
    this.sync(parent, keys, (index) => {
      const html = renderTokens(body[index]?.tokens ?? []);
      const made = this.element(`<table><tbody>${html}</tbody></table>`).querySelector("tr");
      return made ?? document.createElement("tr");
    });
  }
}
