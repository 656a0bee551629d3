/*
 * Passkeys: a form marked `data-passkey` asks the browser first and then sends its answer along.
 * What to ask lies in the page (`create`, `get`) or is fetched when the button is pressed (`login`).
 */

import { readJson } from "./dom";

type Json = Record<string, unknown>;
interface Options {
  publicKey: Json & {
    challenge: string;
    user?: Json & { id: string };
    authenticatorSelection?: Json;
    allowCredentials?: (Json & { id: string })[];
    excludeCredentials?: (Json & { id: string })[];
  };
}

export function listenForPasskeys(): void {
  for (const form of document.querySelectorAll<HTMLFormElement>("form[data-passkey]")) {
    if (!usable()) {
      // beside the password it is only one way of several: say nothing until it is chosen
      if (form.dataset.passkey === "create") say(form, "address");
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        say(form, "address");
      });
      continue;
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void ask(form);
    });
  }
}

/** Browsers know passkeys only of names, reached securely. */
function usable(): boolean {
  const address = /^[\d.]+$|^\[/.test(location.hostname);
  return window.isSecureContext && "credentials" in navigator && !address;
}

async function ask(form: HTMLFormElement): Promise<void> {
  const button = form.querySelector<HTMLButtonElement>("button[type=submit]");
  if (button) button.disabled = true;
  try {
    const credential = await answer(form);
    const field = form.elements.namedItem("credential") as HTMLInputElement;
    field.value = JSON.stringify(credential);
    form.submit();
  } catch {
    say(form, "refused");
    if (button) button.disabled = false;
  }
}

async function answer(form: HTMLFormElement): Promise<Json> {
  if (form.dataset.passkey === "create") {
    const { creation_options: options } = readJson<{ creation_options: Options }>("passkey-options");
    const resident = form.querySelector<HTMLInputElement>("[data-passkey-resident]")?.checked ?? false;
    options.publicKey.authenticatorSelection = {
      ...options.publicKey.authenticatorSelection,
      residentKey: resident ? "required" : "discouraged",
      requireResidentKey: resident,
      ...(resident ? { userVerification: "required" } : {}),
    };
    return encode(await navigator.credentials.create(decode(options)));
  }
  const options =
    form.dataset.passkey === "login"
      ? await fetchOptions(form.action)
      : readJson<{ request_options: Options }>("passkey-options").request_options;
  return encode(await navigator.credentials.get(decode(options)));
}

async function fetchOptions(url: string): Promise<Options> {
  const headers = { Accept: "application/json", "X-Requested-With": "XMLHttpRequest" };
  const response = await fetch(url, { credentials: "same-origin", headers });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return ((await response.json()) as { request_options: Options }).request_options;
}

interface Decoded {
  publicKey: PublicKeyCredentialCreationOptions & PublicKeyCredentialRequestOptions;
}

function decode({ publicKey }: Options): Decoded {
  const known = (list?: (Json & { id: string })[]) => list?.map((each) => ({ ...each, id: toBytes(each.id) }));
  const decoded = {
    publicKey: {
      ...publicKey,
      challenge: toBytes(publicKey.challenge),
      ...(publicKey.user ? { user: { ...publicKey.user, id: toBytes(publicKey.user.id) } } : {}),
      allowCredentials: known(publicKey.allowCredentials) ?? [],
      excludeCredentials: known(publicKey.excludeCredentials) ?? [],
    },
  };
  return decoded as unknown as Decoded;
}

function encode(made: Credential | null): Json {
  if (!(made instanceof PublicKeyCredential)) throw new Error("the browser gave nothing");
  const said: Json = {};
  const names = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
  for (const name of names) {
    const value = (made.response as unknown as Record<string, unknown>)[name];
    if (value instanceof ArrayBuffer) said[name] = toText(value);
  }
  if (made.response instanceof AuthenticatorAttestationResponse) {
    said.transports = made.response.getTransports();
  }
  return {
    id: made.id,
    rawId: toText(made.rawId),
    type: made.type,
    response: said,
    authenticatorAttachment: made.authenticatorAttachment,
    clientExtensionResults: made.getClientExtensionResults(),
  };
}

function toBytes(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function toText(bytes: ArrayBuffer): string {
  const binary = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function say(form: HTMLFormElement, what: "refused" | "address"): void {
  form.querySelector<HTMLElement>(`[data-passkey-${what}]`)?.removeAttribute("hidden");
}
