/*
 * The second fence. Markdown-it is told to pass no HTML through; whatever it makes of a model's text
 * still goes through DOMPurify with a short list of tags before it becomes part of the page.
 */

import createPurify from "dompurify";

const purify = createPurify(window);
const CONFIG = {
  ALLOWED_TAGS: [
    ..."a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong".split(" "),
    ..."table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "data-display", "data-align", "tabindex"],
  /** These hold no address; without this they would have to look like one. */
  ADD_URI_SAFE_ATTR: ["start", "data-display", "data-align", "tabindex"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Containers in which the line breaks of the source mean nothing. */
const PRUNED = new Set(["UL", "OL", "TABLE", "THEAD", "TBODY", "TR", "DIV"]);

export function toFragment(html: string): DocumentFragment {
  const fragment = purify.sanitize(html, { ...CONFIG, RETURN_DOM_FRAGMENT: true });
  prune(fragment);
  return fragment;
}

function prune(node: Node): void {
  for (const child of [...node.childNodes]) {
    const between = node.nodeType === Node.DOCUMENT_FRAGMENT_NODE || PRUNED.has(node.nodeName);
    if (child.nodeType === Node.TEXT_NODE && between && child.textContent?.trim() === "") {
      child.remove();
    } else prune(child);
  }
}
