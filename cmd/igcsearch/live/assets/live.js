// Keeps the page as the server has it: the server says when its numbers change,
// the page is asked for again, and the parts that differ are put in place.
"use strict";

const patience = 15000; // ms without a word; the server says something every 5 s
const assets = document.documentElement.dataset.assets;
const link = document.getElementById("link"), asof = document.getElementById("asof");
const silence = document.getElementById("silence");
let heard = Date.now();        // the last word of the server
let told = null;               // numbers that the server has
let shown = document.getElementById("main").dataset.id;
let asking = false, connected = false;

// Times are the server's in the page and the reader's own once this runs.
function localize(root) {
  for (const t of root.querySelectorAll("time[datetime]")) {
    const d = new Date(t.dateTime), today = d.toDateString() === new Date().toDateString();
    if (t.id === "asof") t.textContent = d.toLocaleTimeString([], {hourCycle: "h23"});
    else t.textContent = d.toLocaleString([], {...(today ? {} : {day: "numeric", month: "short"}), hour: "2-digit", minute: "2-digit", hourCycle: "h23"});
    t.title = d.toLocaleString();
  }
}

function span(ms) {
  const s = Math.round(ms / 1000);
  if (s < 60) return s + " s";
  return s < 3600 ? Math.floor(s / 60) + " min" : Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
}

// say tells whether the numbers can be relied on, and of when they are.
function say() {
  const lost = !connected && Date.now() - heard > 3000 || Date.now() - heard > patience;
  document.body.classList.toggle("stale", lost);
  const text = lost ? "no word from the server; as of" : "live, as of";
  if (link.textContent !== text) link.textContent = text; // it is read aloud when it changes
  silence.textContent = lost ? "(" + span(Date.now() - heard) + " ago)" : "";
}

function word(event) {
  const [id, version, at] = event.data.split(" ");
  heard = Date.now();
  connected = true;
  if (version !== assets) { location.reload(); return; }
  told = id;
  if (shown === id) { asof.dateTime = at; localize(asof.parentNode); }
  say();
  refresh();
}

async function refresh() {
  if (asking || told === null || shown === told) return;
  asking = true;
  try {
    const answer = await fetch(location.pathname, {cache: "no-store"});
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (next.getElementById("main") === null) throw new Error("no page");
    if (next.documentElement.dataset.assets !== assets) { location.reload(); return; }
    localize(next);
    await show(next);
  } catch {
    told = null; // the next word of the server asks again
  }
  asking = false;
}

async function show(next) {
  // Pictures first, so that none vanishes for a moment.
  const there = new Set([...document.images].map((i) => i.src));
  await Promise.allSettled([...next.images].filter((i) => !there.has(i.src)).map((i) => {
    const p = new Image();
    p.src = i.getAttribute("src");
    return p.decode();
  }));
  const focus = document.activeElement, key = focus && (focus.id || focus.getAttribute("href"));
  const open = new Map([...document.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
  for (const d of next.querySelectorAll("details[id]")) if (open.has(d.id)) d.open = open.get(d.id);
  const ids = (root) => [...root.querySelectorAll("article, [data-part]")].map((p) => p.id).join();
  const parts = (root) => [...root.querySelectorAll("[data-part]")];
  if (ids(document) === ids(next)) {
    for (const old of parts(document)) {
      const part = next.getElementById(old.id);
      if (old.outerHTML === part.outerHTML) continue;
      const across = [...old.querySelectorAll(".scroll")].map((s) => [s.id, s.scrollLeft]);
      old.replaceWith(document.adoptNode(part));
      for (const [id, x] of across) { const s = document.getElementById(id); if (s) s.scrollLeft = x; }
    }
    const labels = document.querySelectorAll(".get[id]"), fresh = next.querySelectorAll(".get[id]");
    labels.forEach((l, i) => { if (l.innerHTML !== fresh[i].innerHTML) l.innerHTML = fresh[i].innerHTML; });
  } else {
    document.getElementById("main").replaceChildren(...[...next.getElementById("main").childNodes].map((n) => document.adoptNode(n)));
    document.getElementById("foot").replaceWith(document.adoptNode(next.getElementById("foot")));
  }
  if (key && focus && !focus.isConnected) {
    const again = document.getElementById(key) || [...document.links].find((a) => a.getAttribute("href") === key);
    if (again) again.focus({preventScroll: true});
  }
  document.title = next.title;
  shown = next.getElementById("main").dataset.id;
  document.getElementById("main").dataset.id = shown;
  asof.dateTime = next.getElementById("asof").dateTime;
  localize(asof.parentNode);
}

function connect() {
  const source = new EventSource(document.documentElement.dataset.root + "events");
  source.addEventListener("state", word);
  source.addEventListener("beat", word);
  source.onerror = () => {
    connected = false;
    say();
    // The browser tries again by itself, unless an answer was not a stream, as
    // a proxy gives while the server is away.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

localize(document);
connect();
setInterval(() => { say(); refresh(); }, 1000);
