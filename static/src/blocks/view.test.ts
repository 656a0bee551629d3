// @vitest-environment jsdom
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";

import { CORPUS } from "./corpus";
import { useTex } from "./enhance";
import { BlocksView, renderInto } from "./view";

const labels = { copy: "Copy" };
beforeAll(() => useTex((tex, into) => void (into.textContent = `«${tex}»`)));

/** Frames that come when told to. */
function frames() {
  const queue: (() => void)[] = [];
  return {
    schedule: (run: () => void) => void queue.push(run),
    run: () => queue.splice(0).forEach((each) => each()),
  };
}

function whole(text: string): string {
  const root = document.createElement("div");
  renderInto(root, text, labels);
  return root.innerHTML;
}

function grow(chunks: string[], everyFrame = true): { html: string; root: HTMLElement } {
  const root = document.createElement("div");
  const { schedule, run } = frames();
  const view = new BlocksView(root, { labels, schedule });
  for (const chunk of chunks) {
    view.push(chunk);
    if (everyFrame) run();
  }
  run();
  view.finish();
  return { html: root.innerHTML, root };
}

function cut(text: string, at: number[]): string[] {
  const places = [...new Set(at.map((n) => n % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((from, index) => text.slice(from, places[index] ?? text.length));
}

describe("a growing text", () => {
  for (const [name, text] of Object.entries(CORPUS)) {
    it(`ends as one whole render: ${name}`, () => {
      for (const size of [5, 41]) {
        const chunks = text.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
        expect(grow(chunks).html).toBe(whole(text));
      }
    });
  }

  it("ends as one whole render for random cuts", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray(Object.values(CORPUS), { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(1500), { maxLength: 8 }),
        fc.boolean(),
        (pieces, cuts, everyFrame) => {
          const text = pieces.join("");
          expect(grow(cut(text, cuts), everyFrame).html).toBe(whole(text));
        },
      ),
      { numRuns: 10 },
    );
  }, 30_000);
});

describe("what survives the sanitiser", () => {
  it("keeps a table's alignment, a list's first number and a formula's display", () => {
    const { root } = grow(["| a |\n|--:|\n| 1 |\n\n7. seven\n\n$$\nx\n$$\n"]);
    expect(root.querySelector("td")?.dataset.align).toBe("right");
    expect(root.querySelector("ol")?.start).toBe(7);
    expect(root.querySelector<HTMLElement>(".math")?.dataset.display).toBe("true");
  });
});

describe("what is finished", () => {
  function growing() {
    const root = document.createElement("div");
    const { schedule, run } = frames();
    const view = new BlocksView(root, { labels, schedule });
    const push = (text: string) => {
      view.push(text);
      run();
    };
    return { root, view, push };
  }

  it("is never rendered again", () => {
    const { root, view, push } = growing();
    push("# Title\n\nFirst.\n\nSecond");
    const [title, first] = [...root.children];
    push(" goes on.\n\n- a\n- b\n\nEnd.\n");
    view.finish();
    expect(root.children[0]).toBe(title);
    expect(root.children[1]).toBe(first);
  });

  it("keeps a list's items while others are added", () => {
    const { root, push } = growing();
    push("- one\n- two\n- thr");
    const items = [...root.querySelectorAll("li")];
    push("ee\n- four\n- five");
    const after = [...root.querySelectorAll("li")];
    expect(after).toHaveLength(5);
    expect(after[0]).toBe(items[0]);
    expect(after[2]?.textContent).toBe("three");
  });

  it("keeps a table's rows while others are added", () => {
    const { root, push } = growing();
    push("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |");
    const rows = [...root.querySelectorAll("tr")];
    push(" 4 |\n| 5 | 6 |\n");
    const after = [...root.querySelectorAll("tr")];
    expect(after).toHaveLength(4);
    expect(after.slice(0, 2)).toEqual(rows.slice(0, 2));
    expect(after[0]).toBe(rows[0]);
    expect(after[1]).toBe(rows[1]);
  });

  it("appends to a fence's text without replacing it", () => {
    const { root, push } = growing();
    push("```python\na = 1\n");
    const node = root.querySelector("code")?.firstChild;
    push("b = 2\n``");
    expect(root.querySelector("code")?.firstChild).toBe(node);
    expect(node?.textContent).toBe("a = 1\nb = 2\n");
  });

  it("writes to the page once per frame", () => {
    const root = document.createElement("div");
    const { schedule, run } = frames();
    let written = 0;
    const view = new BlocksView(root, { labels, schedule, written: () => (written += 1) });
    for (let i = 0; i < 50; i++) view.push("word ");
    expect(written).toBe(0);
    run();
    expect(written).toBe(1);
  });

  it("does not turn a paragraph into a heading while a list begins", () => {
    const { root, push } = growing();
    push("Things to buy:\n-");
    expect(root.querySelector("h2")).toBeNull();
    push(" tea");
    expect(root.querySelector("li")?.textContent).toBe("tea");
  });
});

describe("a model's text cannot become markup", () => {
  const attacks = [
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:x)",
    "![x](https://e.example/p.png\"onerror=\"alert(1))",
    "<https://e.example/\"onmouseover=alert(1)>",
    "```html\"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```",
    "$</span><img src=x onerror=alert(1)>$",
    "| <script>x</script> |\n|---|\n| <iframe src=javascript:x> |",
    "<a href=\"javascript:x\">x</a>",
    "<style>*{display:none}</style>",
    "<br onclick=alert(1)>",
  ];
  it.each(attacks)("%s", (attack) => {
    const { root } = grow([attack.slice(0, 9), attack.slice(9)]);
    expect(root.querySelector("script,img,svg,iframe,style,object,form,input")).toBeNull();
    for (const element of root.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on|^style$|^src$/);
        if (name === "href") expect(value).toMatch(/^(https?|mailto):/);
      }
    }
  });

  it("opens links elsewhere without telling where they came from", () => {
    const { root } = grow(["[a](https://example.org)"]);
    expect(root.querySelector("a")?.rel).toContain("noopener");
  });
});
