import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";

import { ACK_ENTRIES, ACK_MS, type ConnectionState, StreamClient, type WatchHandler } from "./client";
import type { JobEvent, Notice, StreamProblem } from "./protocol";
import { logOf, ManualClock, ScriptedServer, type ScriptedSocket } from "./scripted";

class Reader implements WatchHandler {
  seqs: number[] = [];
  events: JobEvent[] = [];
  notices: Notice[] = [];
  problems: StreamProblem[] = [];
  entry(seq: number, event: JobEvent) {
    this.seqs.push(seq);
    this.events.push(event);
  }
  notice(notice: Notice) {
    this.notices.push(notice);
  }
  error(problem: StreamProblem) {
    this.problems.push(problem);
  }
}

let server: ScriptedServer;
let clock: ManualClock;
let client: StreamClient;
let states: ConnectionState[];
let faults: string[];

function start() {
  server = new ScriptedServer();
  clock = new ManualClock();
  states = [];
  faults = [];
  client = new StreamClient({
    connect: server.connect,
    clock,
    random: () => 1,
    fault: (message) => faults.push(message),
  });
  client.onState((state) => states.push(state));
}

function socket(): ScriptedSocket {
  const [only] = [...server.live];
  if (!only) throw new Error("no live socket");
  return only;
}

function acks(): number[] {
  return socket().sent.flatMap((message) => (message.type === "ack" ? [message.seq] : []));
}

beforeEach(start);

describe("watching", () => {
  it("opens one socket for many jobs", () => {
    const readers = ["a", "b", "c"].map((job) => {
      server.logs.set(job, logOf(job, 40));
      const reader = new Reader();
      client.watch(job, 0, reader);
      return reader;
    });
    server.open();
    socket().pump(1000);
    expect(server.connections).toBe(1);
    for (const reader of readers) expect(reader.seqs).toHaveLength(40);
  });

  it("goes on after the entry it was told", () => {
    server.logs.set("a", logOf("a", 10));
    const reader = new Reader();
    client.watch("a", 7, reader);
    server.open();
    socket().pump(100);
    expect(reader.seqs).toEqual([8, 9, 10]);
  });

  it("stops delivering and tells the server when nobody watches any more", () => {
    server.logs.set("a", logOf("a", 10));
    const reader = new Reader();
    const stop = client.watch("a", 0, reader);
    server.open();
    socket().pump(3);
    stop();
    expect(socket().sent.at(-1)).toEqual({ type: "unwatch", job: "a" });
    socket().deliver({ type: "entry", job: "a", seq: 4, event: logOf("a", 10)[3]! });
    expect(reader.seqs).toEqual([1, 2, 3]);
  });

  it("passes notices on and ignores messages of a newer server", () => {
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().deliver({ type: "notice", job: "a", state: "queued", position: 3 });
    socket().raw(JSON.stringify({ type: "weather", sun: true }));
    socket().raw("[1]");
    expect(reader.notices).toMatchObject([{ state: "queued", position: 3 }]);
    expect(faults).toEqual([]);
  });

  it("hands a job's problem to its own reader and ends that watch alone", () => {
    const [a, b] = [new Reader(), new Reader()];
    server.logs.set("b", logOf("b", 5));
    client.watch("a", 0, a);
    client.watch("b", 0, b);
    server.open();
    socket().deliver({ type: "error", job: "a", code: "not_found", message: "No such job." });
    socket().pump(10);
    expect(a.problems).toMatchObject([{ code: "not_found" }]);
    expect(b.seqs).toHaveLength(5);
  });
});

describe("acknowledging", () => {
  it("acknowledges every 64 entries without waiting", () => {
    server.logs.set("a", logOf("a", 300));
    client.watch("a", 0, new Reader());
    server.open();
    socket().pump(130);
    expect(acks()).toEqual([ACK_ENTRIES, 2 * ACK_ENTRIES]);
  });

  it("acknowledges a trickle after 250 ms", () => {
    server.logs.set("a", logOf("a", 300));
    client.watch("a", 0, new Reader());
    server.open();
    socket().pump(3);
    clock.advance(ACK_MS - 1);
    expect(acks()).toEqual([]);
    clock.advance(1);
    expect(acks()).toEqual([3]);
  });

  it("keeps a server flowing that stops at its window", () => {
    server.logs.set("a", logOf("a", 4000));
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().pump(4000);
    expect(reader.seqs).toHaveLength(4000);
  });
});

describe("a lost connection", () => {
  it("says so once, comes back later each time, and says when it is mended", () => {
    server.logs.set("a", logOf("a", 9));
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().pump(4);
    socket().cut();
    expect(states).toEqual(["connecting", "open", "lost"]);
    const waits: number[] = [];
    for (let i = 0; i < 5; i++) {
      const before = clock.now;
      const connections = server.connections;
      while (server.connections === connections) clock.advance(50);
      waits.push(clock.now - before);
      socket().cut();
    }
    expect(waits).toEqual([250, 500, 1000, 2000, 4000]);
    expect(states.at(-1)).toBe("lost");
    clock.advance(10_000);
    server.open();
    expect(socket().sent[0]).toEqual({ type: "watch", job: "a", after: 4 });
    socket().pump(100);
    expect(states).toEqual(["connecting", "open", "lost", "mended"]);
    expect(reader.seqs).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it("does not come back when nothing is watched", () => {
    server.logs.set("a", logOf("a", 5));
    client.watch("a", 0, new Reader());
    server.open();
    socket().pump(5);
    socket().cut();
    clock.advance(60_000);
    expect(server.connections).toBe(1);
    expect(states.at(-1)).toBe("idle");
  });

  it("does not come back after being refused, and says so to every reader", () => {
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().cut(4401);
    clock.advance(60_000);
    expect(server.connections).toBe(1);
    expect(states.at(-1)).toBe("refused");
    expect(reader.problems).toHaveLength(1);
  });

  it("is noticed when the server falls silent", () => {
    client.watch("a", 0, new Reader());
    server.open();
    clock.advance(20_000);
    expect(socket().sent.at(-1)).toEqual({ type: "ping" });
    clock.advance(10_000);
    expect(states).toContain("lost");
  });

  it("is not suspected while pongs come", () => {
    client.watch("a", 0, new Reader());
    server.open();
    for (let i = 0; i < 5; i++) {
      clock.advance(20_000);
      socket().deliver({ type: "pong" });
    }
    expect(states).toEqual(["connecting", "open"]);
  });

  it("is retried at once when the browser says the network is back", () => {
    client.watch("a", 0, new Reader());
    server.open();
    socket().cut();
    client.nudge();
    expect(server.connections).toBe(2);
  });
});

describe("cancelling", () => {
  it("asks again after a cut until the end has been seen", () => {
    server.logs.set("a", logOf("a", 50));
    client.watch("a", 0, new Reader());
    server.open();
    client.cancel("a");
    socket().cut();
    clock.advance(1000);
    server.open();
    expect(socket().sent).toContainEqual({ type: "cancel", job: "a" });
    socket().pump(100);
    const second = socket();
    second.cut();
    expect(states.at(-1)).toBe("idle");
  });
});

describe("a server that cannot read a job just now", () => {
  it("is met again later, and the watch goes on", () => {
    server.logs.set("a", logOf("a", 10));
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().pump(4);
    socket().deliver({ type: "error", job: "a", code: "internal", message: "Reading failed." });
    clock.advance(1000);
    server.open();
    socket().pump(10);
    expect(reader.problems).toEqual([]);
    expect(reader.seqs).toHaveLength(10);
  });
});

describe("a server that breaks the protocol", () => {
  it("is left and met again at the last good entry when an entry is missing", () => {
    const log = logOf("a", 20);
    server.logs.set("a", log);
    const reader = new Reader();
    client.watch("a", 0, reader);
    server.open();
    socket().pump(5);
    socket().deliver({ type: "entry", job: "a", seq: 8, event: log[7]! });
    expect(reader.seqs).toEqual([1, 2, 3, 4, 5]);
    expect(faults).toEqual(["job a jumped from entry 5 to 8"]);
    clock.advance(1000);
    server.open();
    socket().pump(100);
    expect(reader.events).toEqual(log);
  });

  it("is left when it sends something that is not JSON", () => {
    client.watch("a", 0, new Reader());
    server.open();
    socket().raw("<html>502</html>");
    expect(faults).toHaveLength(1);
    expect(states.at(-1)).toBe("lost");
  });
});

describe("any sequence of cuts, repeats and bursts", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("pump" as const), n: fc.integer({ min: 1, max: 120 }) }),
    fc.record({ do: fc.constant("repeat" as const), n: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ do: fc.constant("cut" as const), n: fc.constant(0) }),
    fc.record({ do: fc.constant("wait" as const), n: fc.integer({ min: 1, max: 3000 }) }),
  );

  it("delivers every entry of every job in order and once", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 3, max: 400 }), { minLength: 1, maxLength: 4 }),
        fc.array(step, { maxLength: 40 }),
        (lengths, steps) => {
          start();
          const readers = lengths.map((length, index) => {
            const log = logOf(`j${index}`, length);
            server.logs.set(`j${index}`, log);
            const reader = new Reader();
            client.watch(`j${index}`, 0, reader);
            return { reader, log };
          });
          server.open();
          for (const { do: what, n } of steps) {
            const [current] = [...server.live];
            if (what === "wait" || !current) {
              clock.advance(n + 300);
              server.open();
            }
            else if (what === "pump") current.pump(n);
            else if (what === "repeat") current.repeat(n);
            else current.cut();
          }
          for (let i = 0; i < 20; i++) {
            for (const current of [...server.live]) current.pump(1000);
            clock.advance(11_000);
            server.open();
          }
          expect(faults.filter((fault) => !fault.includes("silent"))).toEqual([]);
          for (const { reader, log } of readers) expect(reader.events).toEqual(log);
        },
      ),
      { numRuns: 150 },
    );
  });
});
