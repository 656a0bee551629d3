/* What every page has: styles, htmx, sheets, menus, theme, copy buttons, confirmations. */

import "../styles/main.css";

import htmx from "htmx.org";

import { listenForPasskeys } from "./passkeys";
import { listenForSheets } from "./sheets";
import { listenForTheme } from "./theme";

declare global {
  interface Window {
    htmx: typeof htmx;
  }
}
window.htmx = htmx;

listenForSheets();
listenForTheme();
listenForPasskeys();

/* On a narrow screen an area's list of pages scrolls sideways. */
document
  .querySelector(".side-links [aria-current]")
  ?.scrollIntoView({ block: "nearest", inline: "center" });

document.addEventListener("click", (event) => {
  const target = event.target as HTMLElement;
  for (const menu of document.querySelectorAll<HTMLDetailsElement>("details[data-menu][open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
  const copy = target.closest<HTMLElement>("[data-copy]");
  if (copy) void copySnippet(copy);
});

/* While the event is on its way down, so that htmx, which listens on the form, hears no refused one. */
document.addEventListener(
  "submit",
  (event) => {
    const question = (event.target as HTMLElement).dataset.confirm;
    if (!question || window.confirm(question)) return;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);

async function copySnippet(button: HTMLElement): Promise<void> {
  const text = button.parentElement?.querySelector("code")?.textContent;
  if (text === undefined) return;
  await navigator.clipboard.writeText(text);
  const label = button.textContent;
  button.textContent = button.dataset.copied ?? label;
  setTimeout(() => (button.textContent = label), 1600);
}

/* The operators' wall says when its figures are old. */
for (const [event, stale] of [
  ["htmx:afterRequest", false],
  ["htmx:sendError", true],
  ["htmx:responseError", true],
] as const) {
  document.addEventListener(event, (cause) => {
    if ((cause.target as HTMLElement).id !== "live") return;
    if (!stale && !(cause as CustomEvent<{ successful: boolean }>).detail.successful) return;
    const pill = document.querySelector<HTMLElement>("[data-live-pill]");
    pill?.querySelector("[data-live]")?.toggleAttribute("hidden", stale);
    pill?.querySelector("[data-stale]")?.toggleAttribute("hidden", !stale);
    pill?.querySelector(".dot")?.classList.toggle("dot-good", !stale);
    pill?.querySelector(".dot")?.classList.toggle("dot-bad", stale);
  });
}
