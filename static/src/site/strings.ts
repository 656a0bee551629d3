/* The page's language: strings translated by the server, in `<template id="strings">`. */

type Values = Record<string, string | number>;

let catalogue: Map<string, string> | null = null;

function load(): Map<string, string> {
  const found = new Map<string, string>();
  const template = document.querySelector<HTMLTemplateElement>("template#strings");
  for (const element of template?.content.querySelectorAll<HTMLElement>("[data-key]") ?? []) {
    found.set(element.dataset.key ?? "", element.textContent.trim());
  }
  return found;
}

export function t(key: string, values: Values = {}): string {
  catalogue ??= load();
  const text = catalogue.get(key) ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

export const language = (): string => document.documentElement.lang || "en";

/** Why a job failed: what its worker says, or in another language than its the sentence for its code. */
export function failure(event: { code: string; message: string }): string {
  const key = `failed.${event.code}`;
  const sentence = t(key);
  const said = event.message || event.code;
  return language().startsWith("en") || sentence === key ? said : sentence;
}

/** The plural form of `key` that `n` takes, with `n` written as the language writes numbers. */
export function plural(key: string, n: number): string {
  const form = new Intl.PluralRules(language()).select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n: number(n) });
}

export function number(n: number, digits = 0): string {
  return n.toLocaleString(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits });
}
