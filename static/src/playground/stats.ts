/* The figures under an answer, counted from its entries as they come. */

import type { JobEvent, Usage } from "../stream/protocol";
import type { Stats } from "./types";

export class Counter {
  private tokens = 0;
  private firstAt: number | null = null;
  private lastAt: number | null = null;
  private sentAt: number | null;
  private live: boolean;

  /** `live`: the entries come as they are made, so that times mean something. */
  constructor(live: boolean, now: number) {
    this.live = live;
    this.sentAt = live ? now : null;
  }

  take(event: JobEvent, now: number): void {
    if (event.type !== "delta" || event.token_ids.length === 0) return;
    this.tokens += event.token_ids.length;
    this.firstAt ??= now;
    this.lastAt = now;
  }

  /** What came before this moment was replayed, and what comes after it is live. */
  get count(): number {
    return this.tokens;
  }

  stats(usage?: Usage): Stats {
    const tokens = usage?.completion_tokens ?? this.tokens;
    const span = this.firstAt === null || this.lastAt === null ? 0 : this.lastAt - this.firstAt;
    return {
      prompt_tokens: usage?.prompt_tokens ?? 0,
      completion_tokens: tokens,
      tokens_per_second: this.live && span > 200 ? ((this.tokens - 1) * 1000) / span : null,
      first_token:
        this.sentAt === null || this.firstAt === null ? null : (this.firstAt - this.sentAt) / 1000,
    };
  }
}
