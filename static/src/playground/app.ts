/* The playground: ties the composer, the talk, the settings and the rail to the server. */

import { find, fromTemplate, setText, show } from "../site/dom";
import { RequestFailed } from "../site/http";
import { closeSheet } from "../site/sheets";
import { failure, t } from "../site/strings";
import { toast } from "../site/toast";
import type { ConnectionState, StreamClient } from "../stream/client";
import { isTerminal, type JobEvent } from "../stream/protocol";
import { Announcer } from "./announce";
import type { Api, NewJob } from "./api";
import { Composer } from "./composer";
import { Rail } from "./rail";
import { Scroll } from "./scroll";
import { SettingsPanel } from "./settings";
import { type Exchange, Talk } from "./talk";
import type { Turn } from "./turn";
import type { ConversationInfo, Example, JobStarted, Mode, PageState, Settings } from "./types";

const SAVE_AFTER_MS = 600;
const MENDED_MS = 2500;

export class App {
  private readonly scroll = new Scroll();
  private readonly announcer = new Announcer();
  private readonly settings: SettingsPanel;
  private readonly composer: Composer;
  private readonly rail: Rail;
  private readonly talk: Talk;
  private conversation: ConversationInfo | null = null;
  private active: Turn | null = null;
  private stopWanted = false;
  private editing: Exchange | null = null;
  private asked = new Map<Turn, () => Promise<void>>();
  private unwatch: (() => void)[] = [];
  private saveTimer = 0;
  private mode: Mode = "completion";
  /** What an example replaced, to go back to with the next conversation. */
  private beforeExample: Settings | null = null;

  constructor(
    private readonly state: PageState,
    private readonly api: Api,
    private readonly stream: StreamClient,
  ) {
    this.settings = new SettingsPanel(state.models, () => this.settingsChanged());
    this.composer = new Composer({
      send: (text) => void this.send(text),
      stop: () => this.stop(),
      editLast: () => this.talk.last && this.edit(this.talk.last),
      cancelEdit: () => this.cancelEdit(),
      count: (text) => this.api.countTokens(this.settings.model?.id ?? "", text),
    });
    this.rail = new Rail(api, {
      open: (id) => void this.open(id, true),
      fresh: () => this.fresh(true),
      renamed: (id, title) => {
        if (this.conversation?.id === id) this.titled({ ...this.conversation, title });
      },
      removed: (id) => this.conversation?.id === id && this.fresh(true),
    });
    this.talk = new Talk({
      regenerate: (turn) => void this.regenerate(turn),
      goOn: (turn) => void this.send(turn.prompt + turn.text),
      retry: (turn) => void (this.asked.get(turn) ?? (() => this.regenerate(turn)))(),
      edit: (exchange) => this.edit(exchange),
      written: () => this.scroll.follow(),
    });
    this.stream.onState((connection) => this.connection(connection));
    window.addEventListener("popstate", () => this.returnTo());
  }

  start(): void {
    const { conversation, conversations, settings, examples } = this.state;
    this.rail.show(conversations);
    this.showExamples(examples);
    this.settings.pick(settings.model);
    this.settings.values = settings;
    const chats = this.settings.model?.kind === "instruct";
    this.settings.mode = settings.mode ?? (chats ? "chat" : "completion");
    if (conversation) this.showConversation(conversation);
    else this.talk.clear();
    this.mode = this.settings.mode;
    this.composer.setMode(this.settings.mode);
    this.composer.setRunning(this.active !== null);
    if (matchMedia("(min-width: 900px)").matches) this.composer.focus();
  }

  private async send(text: string): Promise<void> {
    if (this.active) return;
    const edited = this.editing;
    this.cancelEdit();
    if (edited) {
      if (!edited.id) await this.learnIds();
      this.talk.cutFrom(edited);
    }
    this.composer.text = "";
    const exchange = this.talk.say(this.settings.mode, text);
    const what = edited?.id ? { edit: edited.id, text } : { text };
    await this.ask(exchange, what);
  }

  private async regenerate(turn: Turn): Promise<void> {
    if (this.active) return;
    const exchange = this.talk.exchanges.find((each) => each.turn === turn);
    if (!exchange) return;
    if (!turn.id) await this.learnIds();
    const following = this.talk.exchanges[this.talk.exchanges.indexOf(exchange) + 1];
    if (following) this.talk.cutFrom(following);
    await this.ask(exchange, turn.id ? { regenerate: turn.id } : { text: exchange.text });
  }

  /** Asks for an answer to `exchange` and follows it. A second try has the same key. */
  private async ask(exchange: Exchange, what: Partial<NewJob>): Promise<void> {
    const { mode, model, values } = this.settings;
    const turn = this.talk.answer(exchange, mode, model?.id ?? "");
    const key = crypto.randomUUID();
    const submit = async (): Promise<void> => {
      if (this.active && this.active !== turn) return;
      this.begin(turn, true);
      this.scroll.toEnd();
      this.settings.complain("", null);
      try {
        this.conversation ??= await this.create();
        const started = await this.api.createJob({
          ...what,
          client_key: key,
          conversation: this.conversation.id,
          model: model?.id ?? "",
          mode,
          settings: values,
        });
        this.asked.delete(turn);
        this.started(turn, exchange, started);
      } catch (error) {
        this.refused(turn, error);
      }
    };
    this.asked.set(turn, submit);
    await submit();
  }

  private async create(): Promise<ConversationInfo> {
    const { mode, model, values } = this.settings;
    const made = await this.api.createConversation(mode, model?.id ?? "");
    window.history.pushState(null, "", this.api.pageOf(made.id));
    void this.api.change(made.id, { settings: values }).catch(() => undefined);
    return made;
  }

  private started(turn: Turn, exchange: Exchange, begun: JobStarted): void {
    const { job, message, question, conversation } = begun;
    turn.job = job.id;
    turn.id = message.id;
    exchange.id = question;
    this.titled(conversation);
    void this.rail.refresh();
    this.follow(turn, job.id, 0);
    if (this.stopWanted) this.stop();
  }

  private refused(turn: Turn, error: unknown): void {
    turn.refuse(error);
    this.ended(turn);
    const message = error instanceof Error ? error.message : "";
    this.announcer.say(message);
    if (error instanceof RequestFailed && error.status === 400) {
      this.settings.complain(error.field === "text" ? "" : message, error.field);
    }
  }

  private begin(turn: Turn, live: boolean): void {
    this.active = turn;
    this.stopWanted = false;
    turn.begin(live);
    this.composer.setRunning(true);
  }

  private follow(turn: Turn, job: string, after: number): void {
    let heard = false;
    const stop = this.stream.watch(job, after, {
      entry: (_seq, event) => {
        turn.take(event);
        if (!heard && event.type === "delta") this.announcer.say(t("answer_started"));
        heard ||= event.type === "delta";
        this.announce(event);
        if (isTerminal(event)) this.ended(turn);
      },
      notice: (notice) => turn.notice(notice),
      error: ({ message }) => {
        turn.refuse(new Error(message || t("error.stream")));
        this.ended(turn);
      },
    });
    this.unwatch.push(stop);
  }

  private announce(event: JobEvent): void {
    if (event.type === "delta") this.announcer.write(event.text ?? "");
    else if (event.type === "finished") this.announcer.say(t("answer_done"));
    else if (event.type === "failed") this.announcer.say(failure(event));
  }

  private ended(turn: Turn): void {
    if (this.active !== turn) return;
    this.active = null;
    this.composer.setRunning(false);
    this.scroll.follow();
  }

  private stop(): void {
    const turn = this.active;
    if (!turn) return;
    turn.stopping();
    this.stopWanted = true;
    if (!turn.job || !turn.running) return;
    if (this.stream.connected) this.stream.cancel(turn.job);
    else void this.api.cancel(turn.job).catch((error: unknown) => toast((error as Error).message));
  }

  private edit(exchange: Exchange): void {
    if (this.active) return;
    this.editing = exchange;
    this.composer.text = exchange.text;
    this.composer.setEditing(true);
    this.composer.focus();
  }

  private cancelEdit(): void {
    if (!this.editing) return;
    this.editing = null;
    this.composer.text = "";
    this.composer.setEditing(false);
  }

  private async learnIds(): Promise<void> {
    if (!this.conversation) return;
    try {
      this.talk.learn(await this.api.conversation(this.conversation.id));
    } catch (error) {
      toast((error as Error).message);
    }
  }

  private async open(id: string, push: boolean): Promise<void> {
    closeSheet();
    try {
      const conversation = await this.api.conversation(id);
      if (push) window.history.pushState(null, "", this.api.pageOf(id));
      this.showConversation(conversation);
    } catch (error) {
      toast((error as Error).message);
      void this.rail.refresh();
    }
  }

  private showConversation(conversation: ConversationInfo): void {
    this.leave();
    this.settings.pick(conversation.model);
    this.settings.values = conversation.settings ?? {};
    this.settings.mode = this.mode = conversation.mode;
    this.beforeExample = null;
    this.composer.setMode(conversation.mode);
    this.titled(conversation);
    for (const { turn, message } of this.talk.load(conversation)) {
      this.begin(turn, false);
      turn.resume(message);
      if (turn.job) this.follow(turn, turn.job, message.job?.last_seq ?? 0);
    }
    this.composer.setRunning(this.active !== null);
    this.scroll.toEnd();
  }

  private fresh(push: boolean): void {
    closeSheet();
    this.leave();
    this.forgetExample();
    this.conversation = null;
    this.talk.clear();
    this.rail.mark(null);
    document.title = document.title.replace(/^.* · /, "");
    if (push) window.history.pushState(null, "", this.api.home);
    this.scroll.toStart();
    this.composer.focus();
  }

  private forgetExample(): void {
    if (this.beforeExample) this.settings.values = this.beforeExample;
    this.beforeExample = null;
  }

  /** Stops following; the server goes on writing. */
  private leave(): void {
    for (const stop of this.unwatch.splice(0)) stop();
    this.asked.clear();
    this.active = null;
    this.cancelEdit();
    this.composer.setRunning(false);
  }

  private returnTo(): void {
    const id = /\/c\/([\w-]+)\/?$/.exec(window.location.pathname)?.[1];
    if (id) void this.open(id, false);
    else this.fresh(false);
  }

  private titled(conversation: ConversationInfo): void {
    this.conversation = conversation;
    if (conversation.title) document.title = `${conversation.title} · LLMasOS`;
    this.rail.mark(conversation.id);
  }

  private settingsChanged(): void {
    const { mode } = this.settings;
    if (mode !== this.mode) this.forgetExample();
    this.mode = mode;
    if (this.conversation && this.conversation.mode !== mode && this.talk.exchanges.length > 0) {
      this.fresh(true); // the two modes read differently: another mode is another conversation
    }
    this.composer.setMode(mode);
    clearTimeout(this.saveTimer);
    this.saveTimer = window.setTimeout(() => void this.save(), SAVE_AFTER_MS);
  }

  private async save(): Promise<void> {
    if (!this.conversation) return;
    try {
      await this.api.change(this.conversation.id, { settings: this.settings.values });
      this.settings.complain("", null);
    } catch (error) {
      const field = error instanceof RequestFailed ? error.field : null;
      this.settings.complain((error as Error).message, field);
    }
  }

  private showExamples(examples: Example[]): void {
    find("#examples").replaceChildren(
      ...examples.map((example) => {
        const card = fromTemplate("t-example");
        setText(find("[data-title]", card), example.title);
        setText(find("[data-prompt]", card), example.prompt);
        card.addEventListener("click", () => {
          this.settings.mode = this.mode = example.mode ?? "completion";
          this.beforeExample ??= this.settings.values;
          this.settings.values = { ...this.settings.values, ...example.settings };
          this.settingsChanged();
          this.composer.text = example.prompt;
          this.composer.focus();
        });
        return card;
      }),
    );
  }

  private connection(state: ConnectionState): void {
    const pill = find("#connection");
    if (state === "connecting" || state === "open" || state === "idle") { show(pill, false); return; }
    setText(find("[data-text]", pill), t(`connection.${state}`));
    find(".dot", pill).className = `dot ${state === "mended" ? "dot-good" : "dot-warn"}`;
    show(pill, true);
    if (state === "mended") setTimeout(() => show(pill, false), MENDED_MS);
  }
}
