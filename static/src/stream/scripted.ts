/* For tests: a server and a clock that do exactly what a script tells them, without a browser. */

import type { Clock, SocketLike } from "./client";
import type { ClientMessage, JobEvent, ServerMessage } from "./protocol";

export const WINDOW = 256;

/** Time that moves only when told to. */
export class ManualClock implements Clock {
  now = 0;
  private next = 1;
  private readonly timers = new Map<number, { at: number; run: () => void }>();

  setTimeout(run: () => void, ms: number): number {
    this.timers.set(this.next, { at: this.now + ms, run });
    return this.next++;
  }

  clearTimeout(id: number): void {
    this.timers.delete(id);
  }

  advance(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.timers].filter(([, t]) => t.at <= end).sort((a, b) => a[1].at - b[1].at);
      const first = due[0];
      if (!first) break;
      this.timers.delete(first[0]);
      this.now = first[1].at;
      first[1].run();
    }
    this.now = end;
  }
}

export class ScriptedSocket implements SocketLike {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  readonly sent: ClientMessage[] = [];
  /** Per watched job: the last seq sent and the last one acknowledged. */
  readonly cursors = new Map<string, { sent: number; acknowledged: number }>();
  alive = true;
  opened = false;

  constructor(private readonly server: ScriptedServer) {}

  send(data: string): void {
    if (!this.alive) throw new Error("sent on a closed socket");
    const message = JSON.parse(data) as ClientMessage;
    this.sent.push(message);
    if (message.type === "watch") {
      this.cursors.set(message.job, { sent: message.after, acknowledged: message.after });
    } else if (message.type === "ack") {
      const cursor = this.cursors.get(message.job);
      if (cursor) cursor.acknowledged = Math.max(cursor.acknowledged, message.seq);
    } else if (message.type === "unwatch") this.cursors.delete(message.job);
  }

  close(): void {
    this.cut(1000);
  }

  cut(code = 1006): void {
    if (!this.alive) return;
    this.alive = false;
    this.server.live.delete(this);
    this.onclose?.({ code });
  }

  deliver(message: ServerMessage): void {
    this.raw(JSON.stringify(message));
  }

  raw(data: string): void {
    if (this.alive) this.onmessage?.({ data });
  }

  /** Sends up to `count` further entries of each watched job, within the window. */
  pump(count: number): void {
    for (const [job, cursor] of [...this.cursors]) {
      const log = this.server.logs.get(job) ?? [];
      for (let i = 0; i < count && cursor.sent < log.length; i++) {
        if (cursor.sent - cursor.acknowledged >= WINDOW) break;
        cursor.sent += 1;
        const event = log[cursor.sent - 1];
        if (event) this.deliver({ type: "entry", job, seq: cursor.sent, event });
      }
    }
  }

  /** Sends the last `count` entries of each watched job again. */
  repeat(count: number): void {
    for (const cursor of this.cursors.values()) cursor.sent = Math.max(0, cursor.sent - count);
  }
}

export class ScriptedServer {
  readonly logs = new Map<string, JobEvent[]>();
  readonly live = new Set<ScriptedSocket>();
  connections = 0;

  connect = (): ScriptedSocket => {
    const socket = new ScriptedSocket(this);
    this.connections += 1;
    this.live.add(socket);
    return socket;
  };

  /** Lets every connection that is still being made succeed. */
  open(): void {
    for (const socket of [...this.live]) {
      if (socket.opened) continue;
      socket.opened = true;
      socket.onopen?.();
    }
  }
}

/** A log of `length` entries: started, one token each, finished. */
export function logOf(name: string, length: number): JobEvent[] {
  const log: JobEvent[] = [{ type: "started", worker: "w" }];
  for (let i = 0; i < length - 2; i++) {
    log.push({ type: "delta", first: i, token_ids: [i], text: `${name}${i} ` });
  }
  log.push({ type: "finished", reason: "stop", usage: { completion_tokens: length - 2 } });
  return log;
}
