/*
 * On a narrow screen the parts marked `.sheet` slide in. While one is open the rest of the page is
 * inert, Esc and a touch beside it close it, and focus returns to the button that opened it.
 */

let closeOpen: (() => void) | null = null;

export function listenForSheets(): void {
  document.addEventListener("click", (event) => {
    const target = event.target as HTMLElement;
    const opener = target.closest<HTMLElement>("[data-sheet]");
    if (opener) openSheet(opener);
    else if (target.closest("[data-sheet-close]")) closeSheet();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && closeOpen) {
      event.stopImmediatePropagation();
      closeSheet();
    }
  });
  matchMedia("(min-width: 900px)").addEventListener("change", closeSheet);
}

export function closeSheet(): void {
  closeOpen?.();
}

function openSheet(opener: HTMLElement): void {
  const sheet = document.getElementById(opener.dataset.sheet ?? "");
  if (!sheet) return;
  closeSheet();
  const scrim = document.createElement("div");
  scrim.className = "scrim";
  scrim.addEventListener("click", closeSheet);
  sheet.before(scrim); // inside its stacking context, or the sheet would lie under it
  const silenced = outsideOf(sheet);
  for (const element of silenced) element.inert = true;
  sheet.classList.add("is-open");
  opener.setAttribute("aria-expanded", "true");
  sheet.querySelector<HTMLElement>("[data-sheet-close]")?.focus();
  closeOpen = () => {
    closeOpen = null;
    sheet.classList.remove("is-open");
    for (const element of silenced) element.inert = false;
    scrim.remove();
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  };
}

/** Everything that is neither the sheet, nor inside it, nor around it. */
function outsideOf(sheet: HTMLElement): HTMLElement[] {
  const outside: HTMLElement[] = [];
  for (let node: HTMLElement = sheet; node !== document.body && node.parentElement; ) {
    for (const sibling of node.parentElement.children) {
      const other = sibling as HTMLElement;
      if (other !== node && !other.classList.contains("scrim") && !other.inert) outside.push(other);
    }
    node = node.parentElement;
  }
  return outside;
}
