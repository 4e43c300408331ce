// What the pages do in the browser, beside htmx: times in the viewer's zone, shares that sum to 100, focus.

import { drawCharts } from "./charts.js";
import { bindShares } from "./shares.js";

const moment = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
});

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    element.textContent = moment.format(new Date(element.getAttribute("datetime")));
    element.dataset.local = "";
  }
}

function prepare(root) {
  localTimes(root);
  bindShares(root);
  drawCharts(root);
}

prepare(document);
document.querySelector("[data-focus]")?.focus();
document.body.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
