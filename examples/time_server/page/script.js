// Two WebSockets: one shows the clock, the other shows every event that a WebSocket has.

const MOST_EVENTS = 100; // in the list: a page may stay open for days

const byId = (id) => document.getElementById(id);
const open = (path) => new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));

// The clock: no time of this computer's, only what the server says.

const clock = open("clock");
clock.addEventListener("message", (event) => {
  const now = new Date(event.data).toISOString(); // 2026-11-21T09:05:00.123Z
  byId("time").dateTime = now;
  byId("time").textContent = now.slice(11, 19);
  byId("date").textContent = now.slice(0, 10);
});
clock.addEventListener("open", () => showClockState("UTC"));
clock.addEventListener("close", () => showClockState("stopped: the connection is closed"));

function showClockState(text) {
  byId("clock-state").textContent = text;
}

// The conversation, to be closed and opened again.

let talk = null;
startTalk();

function startTalk() {
  talk = open("talk");
  talk.addEventListener("open", () => {
    showEvent("open", "the server has accepted");
    byId("toggle").textContent = "Close";
    byId("send").disabled = false;
  });
  talk.addEventListener("message", (event) => showEvent("message", event.data));
  talk.addEventListener("error", () => showEvent("error", "browsers do not say what it is"));
  talk.addEventListener("close", (event) => {
    const clean = event.wasClean ? "clean" : "not clean";
    showEvent("close", [`code ${event.code}`, event.reason, clean].filter(Boolean).join(", "));
    byId("toggle").textContent = "Open again";
    byId("send").disabled = true;
  });
}

byId("toggle").addEventListener("click", () => {
  if (talk.readyState === WebSocket.OPEN) talk.close(1000);
  else if (talk.readyState === WebSocket.CLOSED) startTalk();
});

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  talk.send(byId("text").value);
  byId("text").value = "";
});

function showEvent(kind, text) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  for (const [name, content] of [["kind", kind], ["content", text]]) {
    const part = item.appendChild(document.createElement("span"));
    part.className = name;
    part.textContent = content; // never innerHTML: what a peer says is text
  }
  byId("events").prepend(item);
  if (byId("events").childElementCount > MOST_EVENTS) byId("events").lastElementChild.remove();
}
