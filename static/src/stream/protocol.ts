/*
 * What the socket `/ws/jobs` carries. The events are those of inference_workers/contract.py;
 * fields at their default are left out by the writer, so everything optional here may be absent.
 */

export interface Usage {
  prompt_tokens?: number;
  completion_tokens?: number;
  cached_tokens?: number;
}

export type JobEvent =
  | { type: "started"; worker: string }
  | {
      type: "delta";
      choice?: number;
      first?: number;
      token_ids: number[];
      text?: string;
      finish?: "stop" | "length";
    }
  | { type: "finished"; reason: "stop" | "length"; usage?: Usage }
  | { type: "failed"; code: string; message: string; usage?: Usage }
  | { type: "cancelled"; usage?: Usage };

export type NoticeState = "queued" | "loading" | "resuming";

export interface Notice {
  state: NoticeState;
  position?: number;
  fraction?: number;
}

export interface StreamProblem {
  code: string;
  message: string;
}

export type ServerMessage =
  | { type: "entry"; job: string; seq: number; event: JobEvent }
  | ({ type: "notice"; job: string } & Notice)
  | ({ type: "error"; job: string | null } & StreamProblem)
  | { type: "pong" };

export type ClientMessage =
  | { type: "watch"; job: string; after: number }
  | { type: "ack"; job: string; seq: number }
  | { type: "unwatch"; job: string }
  | { type: "cancel"; job: string }
  | { type: "ping" };

export function isTerminal(event: JobEvent): boolean {
  return event.type === "finished" || event.type === "failed" || event.type === "cancelled";
}

/** Reads one message; null for what this version does not know. Throws on anything but JSON. */
export function readMessage(data: string): ServerMessage | null {
  const value: unknown = JSON.parse(data);
  if (typeof value !== "object" || value === null || !("type" in value)) return null;
  const message = value as ServerMessage;
  switch (message.type) {
    case "entry":
      return Number.isInteger(message.seq) && typeof message.job === "string" ? message : null;
    case "notice":
      return typeof message.job === "string" ? message : null;
    case "error":
    case "pong":
      return message;
    default:
      return null;
  }
}
