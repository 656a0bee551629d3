/*
 * TeX in Markdown: `\( \)` and `$ $` inside a line, `\[ \]` and `$$ $$` as a block. The source is
 * kept as text in `<span class="math">`, for KaTeX to replace in the page; nothing here runs it.
 *
 * A block's extent must never depend on text that has not been written yet, or a growing answer
 * would not split like a whole one. So a block opened by `$$` or `\[` ends at its closing mark, at a
 * blank line or at the end; if the closing mark is missing it is shown as it was written.
 */

import type { MarkdownIt, ParserBlock, ParserInline, Token } from "markdown-it";

type BlockRule = Parameters<ParserBlock["ruler"]["before"]>[2];
type InlineRule = Parameters<ParserInline["ruler"]["before"]>[2];

const CLOSERS: Record<string, string> = { $$: "$$", "\\[": "\\]" };

const mathBlock: BlockRule = (state, startLine, endLine, silent) => {
  if ((state.sCount[startLine] ?? 0) - state.blkIndent >= 4) return false;
  const first = line(startLine).trimEnd();
  const opener = first.slice(0, 2);
  const closer = CLOSERS[opener];
  if (closer === undefined || first[2] === "$") return false;
  const close = first.indexOf(closer, 2);
  if (close >= 0 && close !== first.length - 2) return false; // text goes on: an inline matter
  if (silent) return true;

  const lines = [first];
  let closed = close >= 0;
  let next = startLine + 1;
  while (!closed && next < endLine && !state.isEmpty(next)) {
    if ((state.sCount[next] ?? 0) < state.blkIndent) break;
    const text = line(next).trimEnd();
    lines.push(text);
    next += 1;
    closed = text.endsWith(closer);
  }
  const token = state.push(closed ? "math_block" : "math_open", "", 0);
  const source = lines.join("\n");
  token.content = closed ? source.slice(2, -2).trim() : source;
  token.block = true;
  token.map = [startLine, next];
  state.line = next;
  return true;

  function line(index: number): string {
    const from = (state.bMarks[index] ?? 0) + (state.tShift[index] ?? 0);
    return state.src.slice(from, state.eMarks[index]);
  }
};

const mathInline: InlineRule = (state, silent) => {
  const { src, pos } = state;
  const found = src[pos] === "$" ? dollars(src, pos) : brackets(src, pos);
  if (!found) return false;
  if (!silent) {
    const token = state.push("math_inline", "", 0);
    token.content = src.slice(found.from, found.to).trim();
    token.meta = { display: found.display };
  }
  state.pos = found.end;
  return true;
};

interface Found {
  from: number;
  to: number;
  end: number;
  display: boolean;
}

function brackets(src: string, pos: number): Found | null {
  const opener = src.slice(pos, pos + 2);
  if (opener !== "\\(" && opener !== "\\[") return null;
  const to = src.indexOf(opener === "\\(" ? "\\)" : "\\]", pos + 2);
  return to > pos + 2 ? { from: pos + 2, to, end: to + 2, display: opener === "\\[" } : null;
}

/** Pandoc's rule, so that prices stay prices: no space inside the marks, no digit after them. */
function dollars(src: string, pos: number): Found | null {
  if (src[pos + 1] === "$") {
    const to = src.indexOf("$$", pos + 2);
    return to > pos + 2 ? { from: pos + 2, to, end: to + 2, display: true } : null;
  }
  if (/\s|^$/.test(src[pos + 1] ?? "")) return null;
  for (let to = src.indexOf("$", pos + 1); to > 0; to = src.indexOf("$", to + 1)) {
    if (src[to - 1] === "\\") continue;
    if (/\s/.test(src[to - 1] ?? "") || /\d/.test(src[to + 1] ?? "")) return null;
    return { from: pos + 1, to, end: to + 1, display: false };
  }
  return null;
}

export function math(md: MarkdownIt): void {
  const escape = md.utils.escapeHtml;
  const alt = ["paragraph", "reference", "blockquote", "list"];
  md.block.ruler.before("fence", "math_block", mathBlock, { alt });
  md.inline.ruler.before("escape", "math_inline", mathInline);
  md.renderer.rules.math_block = (tokens, index) =>
    `<div class="math" data-display="true">${escape(tokens[index]?.content ?? "")}</div>\n`;
  md.renderer.rules.math_open = (tokens, index) =>
    `<p class="math-open">${escape(tokens[index]?.content ?? "")}</p>\n`;
  md.renderer.rules.math_inline = (tokens, index) => {
    const token = tokens[index] as Token;
    const display = (token.meta as { display: boolean }).display;
    return `<span class="math" data-display="${String(display)}">${escape(token.content)}</span>`;
  };
}
