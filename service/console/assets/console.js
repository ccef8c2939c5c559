// What pages gain with a script: questions in a dialog, a run that is watched. Without it every link is a plain page.
"use strict";

const ask = document.getElementById("ask");
const body = document.getElementById("ask-body");

function question(event) {
  const link = event.target.closest("a[data-ask]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !ask.showModal) return;
  event.preventDefault();
  body.replaceChildren();
  htmx
    .ajax("GET", link.getAttribute("href"), { target: body, swap: "innerHTML", select: "#confirm" })
    .then(() => {
      if (!body.querySelector("#confirm")) { location.assign(link.href); return; }
      if (!ask.open) ask.showModal();
      const field = body.querySelector("textarea");
      if (field) field.focus();
    });
}

function leave(event) {
  const link = event.target.closest("#ask a[data-leave]");
  if (link || event.target === ask) { event.preventDefault(); ask.close(); }
}

document.addEventListener("click", question);
ask.addEventListener("click", leave);

// A button that was pressed does not take a second press; the server would not either.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button:not(.quiet)");
  if (button) setTimeout(() => { button.disabled = true; }, 0);
});

// What somebody has opened, or stands on, outlives a page that looks again by itself.
let held = { open: [], at: null };
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "live") return;
  if (new URL(event.detail.xhr.responseURL).pathname === "/sign-in") {
    // The session is over: a page that looked as if it still held would mislead.
    event.detail.shouldSwap = false;
    location.assign("/sign-in");
    return;
  }
  const live = event.detail.target;
  const focused = live.contains(document.activeElement) ? document.activeElement : null;
  held = {
    open: [...live.querySelectorAll("details[open][id]")].map((one) => one.id),
    at: focused && (focused.getAttribute("href") || focused.id),
    text: focused && focused.textContent,
  };
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of held.open) { const one = document.getElementById(id); if (one) one.open = true; }
  if (held.at) {
    const all = [...document.querySelectorAll("#live a[href], #live [id]")];
    const same = (one) => one.getAttribute("href") === held.at || one.id === held.at;
    const found = all.find((one) => same(one) && one.textContent === held.text) || all.find(same);
    if (found) found.focus({ preventScroll: true });
  }
  held = { open: [], at: null };
  watch();
});

// How long ago something was goes on by itself.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
setInterval(() => {
  for (const one of document.querySelectorAll("[data-since]")) {
    const seconds = Math.floor((Date.now() - Date.parse(one.dataset.since)) / 1000);
    const [size, unit] = UNITS.find(([least]) => seconds >= least) || [1, "s"];
    const words = seconds < 5 ? "just now" : `${Math.floor(seconds / size)} ${unit} ago`;
    if (one.textContent !== words) one.textContent = words;
  }
}, 5000);

// A run is watched by server-sent events. While they fail, the page's own clock (every 10 s) goes on looking.
let source = null;
function watch() {
  const at = document.getElementById("stream");
  if (!at) { if (source) source.close(); source = null; return; }
  if (source || !window.EventSource) return;
  const look = () => { const live = document.getElementById("live"); if (live) htmx.trigger(live, "look"); };
  source = new EventSource(at.dataset.stream);
  source.addEventListener("moved", look);
  // It has ended, or whoever watches has to sign in again: the page finds out which.
  const end = () => { source.close(); source = null; look(); };
  source.addEventListener("over", end);
  source.addEventListener("gone", end);
}
watch();
