/* KaTeX sets styles through the DOM, one property at a time, which a strict policy allows. */

import "katex/dist/katex.min.css";

import katex from "katex";

export function renderTex(tex: string, into: HTMLElement, display: boolean): void {
  try {
    katex.render(tex, into, {
      displayMode: display,
      throwOnError: true,
      trust: false,
      maxExpand: 200,
      maxSize: 20,
      strict: "ignore",
    });
  } catch {
    into.textContent = tex; // half a formula, or none: show what was written
    into.classList.add("math-raw");
  }
}
