/*
 * One socket, many jobs. A watch delivers a job's log entries in order and each exactly once,
 * across any number of lost connections: `seq` counts from 1 without gaps, so the last one
 * delivered is all that has to be remembered.
 */

import {
  type ClientMessage,
  isTerminal,
  type JobEvent,
  type Notice,
  readMessage,
  type ServerMessage,
  type StreamProblem,
} from "./protocol";

export const ACK_ENTRIES = 64;
export const ACK_MS = 250;
const PING_MS = 20_000;
const SILENCE_MS = 10_000;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 10_000;
/** Close codes from here to 4499 mean "do not come back": signed out, foreign origin, disabled. */
const REFUSED_FROM = 4400;

/** The server could not read a job just now: come back and resume. */
const TRANSIENT = "internal";

/** The part of WebSocket that is used; tests script their own. */
export interface SocketLike {
  onopen: (() => void) | null;
  onmessage: ((event: { data: string }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(data: string): void;
  close(): void;
}

export interface Clock {
  setTimeout(run: () => void, ms: number): number;
  clearTimeout(id: number): void;
}

export interface WatchHandler {
  entry(seq: number, event: JobEvent): void;
  notice?(notice: Notice): void;
  /** The watch has ended without a terminal entry. */
  error?(problem: StreamProblem): void;
}

export type ConnectionState = "idle" | "connecting" | "open" | "lost" | "mended" | "refused";

export interface StreamOptions {
  connect: () => SocketLike;
  clock?: Clock;
  random?: () => number;
  /** A server that breaks the protocol; the client has already healed itself by reconnecting. */
  fault?: (message: string) => void;
}

interface Watch {
  handler: WatchHandler;
  seq: number;
  acknowledged: number;
  ackTimer: number | null;
}

const browserClock: Clock = {
  setTimeout: (run, ms) => window.setTimeout(run, ms),
  clearTimeout: (id) => window.clearTimeout(id),
};

export class StreamClient {
  private readonly clock: Clock;
  private readonly random: () => number;
  private readonly watches = new Map<string, Watch>();
  private readonly cancels = new Set<string>();
  private readonly listeners = new Set<(state: ConnectionState) => void>();
  private socket: SocketLike | null = null;
  private open = false;
  private wasLost = false;
  private refused = false;
  private attempts = 0;
  private retryTimer: number | null = null;
  private pingTimer: number | null = null;
  private silenceTimer: number | null = null;

  constructor(private readonly options: StreamOptions) {
    this.clock = options.clock ?? browserClock;
    this.random = options.random ?? Math.random;
  }

  /** Delivers the entries of `job` that come after `after`; returns how to stop. */
  watch(job: string, after: number, handler: WatchHandler): () => void {
    const watch: Watch = { handler, seq: after, acknowledged: after, ackTimer: null };
    const former = this.watches.get(job);
    if (former) this.forget(job, former);
    this.watches.set(job, watch);
    if (this.open) this.send({ type: "watch", job, after });
    else this.ensureConnected();
    return () => {
      if (this.watches.get(job) !== watch) return;
      this.forget(job, watch);
      if (this.open) this.send({ type: "unwatch", job });
    };
  }

  /** Asks to stop a job; asked again after a lost connection until its end is seen. */
  cancel(job: string): void {
    if (this.watches.has(job) || !this.open) this.cancels.add(job);
    if (this.open) this.send({ type: "cancel", job });
    else this.ensureConnected();
  }

  onState(listener: (state: ConnectionState) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  get connected(): boolean {
    return this.open;
  }

  /** Tries at once instead of waiting out the backoff: the network came back, the tab woke up. */
  nudge(): void {
    if (this.socket || this.refused || !this.wanted()) return;
    this.attempts = 0;
    this.connect();
  }

  private wanted(): boolean {
    return this.watches.size > 0 || this.cancels.size > 0;
  }

  private ensureConnected(): void {
    this.refused = false;
    if (this.socket === null && this.retryTimer === null) this.connect();
  }

  private connect(): void {
    this.clear("retryTimer");
    const socket = this.options.connect();
    this.socket = socket;
    if (!this.wasLost) this.tell("connecting");
    socket.onopen = () => this.opened();
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.received(data);
    };
    socket.onclose = ({ code }) => {
      if (this.socket === socket) this.closed(code);
    };
  }

  private opened(): void {
    this.open = true;
    for (const [job, watch] of this.watches) {
      watch.acknowledged = watch.seq;
      this.send({ type: "watch", job, after: watch.seq });
    }
    for (const job of this.cancels) {
      this.send({ type: "cancel", job });
      if (!this.watches.has(job)) this.cancels.delete(job); // nobody would see its end
    }
    this.tell(this.wasLost ? "mended" : "open");
    this.wasLost = false;
    this.schedulePing();
  }

  private closed(code: number): void {
    this.socket = null;
    this.open = false;
    this.clear("pingTimer");
    this.clear("silenceTimer");
    for (const watch of this.watches.values()) this.stopAckTimer(watch);
    if (code >= REFUSED_FROM && code < 4500) { this.refuse(code); return; }
    if (!this.wanted()) { this.tell("idle"); return; }
    if (!this.wasLost) {
      this.wasLost = true;
      this.tell("lost");
    }
    this.retryLater();
  }

  private refuse(code: number): void {
    this.refused = true;
    this.cancels.clear();
    const ended = [...this.watches.values()];
    this.watches.clear();
    for (const { handler } of ended) handler.error?.({ code: `closed_${code}`, message: "" });
    this.tell("refused");
  }

  private retryLater(): void {
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.attempts);
    this.attempts += 1;
    const delay = ceiling * (0.5 + this.random() / 2);
    this.retryTimer = this.clock.setTimeout(() => this.connect(), delay);
  }

  private received(data: string): void {
    this.clear("silenceTimer");
    let message: ServerMessage | null;
    try {
      message = readMessage(data);
    } catch {
      this.fail("the server sent something that is not JSON");
      return;
    }
    if (message === null) return;
    if (message.type === "pong") this.attempts = 0;
    else if (message.type === "entry") this.entry(message.job, message.seq, message.event);
    else if (message.type === "notice") {
      this.attempts = 0;
      this.watches.get(message.job)?.handler.notice?.(message);
    } else this.problem(message.job, message);
  }

  private entry(job: string, seq: number, event: JobEvent): void {
    const watch = this.watches.get(job);
    if (!watch || seq <= watch.seq) return;
    if (seq !== watch.seq + 1) {
      this.fail(`job ${job} jumped from entry ${watch.seq} to ${seq}`);
      return;
    }
    this.attempts = 0;
    watch.seq = seq;
    if (isTerminal(event)) {
      this.acknowledge(job, watch);
      this.forget(job, watch);
    } else this.acknowledgeSoon(job, watch);
    watch.handler.entry(seq, event);
  }

  private acknowledgeSoon(job: string, watch: Watch): void {
    if (watch.seq - watch.acknowledged >= ACK_ENTRIES) this.acknowledge(job, watch);
    else
      watch.ackTimer ??= this.clock.setTimeout(() => {
        watch.ackTimer = null;
        this.acknowledge(job, watch);
      }, ACK_MS);
  }

  private acknowledge(job: string, watch: Watch): void {
    this.stopAckTimer(watch);
    if (watch.acknowledged === watch.seq) return;
    watch.acknowledged = watch.seq;
    this.send({ type: "ack", job, seq: watch.seq });
  }

  private problem(job: string | null, { code, message }: StreamProblem): void {
    if (code === TRANSIENT) {
      this.fail(message);
      return;
    }
    const watch = job === null ? undefined : this.watches.get(job);
    if (job === null || !watch) return this.options.fault?.(`${code}: ${message}`);
    this.forget(job, watch);
    watch.handler.error?.({ code, message });
  }

  private forget(job: string, watch: Watch): void {
    this.stopAckTimer(watch);
    this.watches.delete(job);
    this.cancels.delete(job);
  }

  /** A broken conversation is abandoned, not repaired: the next one resumes at the last entry. */
  private fail(message: string): void {
    this.options.fault?.(message);
    const socket = this.socket;
    this.closed(1002);
    socket?.close();
  }

  private schedulePing(): void {
    this.clear("pingTimer");
    this.pingTimer = this.clock.setTimeout(() => {
      this.send({ type: "ping" });
      this.silenceTimer ??= this.clock.setTimeout(
        () => this.fail("the server fell silent"),
        SILENCE_MS,
      );
      this.schedulePing();
    }, PING_MS);
  }

  private send(message: ClientMessage): void {
    if (this.open) this.socket?.send(JSON.stringify(message));
  }

  private stopAckTimer(watch: Watch): void {
    if (watch.ackTimer !== null) this.clock.clearTimeout(watch.ackTimer);
    watch.ackTimer = null;
  }

  private clear(name: "retryTimer" | "pingTimer" | "silenceTimer"): void {
    const timer = this[name];
    if (timer !== null) this.clock.clearTimeout(timer);
    this[name] = null;
  }

  private tell(state: ConnectionState): void {
    for (const listener of this.listeners) listener(state);
  }
}
