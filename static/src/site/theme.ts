/* Light or dark: the system's choice until somebody chooses; the server reads the cookie. */

const COOKIE = "llmasos_theme";

export function listenForTheme(): void {
  document.addEventListener("click", (event) => {
    if (!(event.target as HTMLElement).closest("[data-theme-switch]")) return;
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "ink"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    const next = dark ? "paper" : "ink";
    root.dataset.theme = next;
    const year = 365 * 24 * 3600;
    document.cookie = `${COOKIE}=${next}; path=/; max-age=${year}; SameSite=Lax`;
  });
}
