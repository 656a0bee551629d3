/* JSON over the page's own origin, with Django's CSRF token, and one kind of error. */

import { t } from "./strings";

export class RequestFailed extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field: string | null = null,
    /** Seconds after which it may be tried again. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

interface ErrorBody {
  error?: { code?: string; message?: string; field?: string | null };
}

export async function request<T>(method: string, url: string, body?: unknown): Promise<T> {
  let response: Response;
  try {
    response = await fetch(url, {
      method,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        "X-CSRFToken": document.body.dataset.csrf ?? "",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch {
    throw new RequestFailed(0, "network", t("error.network"));
  }
  const data = await readBody(response);
  if (response.ok) return data as T;
  const error = (data as ErrorBody | null)?.error;
  throw new RequestFailed(
    response.status,
    error?.code ?? `http_${response.status}`,
    error?.message ?? fallback(response.status),
    error?.field ?? null,
    Number(response.headers.get("Retry-After")) || null,
  );
}

async function readBody(response: Response): Promise<unknown> {
  if (!response.headers.get("Content-Type")?.includes("json")) return null;
  try {
    return await response.json();
  } catch {
    return null;
  }
}

function fallback(status: number): string {
  if (status === 403) return t("error.session");
  if (status === 404) return t("error.gone");
  return t("error.server");
}
