/* The playground's endpoints, relative to its page. */

import { request } from "../site/http";
import type {
  ConversationInfo,
  ConversationRow,
  JobStarted,
  Mode,
  Settings,
} from "./types";

export interface NewJob {
  /** Makes a repeated submit the same job. */
  client_key: string;
  conversation: string;
  model: string;
  mode: Mode;
  settings: Settings;
  text?: string;
  regenerate?: string;
  edit?: string;
}

export class Api {
  /** `base` is the playground's own address, with its slash at the end. */
  constructor(private readonly base: string) {}

  pageOf(conversation: string): string {
    return `${this.base}c/${conversation}/`;
  }

  get home(): string {
    return this.base;
  }

  createConversation(mode: Mode, model: string): Promise<ConversationInfo> {
    return request("POST", `${this.base}conversations`, { mode, model });
  }

  conversation(id: string): Promise<ConversationInfo> {
    return request("GET", `${this.base}conversations/${id}`);
  }

  async conversations(query: string): Promise<ConversationRow[]> {
    const found = await request<ConversationRow[] | { conversations: ConversationRow[] }>(
      "GET",
      `${this.base}conversations?q=${encodeURIComponent(query)}`,
    );
    return Array.isArray(found) ? found : found.conversations;
  }

  change(
    id: string,
    what: { title?: string; mode?: Mode; model?: string; settings?: Settings },
  ): Promise<unknown> {
    return request("PATCH", `${this.base}conversations/${id}`, what);
  }

  remove(id: string): Promise<unknown> {
    return request("DELETE", `${this.base}conversations/${id}`);
  }

  restore(id: string): Promise<unknown> {
    return request("POST", `${this.base}conversations/${id}/restore`, {});
  }

  createJob(job: NewJob): Promise<JobStarted> {
    return request("POST", `${this.base}jobs`, job);
  }

  cancel(job: string): Promise<unknown> {
    return request("POST", `${this.base}jobs/${job}/cancel`, {});
  }

  async countTokens(model: string, text: string): Promise<number> {
    const { count } = await request<{ count: number }>("POST", `${this.base}tokens`, { model, text });
    return count;
  }
}
