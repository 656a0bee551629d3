/* The figures under an answer, counted from its entries as they come. */

import type { JobEvent, Usage } from "../stream/protocol";
import type { Stats } from "./types";

export class Counter {
  private tokens = 0;
  private skipped = 0;
  private firstAt: number | null = null;
  private lastAt: number | null = null;
  private readonly sentAt: number | null;

  /** `live`: it was asked for just now, so that the time to the first token can be told. */
  constructor(live: boolean, now: number) {
    this.sentAt = live ? now : null;
  }

  /** Tokens that were written before anybody looked; exact once the usage comes. */
  skip(tokens: number): void {
    this.skipped = tokens;
  }

  take(event: JobEvent, now: number): void {
    if (event.type !== "delta" || event.token_ids.length === 0) return;
    this.tokens += event.token_ids.length;
    this.firstAt ??= now;
    this.lastAt = now;
  }

  get count(): number {
    return this.skipped + this.tokens;
  }

  stats(usage?: Usage): Stats {
    const tokens = usage?.completion_tokens ?? this.count;
    const span = this.firstAt === null || this.lastAt === null ? 0 : this.lastAt - this.firstAt;
    return {
      prompt_tokens: usage?.prompt_tokens ?? 0,
      completion_tokens: tokens,
      tokens_per_second: span > 200 ? ((this.tokens - 1) * 1000) / span : null,
      first_token_s:
        this.sentAt === null || this.firstAt === null ? null : (this.firstAt - this.sentAt) / 1000,
    };
  }
}
