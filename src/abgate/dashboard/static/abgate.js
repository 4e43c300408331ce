// What the pages do in the browser, beside htmx: times in the viewer's zone, shares that sum to 100, labels, focus, Enter.

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

// A refusal names fields as the API does; on the page they have their labels.
function nameFields(root) {
  for (const link of root.querySelectorAll("a[data-field]")) {
    const label = document.querySelector(`label[for="${CSS.escape(link.dataset.field)}"]`);
    if (label) link.textContent = label.firstChild.textContent.trim();
  }
}

function prepare(root) {
  nameFields(root);
  localTimes(root);
  bindShares(root);
  drawCharts(root);
}

// In a field of a part with a button of its own, Enter presses that one and does not send the form around it.
document.body.addEventListener("keydown", (event) => {
  const part = event.key === "Enter" && event.target.matches("input") && event.target.closest("[data-enter]");
  if (!part) return;
  event.preventDefault();
  document.getElementById(part.dataset.enter).click();
});

prepare(document);
document.querySelector("[data-focus]")?.focus();
document.body.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
