/* A short note at the bottom, with at most one thing to do. */

import { find } from "./dom";

const LIFE_MS = 7000;

export function toast(text: string, action?: { label: string; run: () => void }): void {
  const item = document.createElement("div");
  item.className = "toast-item";
  item.append(document.createTextNode(text));
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      item.remove();
      action.run();
    });
    item.append(button);
  }
  find("#toasts").append(item);
  setTimeout(() => item.remove(), LIFE_MS);
}
