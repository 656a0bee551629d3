/* The settings beside the conversation. Every change is handed on; the server keeps them. */

import { find, fromTemplate, setText, show } from "../site/dom";
import { number, plural, t } from "../site/strings";
import { DEFAULTS, type Mode, type ModelInfo, type Settings } from "./types";

const LENGTHS = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
const DIGITS = { temperature: 2, top_p: 2, repetition_penalty: 2 } as const;

export class SettingsPanel {
  private readonly form = find<HTMLFormElement>("#settings");
  private readonly stops = find("#stops");
  private readonly stopBox = find<HTMLInputElement>("#s-stop");
  private stopList: string[] = [];

  constructor(
    private readonly models: ModelInfo[],
    private readonly changed: () => void,
  ) {
    const select = this.input<HTMLSelectElement>("model");
    for (const model of models) {
      const label = model.state === "ready" ? model.name : `${model.name} (${t("model.absent")})`;
      const option = new Option(label || model.id, model.id);
      option.disabled = model.state !== "ready";
      select.add(option);
    }
    this.form.addEventListener("input", (event) => {
      if (event.target === this.stopBox) return;
      this.showValues();
      this.changed();
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.stopBox.addEventListener("keydown", (event) => this.stopKey(event));
    this.stopBox.addEventListener("change", () => this.addStop());
    find("#reset-settings").addEventListener("click", () => {
      this.values = { ...DEFAULTS, system: this.values.system };
      this.changed();
    });
    this.values = DEFAULTS;
  }

  get mode(): Mode {
    return this.form.elements.namedItem("mode") instanceof RadioNodeList &&
      (this.form.elements.namedItem("mode") as RadioNodeList).value === "chat"
      ? "chat"
      : "completion";
  }

  set mode(mode: Mode) {
    (this.form.elements.namedItem("mode") as RadioNodeList).value = mode;
    this.showValues();
  }

  get model(): ModelInfo | undefined {
    const id = this.input<HTMLSelectElement>("model").value;
    return this.models.find((model) => model.id === id);
  }

  /** Picks a model if it can be asked, else the first one that can. */
  pick(id: string | undefined): void {
    const ready = this.models.filter(({ state }) => state === "ready");
    const chosen = ready.find((model) => model.id === id) ?? ready[0];
    if (chosen) this.input<HTMLSelectElement>("model").value = chosen.id;
    this.showValues();
  }

  get values(): Settings {
    const value = (name: string) => Number(this.input(name).value);
    const seed = this.input("seed").value;
    return {
      temperature: value("temperature"),
      top_p: value("top_p"),
      top_k: value("top_k"),
      repetition_penalty: value("repetition_penalty"),
      max_tokens: LENGTHS[value("max_tokens")] ?? DEFAULTS.max_tokens,
      stop: [...this.stopList],
      seed: seed === "" ? null : Number(seed),
      system: this.input("system").value,
      json_schema: this.input("json_schema").value,
    };
  }

  set values(settings: Partial<Settings>) {
    const all = { ...DEFAULTS, ...settings };
    for (const name of ["temperature", "top_p", "repetition_penalty"] as const) {
      this.input(name).value = String(all[name]);
    }
    this.input("top_k").value = all.top_k ? String(all.top_k) : "";
    const length = LENGTHS.findIndex((tokens) => tokens >= all.max_tokens);
    this.input("max_tokens").value = String(length < 0 ? LENGTHS.length - 1 : length);
    this.input("seed").value = all.seed === null ? "" : String(all.seed);
    this.input("system").value = all.system;
    this.input("json_schema").value = all.json_schema;
    this.stopList = [...all.stop];
    this.showStops();
    this.showValues();
  }

  /** A setting that the server refused; `field` is its name. */
  complain(message: string, field: string | null): void {
    const problem = find("#settings-problem");
    setText(problem, message);
    show(problem, message !== "");
    const input = field ? this.form.elements.namedItem(field) : null;
    if (input instanceof HTMLElement) input.focus();
  }

  private input<T = HTMLInputElement>(name: string): T {
    return this.form.elements.namedItem(name) as T;
  }

  private showValues(): void {
    const values = this.values;
    for (const [name, digits] of Object.entries(DIGITS)) {
      setText(this.out(name), number(values[name as keyof typeof DIGITS], digits));
    }
    setText(this.out("max_tokens"), plural("tokens", values.max_tokens));
    const { model, mode } = this;
    setText(this.out("model"), model ? t(`kind.${model.kind}`) : "");
    for (const element of document.querySelectorAll<HTMLElement>("[data-when]")) {
      show(element, element.dataset.when === mode);
    }
    const note = !model ? "none" : model.kind === "instruct" ? "instruct" : mode === "chat" ? "base-chat" : "base";
    for (const element of document.querySelectorAll<HTMLElement>("[data-note]")) {
      show(element, element.dataset.note === note);
    }
  }

  private out(name: string): HTMLElement {
    return find(`[data-out="${name}"]`, this.form);
  }

  private stopKey(event: KeyboardEvent): void {
    if (event.key === "Enter") {
      event.preventDefault();
      this.addStop();
    } else if (event.key === "Backspace" && this.stopBox.value === "" && this.stopList.length) {
      this.stopList.pop();
      this.showStops();
      this.changed();
    }
  }

  private addStop(): void {
    const text = this.stopBox.value.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
    this.stopBox.value = "";
    if (text === "" || this.stopList.includes(text)) return;
    this.stopList.push(text);
    this.showStops();
    this.changed();
  }

  private showStops(): void {
    this.stops.replaceChildren(
      ...this.stopList.map((text) => {
        const chip = fromTemplate("t-stop");
        const shown = text.replaceAll("\n", "\\n").replaceAll("\t", "\\t");
        setText(find("[data-text]", chip), shown);
        find("[data-remove]", chip).addEventListener("click", () => {
          this.stopList = this.stopList.filter((each) => each !== text);
          this.showStops();
          this.changed();
          this.stopBox.focus();
        });
        return chip;
      }),
    );
  }
}
