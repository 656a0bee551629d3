/* What sanitised blocks are given once they stand in the page: a copy button, set formulas. */

export type TexRenderer = (tex: string, into: HTMLElement, display: boolean) => void;

let renderer: TexRenderer | null = null;
let loading = false;

export interface EnhanceLabels {
  copy: string;
}

export function enhance(root: ParentNode, labels: EnhanceLabels): void {
  for (const bar of root.querySelectorAll(".code-bar:not(:has(button))")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "code-copy";
    button.textContent = labels.copy;
    bar.append(button);
  }
  for (const element of root.querySelectorAll<HTMLElement>(".math:not(.math-set)")) setMath(element);
}

function setMath(element: HTMLElement): void {
  if (renderer) {
    const tex = element.textContent;
    element.classList.add("math-set");
    renderer(tex, element, element.dataset.display === "true");
  } else void loadTex();
}

/** KaTeX is fetched with the first formula and then sets those that are already in the page. */
async function loadTex(): Promise<void> {
  if (loading) return;
  loading = true;
  useTex((await import("./katex")).renderTex);
  for (const element of document.querySelectorAll<HTMLElement>(".math:not(.math-set)")) {
    setMath(element);
  }
}

export function useTex(render: TexRenderer | null): void {
  renderer = render;
  loading = render !== null;
}

/** One listener for every copy button that will ever stand in `root`. */
export function listenForCopies(root: HTMLElement, copied: (button: HTMLElement) => void): void {
  root.addEventListener("click", (event) => {
    const button = (event.target as HTMLElement).closest<HTMLElement>(".code-copy");
    const code = button?.closest(".code")?.querySelector("code")?.textContent;
    if (!button || code === undefined) return;
    void navigator.clipboard.writeText(code).then(() => copied(button));
  });
}
