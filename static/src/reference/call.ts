/* One call of the API as the page's form describes it. Knows no page. */

export interface Call {
  method: string;
  /** With its parameters in braces: `/api/v1/jobs/{job_id}`. */
  path: string;
  /** Of the path and of the query; empty ones of the query are left out. */
  parameters: { name: string; place: string; value: string }[];
  body: string | null;
  key: string;
}

export interface Answer {
  status: number;
  text: string;
}

/** The address to call, below `base`. */
export function address(base: string, call: Call): string {
  let path = call.path;
  const query = new URLSearchParams();
  for (const { name, place, value } of call.parameters) {
    if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value !== "") query.set(name, value);
  }
  const asked = query.toString();
  return base + path + (asked ? `?${asked}` : "");
}

/** Sends it; `said` hears the answer's text whenever there is more of it. */
export async function send(
  base: string,
  call: Call,
  signal: AbortSignal,
  said: (answer: Answer) => void,
): Promise<Answer> {
  const response = await fetch(address(base, call), {
    method: call.method,
    credentials: "omit",
    signal,
    headers: {
      ...(call.key ? { Authorization: `Bearer ${call.key}` } : {}),
      ...(call.body === null ? {} : { "Content-Type": "application/json" }),
    },
    ...(call.body === null ? {} : { body: call.body }),
  });
  const answer: Answer = { status: response.status, text: "" };
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    answer.text += part.value;
    said(answer);
  }
  if (response.headers.get("Content-Type")?.includes("json")) answer.text = tidy(answer.text);
  return answer;
}

/** JSON with its indentation; anything else as it is. */
export function tidy(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
