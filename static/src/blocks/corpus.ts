/* For tests: answers as models write them, and as nobody should. */

export const CORPUS: Record<string, string> = {
  prose: "One paragraph.\nStill the same.\n\nAnother **bold** and *slanted* `code` one.\n",
  crlf: "# Title\r\n\r\n- one\r\n- two\r\n\r\n```py\r\nx = 1\r\n```\r\n\r\n| a | b |\r\n|---|---|\r\n| 1 | 2 |\r\nend\r\n",
  returns: "old\rmac\r\rlines\r- a\r- b\r",
  setext: "Title\n=====\n\nSub\n---\ntext\n-\nmore\n***\n- - -\nafter",
  lists:
    "1. one\n2. two\n   - deep\n     - deeper\n\n       a paragraph inside\n   - back\n3. three\n\n* other\n+ another\n\n  with a paragraph\n\n\n+ loose\n10) ten\n11) eleven\nlazy line\n",
  listToText: "- a\n- b\ntext goes on\n\nparagraph\n- tight again\n\n      code in item\n",
  tight: "- a\n- b\n- c\n\n- now loose\n- e\n",
  tasks: "Steps:\n1. Do\n```sh\nls -la\n```\n2. Done\n   ```js\n   const a = `x`;\n   ```\n3. End",
  table:
    "Before\n| Name | Price |\n|:-----|------:|\n| Tea | 3 |\n| Bread \\| rolls | **4** |\n| `a|b` |\nnot | piped\n\nAfter the table.\n",
  tableInterrupts: "text\na | b\n---|---\n1 | 2\n> quote\n",
  noTable: "a | b\n--- x\n| c |\n|-\n",
  fence: "Code:\n\n```python\ndef f(x):\n    return `x` # $5\n\n\nprint(f(1))\n```\nand on.\n",
  endless: "Look:\n```js\nconst a = 1;\n\n- not a list\n| no | table |\n|---|---|\n``\n",
  tildes: "~~~~ text\n```\n~~~\n~~~~~\n~~strike~~\n",
  fenceInList: "- item\n  ```json\n  {\"a\": [1, 2]}\n  ```\n- next\n\n      indented\n- ```\n  open",
  indented: "para\n    lazy\n\n    code <b>\n\n    more code\n\nback\n\ttab\n",
  quotes: "> quoted\nlazy\n> - list in quote\n>\n> ```\n> code\n\nout\n> a\n\n> b\n>> deeper\n",
  latex:
    "Let \\(a_1 < b_2\\) and $x^2_i$, costs $5 or $6.\n\n$$\n\\int_0^1 x\\,dx = \\frac12\n$$\n\n\\[ e = mc^2 \\]\nText $$a$$ text.\n$$ one line $$\n",
  latexOpen: "Before\n\\[ a_1\n# not a heading\nb\n\n# A heading\n$$\nnever closed\n\nend $ alone $$",
  html: "<script>alert(1)</script>\n\n<div onclick='x()'>\n\n**in**\n\n</div> a<br>b <img src=x onerror=alert(1)>\n<!-- c -->\n",
  links:
    "[a](https://example.org/a_b?c=1&d=2) <https://example.com> https://example.net/x. [bad](javascript:alert(1)) ![pic](https://example.org/p.png \"t\") [ref][1]\n\n[1]: https://example.org\n[ref]: /x\n",
  cjk: "# 标题\n\n第一段，**重点**和`代码`。\n第二行\n\n1. 苹果\n2. 香蕉\n\n| 名称 | 价格 |\n|---|---|\n| 茶 | 3 元 |\n\n```python\nprint(\"你好 🦉\")\n```\n",
  marks: "- \n-\n1.\n#\n##\n>\n*\n**\n___\n`\n``\n|\n:-:\n\n\n\n-",
  entities: "&amp; &lt;b&gt; \\* \\_ \\# &copy; \u0000 \u00a0x\n\n&#x3C;script&#62;\n",
  headings: "# a\n## b ##\npara\n### c\n#nospace\n####### seven\n",
  empty: "",
  blank: "\n\n  \n\t\n",
};
