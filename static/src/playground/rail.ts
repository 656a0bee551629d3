/* Saved conversations: open, search, rename, delete (and take that back). */

import { find, fromTemplate, setText, show } from "../site/dom";
import { t } from "../site/strings";
import { toast } from "../site/toast";
import type { Api } from "./api";
import type { ConversationRow } from "./types";

const SEARCH_AFTER_MS = 250;
const DAY_MS = 24 * 3600 * 1000;

export interface RailActions {
  open(id: string): void;
  fresh(): void;
  renamed(id: string, title: string): void;
  removed(id: string): void;
}

export class Rail {
  private readonly list = find("#conversations");
  private readonly search = find<HTMLInputElement>("#search");
  private readonly empty = find("#no-conversations");
  private rows: ConversationRow[] = [];
  private current: string | null = null;
  private timer = 0;

  constructor(
    private readonly api: Api,
    private readonly actions: RailActions,
  ) {
    find("#new").addEventListener("click", () => this.actions.fresh());
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => void this.refresh(), SEARCH_AFTER_MS);
    });
  }

  show(rows: ConversationRow[]): void {
    this.rows = rows;
    this.render();
  }

  mark(id: string | null): void {
    this.current = id;
    for (const item of this.list.querySelectorAll<HTMLElement>(".rail-item")) {
      const here = item.dataset.id === id;
      item.dataset.current = String(here);
      if (here) find("[data-open]", item).setAttribute("aria-current", "page");
      else find("[data-open]", item).removeAttribute("aria-current");
    }
  }

  async refresh(): Promise<void> {
    const asked = this.search.value;
    try {
      const rows = await this.api.conversations(asked);
      if (asked === this.search.value) this.show(rows);
    } catch (error) {
      console.warn("conversations could not be listed", error); // the old list is still good
    }
  }

  private render(): void {
    const children: Node[] = [];
    let heading = "";
    for (const row of this.rows) {
      const when = this.when(row.updated_at);
      if (when !== heading) {
        heading = when;
        const title = document.createElement("h2");
        title.textContent = when;
        children.push(title);
      }
      children.push(this.item(row));
    }
    this.list.replaceChildren(...children);
    setText(this.empty, this.search.value ? t("none_found") : t("none_saved"));
    show(this.empty, this.rows.length === 0);
    this.mark(this.current);
  }

  private when(time: string): string {
    const date = new Date(time);
    if (date.toDateString() === new Date().toDateString()) return t("today");
    return Date.now() - date.getTime() < 7 * DAY_MS ? t("week") : t("earlier");
  }

  private item(row: ConversationRow): HTMLElement {
    const item = fromTemplate("t-conversation");
    item.dataset.id = row.id;
    const link = find<HTMLAnchorElement>("[data-open]", item);
    link.textContent = row.title || t("untitled");
    link.title = link.textContent;
    link.href = this.api.pageOf(row.id);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.actions.open(row.id);
    });
    find("[data-rename]", item).addEventListener("click", () => this.rename(row));
    find("[data-delete]", item).addEventListener("click", () => void this.remove(row));
    return item;
  }

  private rename(row: ConversationRow): void {
    const dialog = find<HTMLDialogElement>("#rename");
    const input = find<HTMLInputElement>("#rename-title");
    input.value = row.title;
    dialog.returnValue = "";
    dialog.onclose = () => {
      const title = input.value.trim();
      if (dialog.returnValue !== "ok" || title === "" || title === row.title) return;
      void this.saveTitle(row, title);
    };
    find("[data-dialog-close]", dialog).onclick = () => dialog.close();
    dialog.showModal();
    input.select();
  }

  private async saveTitle(row: ConversationRow, title: string): Promise<void> {
    try {
      await this.api.change(row.id, { title });
      row.title = title;
      this.render();
      this.actions.renamed(row.id, title);
    } catch (error) {
      toast((error as Error).message);
    }
  }

  private async remove(row: ConversationRow): Promise<void> {
    try {
      await this.api.remove(row.id);
    } catch (error) {
      toast((error as Error).message);
      return;
    }
    this.show(this.rows.filter(({ id }) => id !== row.id));
    this.actions.removed(row.id);
    toast(t("deleted"), { label: t("undo"), run: () => void this.restore(row) });
  }

  private async restore(row: ConversationRow): Promise<void> {
    try {
      await this.api.restore(row.id);
      await this.refresh();
    } catch (error) {
      toast((error as Error).message);
    }
  }
}
