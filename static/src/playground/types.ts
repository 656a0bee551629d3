/* What the playground's page and endpoints say; portal/playground is the other side. */

export type Mode = "chat" | "completion";

export interface ModelInfo {
  id: string;
  name: string;
  kind: "base" | "instruct";
  context_length: number;
  /** "ready", or why it cannot be asked. */
  state: string;
}

export interface Settings {
  temperature: number;
  top_p: number;
  top_k: number;
  repetition_penalty: number;
  max_tokens: number;
  stop: string[];
  seed: number | null;
  system: string;
  json_schema: string;
}

export interface JobInfo {
  id: string;
  state: string;
  last_seq?: number;
  stats?: Partial<Stats> | null;
  reason?: string | null;
  error?: { code: string; message: string } | string | null;
}

/** Times are seconds. */
export interface Stats {
  prompt_tokens: number;
  completion_tokens: number;
  tokens_per_second: number | null;
  first_token_s: number | null;
}

export interface MessageInfo {
  id: string;
  role: "user" | "assistant";
  text: string;
  model?: string;
  job?: JobInfo | null;
}

export interface ConversationInfo {
  id: string;
  title: string;
  mode: Mode;
  model: string;
  settings?: Partial<Settings>;
  messages?: MessageInfo[];
  updated_at?: string;
}

export interface ConversationRow {
  id: string;
  title: string;
  updated_at: string;
}

export interface Example {
  title: string;
  prompt: string;
  mode?: Mode;
  settings?: Partial<Settings>;
}

export interface PageState {
  models: ModelInfo[];
  conversation: ConversationInfo | null;
  conversations: ConversationRow[];
  settings: Partial<Settings> & { mode?: Mode; model?: string };
  examples: Example[];
  user: { signed_in: boolean };
}

export interface JobStarted {
  job: { id: string };
  /** The answer that was begun; `question` is the id of the message that it answers. */
  message: MessageInfo;
  question: string;
  conversation: ConversationInfo;
}

export const DEFAULTS: Settings = {
  temperature: 0.7,
  top_p: 0.95,
  top_k: 0,
  repetition_penalty: 1.1,
  max_tokens: 256,
  stop: [],
  seed: null,
  system: "",
  json_schema: "",
};
