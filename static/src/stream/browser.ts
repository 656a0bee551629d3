/* The stream client wired to the page it lives in. */

import { type ConnectionState, type SocketLike, StreamClient } from "./client";

/** `address` is a path or URL of the page's own origin; http becomes ws. */
export function openStream(address: string, fault?: (message: string) => void): StreamClient {
  const url = new URL(address, window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const client = new StreamClient({
    connect: () => new WebSocket(url) as unknown as SocketLike,
    fault: fault ?? ((message) => console.warn(`stream: ${message}`)),
  });
  window.addEventListener("online", () => client.nudge());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) client.nudge();
  });
  return client;
}

export { type ConnectionState, StreamClient };
