import "../site/main";

import { listenForCopies } from "../blocks/enhance";
import { find, readJson, setText } from "../site/dom";
import { t } from "../site/strings";
import { openStream } from "../stream/browser";
import { Api } from "./api";
import { App } from "./app";
import type { PageState } from "./types";

const page = find("#play");
const app = new App(
  readJson<PageState>("playground-state"),
  new Api(page.dataset.base ?? "/playground/"),
  openStream(page.dataset.socket ?? "/ws/jobs"),
);
listenForCopies(find("#talk"), (button) => {
  setText(button, t("copied"));
  setTimeout(() => setText(button, t("copy")), 1600);
});
app.start();
page.dataset.ready = ""; // what is typed from now on stays
