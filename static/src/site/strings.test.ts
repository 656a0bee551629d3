// @vitest-environment jsdom
import { expect, it } from "vitest";

import { failure } from "./strings";

const lost = { code: "worker_lost", message: "Two workers died while they worked on this request." };
const unheardOf = { code: "unheard_of", message: "Something else." };
document.body.innerHTML = `<template id="strings">
<span data-key="failed.worker_lost">请重试。</span></template>`;

it("says a failure as the worker does, with its numbers, in English", () => {
  document.documentElement.lang = "en";
  expect(failure(lost)).toBe(lost.message);
  expect(failure({ code: "internal", message: "" })).toBe("internal");
});

it("says a failure in the page's language where there is a sentence for its code", () => {
  document.documentElement.lang = "zh-hans";
  expect(failure(lost)).toBe("请重试。");
  expect(failure(unheardOf)).toBe("Something else.");
});
