/*
 * How an answer's Markdown is read. Two things are switched off because they would let text that
 * comes later change what has been shown: link reference definitions, and raw HTML, which is shown
 * as it was written. Images become links: the page fetches nothing that a model names.
 */

import createMarkdown, { type Env, type MarkdownIt, type Token } from "markdown-it";

import { highlight } from "./highlight";
import { math } from "./math";

export interface RenderEnv extends Env {
  /** The text is still growing: code is not highlighted yet. */
  live?: boolean;
}

export interface Group {
  /** The type of its first token: "paragraph_open", "fence", "bullet_list_open" … */
  type: string;
  tokens: Token[];
  /** Lines `[from, to)` of the source it was read from. */
  from: number;
  to: number;
}

const md: MarkdownIt = createMarkdown({ html: false, linkify: true, breaks: false });
md.disable("reference");
md.use(math);
md.inline.ruler.before("html_inline", "line_break", (state, silent) => {
  const tag = /^<br\s*\/?>/i.exec(state.src.slice(state.pos, state.pos + 8));
  if (!tag) return false;
  if (!silent) state.push("hardbreak", "br", 0);
  state.pos += tag[0].length;
  return true;
});

const escape = md.utils.escapeHtml;
md.renderer.rules.image = (tokens, index) => {
  const token = tokens[index] as Token;
  const source = String(token.attrGet("src") ?? "");
  return `<a href="${escape(source)}">${escape(token.content || source)}</a>`;
};
md.renderer.rules.table_open = () => '<div class="table-scroll" tabindex="0">\n<table>\n';
md.renderer.rules.table_close = () => "</table>\n</div>\n";
for (const cell of ["th_open", "td_open"]) {
  md.renderer.rules[cell] = (tokens, index) => {
    const token = tokens[index] as Token;
    const align = /text-align:(\w+)/.exec(String(token.attrGet("style") ?? ""))?.[1];
    return `<${token.tag}${align ? ` data-align="${align}"` : ""}>`;
  };
}
md.renderer.rules.fence = (tokens, index, _options, env) => {
  const token = tokens[index] as Token;
  return codeHtml(token.content, languageOf(token), (env as RenderEnv).live === true);
};
md.renderer.rules.code_block = (tokens, index) => codeHtml(tokens[index]?.content ?? "", "", true);

function languageOf(token: Token): string {
  return /^[\w+#.-]+/.exec(token.info.trim())?.[0]?.toLowerCase() ?? "";
}

function codeHtml(code: string, language: string, plain: boolean): string {
  const body = (plain ? null : highlight(code, language)) ?? escape(code);
  const name = escape(language);
  return (
    `<div class="code"><div class="code-bar"><span class="code-lang">${name}</span></div>` +
    `<pre tabindex="0"><code>${body}</code></pre></div>\n`
  );
}

/** What markdown-it's own chain would do after the blocks are found. */
const [normalize, block, ...rest] = md.core.ruler.getRules("");

/** The block structure of `source`, which must already have `\n` line ends. Cheap: no inlines. */
export function blocksOf(source: string): Group[] {
  const state = new md.core.State(source, md, {});
  normalize?.(state);
  block?.(state);
  return groups(state.tokens, 0);
}

/** Splits tokens into those that start at `level`, each with everything inside it. */
export function groups(tokens: Token[], level: number): Group[] {
  const found: Group[] = [];
  let start = 0;
  tokens.forEach((token, index) => {
    if (token.level !== level) return;
    if (token.nesting >= 0) start = index;
    if (token.nesting === 1) return;
    const first = tokens[start] as Token;
    const [from, to] = first.map ?? [0, 0];
    found.push({ type: first.type, tokens: tokens.slice(start, index + 1), from, to });
  });
  return found;
}

export function renderTokens(tokens: Token[], env: RenderEnv = {}): string {
  const state = new md.core.State("", md, env);
  state.tokens = tokens;
  for (const rule of rest) rule(state);
  return md.renderer.render(state.tokens, md.options, env);
}

/** markdown-it's own whole render, by which the growing one is judged. */
export function renderWhole(source: string): string {
  return md.render(source, {});
}
