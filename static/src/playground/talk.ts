/* The column in the middle: what was said and what was answered, in order. */

import { find, fromTemplate, setText, show } from "../site/dom";
import { Turn, type TurnActions } from "./turn";
import type { ConversationInfo, MessageInfo, Mode } from "./types";

/** A message of the user's, with the answer to it. */
export interface Exchange {
  said: HTMLElement | null;
  id: string | null;
  text: string;
  turn: Turn | null;
}

export interface TalkActions extends TurnActions {
  edit(exchange: Exchange): void;
}

export class Talk {
  private readonly column = find("#talk");
  readonly exchanges: Exchange[] = [];

  constructor(private readonly actions: TalkActions) {}

  clear(): void {
    this.exchanges.length = 0;
    this.column.replaceChildren();
    this.showWelcome();
  }

  get last(): Exchange | undefined {
    return this.exchanges.at(-1);
  }

  /** Shows a saved conversation; returns the answers that are still being written. */
  load(conversation: ConversationInfo): { turn: Turn; message: MessageInfo }[] {
    this.clear();
    const open: { turn: Turn; message: MessageInfo }[] = [];
    for (const message of conversation.messages ?? []) {
      if (message.role === "user") {
        this.say(conversation.mode, message.text, message.id);
        continue;
      }
      const turn = this.answered(conversation, message);
      if (turn.job) open.push({ turn, message });
    }
    return open;
  }

  say(mode: Mode, text: string, id: string | null = null): Exchange {
    const exchange: Exchange = { said: null, id, text, turn: null };
    if (mode === "chat") {
      const said = fromTemplate("t-said");
      setText(find("[data-text]", said), text);
      find("[data-edit]", said).addEventListener("click", () => this.actions.edit(exchange));
      this.column.append(said);
      exchange.said = said;
    }
    this.exchanges.push(exchange);
    this.showWelcome();
    return exchange;
  }

  /** The answer to `exchange`, new or in place of the one that was there. */
  answer(exchange: Exchange, mode: Mode, model: string): Turn {
    const turn = new Turn(mode, model, this.actions);
    turn.prompt = exchange.text;
    if (exchange.turn) exchange.turn.element.replaceWith(turn.element);
    else this.column.append(turn.element);
    exchange.turn = turn;
    return turn;
  }

  /** Takes away `exchange` and everything after it. */
  cutFrom(exchange: Exchange): void {
    const at = this.exchanges.indexOf(exchange);
    if (at < 0) return;
    for (const { said, turn } of this.exchanges.splice(at)) {
      said?.remove();
      turn?.element.remove();
    }
  }

  /** Learns the ids that the server gave to what was shown before it answered. */
  learn(conversation: ConversationInfo): void {
    const messages = conversation.messages ?? [];
    const said = messages.filter(({ role }) => role === "user");
    this.exchanges.forEach((exchange, index) => (exchange.id ??= said[index]?.id ?? null));
    const answers = messages.filter(({ role }) => role === "assistant");
    this.exchanges.forEach(({ turn }, index) => {
      if (turn) turn.id ??= answers[index]?.id ?? null;
    });
  }

  private answered(conversation: ConversationInfo, message: MessageInfo): Turn {
    const exchange = this.last ?? this.say(conversation.mode, "");
    const turn = this.answer(exchange, conversation.mode, message.model ?? conversation.model);
    turn.id = message.id;
    const job = message.job;
    if (job && !["finished", "failed", "cancelled"].includes(job.state)) {
      turn.job = job.id;
    } else turn.showEnded(message);
    return turn;
  }

  private showWelcome(): void {
    show(find("#welcome"), this.exchanges.length === 0);
  }
}
