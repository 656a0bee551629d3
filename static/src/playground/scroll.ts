/* Keeps the newest line in view for those who are there; leaves readers further up alone. */

import { find, show } from "../site/dom";

const NEAR_PX = 60;

export class Scroll {
  private readonly pane = find("#scroll");
  private readonly button = find("#newest");
  private readonly talk = find("#talk");
  private following = true;

  constructor() {
    this.pane.addEventListener("scroll", () => this.look(), { passive: true });
    this.button.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(this.pane);
  }

  follow(): void {
    const talking = this.talk.hasChildNodes();
    if (talking && this.following) this.pane.scrollTop = this.pane.scrollHeight;
    show(this.button, talking && !this.following);
  }

  toEnd(): void {
    this.following = true;
    this.follow();
  }

  toStart(): void {
    this.following = false;
    this.pane.scrollTop = 0;
    this.look();
  }

  private look(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.pane;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    show(this.button, !this.following && this.talk.hasChildNodes());
  }
}
