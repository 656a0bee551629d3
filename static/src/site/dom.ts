/* Small helpers for pages whose markup comes from the server. */

/** The element, or an error that names what the template lacks. */
export function find<T extends HTMLElement = HTMLElement>(
  selector: string,
  root: ParentNode = document,
): T {
  const element = root.querySelector<T>(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/** A copy of the one element in `<template id=…>`. */
export function fromTemplate(id: string): HTMLElement {
  const template = find<HTMLTemplateElement & HTMLElement>(`template#${id}`);
  const element = template.content.firstElementChild?.cloneNode(true);
  if (!(element instanceof HTMLElement)) throw new Error(`template ${id} is empty`);
  return element;
}

/** What the server left in `<script type="application/json" id=…>`. */
export function readJson<T>(id: string): T {
  return JSON.parse(find(`#${id}`).textContent) as T;
}

export function show(element: HTMLElement, visible: boolean): void {
  element.hidden = !visible;
}

/** Writes only what changed, so that nothing is laid out or announced for nothing. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
