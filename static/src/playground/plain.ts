/* A completion is one text: what was given, and what the model went on with. No Markdown. */

export class PlainView {
  private readonly made = document.createElement("span");
  private readonly text = document.createTextNode("");
  private waiting = "";
  private scheduled = false;

  constructor(
    root: HTMLElement,
    given: string,
    private readonly written: () => void,
  ) {
    const before = document.createElement("span");
    before.className = "given";
    before.textContent = given;
    this.made.className = "made";
    this.made.append(this.text);
    root.append(before, this.made);
  }

  push(text: string): void {
    this.waiting += text;
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.finish();
      this.written();
    });
  }

  finish(): void {
    if (this.waiting) this.text.appendData(this.waiting);
    this.waiting = "";
  }
}
