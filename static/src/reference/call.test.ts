import { describe, expect, it } from "vitest";

import { address, type Call, tidy } from "./call";

const call = (path: string, ...parameters: Call["parameters"]): Call => ({
  method: "GET",
  path,
  parameters,
  body: null,
  key: "",
});

describe("address", () => {
  it("fills in the path so that a value stays one segment", () => {
    const made = call("/v1/jobs/{id}", { name: "id", place: "path", value: "a/b?c" });
    expect(address("/ai", made)).toBe("/ai/v1/jobs/a%2Fb%3Fc");
  });

  it("asks for what was given and leaves out the rest", () => {
    const made = call(
      "/v1/jobs",
      { name: "limit", place: "query", value: "2" },
      { name: "before", place: "query", value: "" },
    );
    expect(address("", made)).toBe("/v1/jobs?limit=2");
  });
});

describe("tidy", () => {
  it("indents JSON and leaves other text alone", () => {
    expect(tidy('{"a":1}')).toBe('{\n  "a": 1\n}');
    expect(tidy("data: {")).toBe("data: {");
  });
});
