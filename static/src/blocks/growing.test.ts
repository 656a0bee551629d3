import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { CORPUS } from "./corpus";
import { GrowingText, type Piece } from "./growing";
import { renderTokens, renderWhole } from "./markdown";

/** The finished blocks of a text that came in `chunks`, read after each of them. */
function grow(chunks: string[]): Piece[] {
  const text = new GrowingText();
  const pieces: Piece[] = [];
  for (const chunk of chunks) {
    text.push(chunk);
    pieces.push(...text.update().finished);
  }
  pieces.push(...text.finish().finished);
  return pieces;
}

function html(pieces: Piece[]): string {
  return pieces.map(({ group }) => renderTokens(group.tokens)).join("");
}

function cut(text: string, at: number[]): string[] {
  const places = [...new Set(at.map((n) => n % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((from, index) => text.slice(from, places[index] ?? text.length));
}

describe("a growing text", () => {
  it.each(Object.entries(CORPUS))("splits as the whole does, letter by letter: %s", (_, text) => {
    expect(html(grow(text.match(/[^]/gu) ?? []))).toBe(renderWhole(text));
  });

  it("splits as the whole does for any cuts of any mixture", () => {
    const texts = Object.values(CORPUS);
    const piece = fc.constantFrom(...texts, ...texts.flatMap((text) => text.split(/(?<=\n)/)));
    fc.assert(
      fc.property(
        fc.array(piece, { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(2000), { maxLength: 60 }),
        (pieces, cuts) => {
          const text = pieces.join("");
          expect(html(grow(cut(text, cuts)))).toBe(renderWhole(text));
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("splits as the whole does for lines made of marks", () => {
    const marks = ["- ", "1. ", "7) ", "* ", "# ", "#", "> ", "```", "``", "~~~", "\n", "\n\n", "\r\n"];
    marks.push("|", "a", "b c", "    ", "  ", "\\", "|---|", ":-:|", "| a | b |\n", "$$", "\\[", "\\]", "\r");
    marks.push("$", "*", "**", "`", "===", "---", "-", "\t", "茶", "[a]: /b", "<div>");
    const mark = fc.constantFrom(...marks);
    fc.assert(
      fc.property(fc.array(mark, { maxLength: 60 }), (some) => {
        expect(html(grow(some))).toBe(renderWhole(some.join("")));
      }),
      { numRuns: 5000 },
    );
  });

  it("never finishes more than the block before the last", () => {
    const text = new GrowingText();
    text.push("one\n\ntwo\n\nthree\n");
    const { finished, tail } = text.update();
    expect(finished).toHaveLength(2);
    expect(tail).toHaveLength(1);
  });
});
