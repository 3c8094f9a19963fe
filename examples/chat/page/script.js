// The chat in a browser. What comes from the server is shown by textContent alone,
// never as HTML: what people say is text, whatever it looks like.

const MOST_MESSAGES = 500; // on the page: it may stay open for days
const FIRST_WAIT = 0.5; // seconds before the first attempt to reconnect, at most
const LONGEST_WAIT = 30;

const byId = (id) => document.getElementById(id);
const room = decodeURIComponent(location.pathname.split("/").pop());

let name = localStorage.getItem("name") ?? "";
let socket = null;
let position = null; // of the newest message seen: where to resume
let failures = 0; // in a row
let timer = null;
let unseen = 0; // messages that came while the page was in the background
let people = new Map(); // id → name

byId("room").textContent = `#${room}`;
showTitle();
if (!name) enter();
else {
  connect();
  if (matchMedia("(pointer: fine)").matches) byId("text").focus(); // no phone's keyboard
}

// Connecting, and connecting again...

function connect() {
  clearInterval(timer);
  const url = new URL(location.pathname, location.href.replace(/^http/, "ws"));
  url.searchParams.set("name", name);
  if (position) url.searchParams.set("since", position);

  showStatus("waiting", "connecting …");
  const opening = new WebSocket(url);
  socket = opening;
  opening.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  opening.addEventListener("close", (event) => {
    if (socket === opening) retryLater(event); // else another one has taken its place
  });
}

function reconnect() {
  socket?.close();
  connect();
}

function retryLater({ code, reason }) {
  // Twice as long each time, and never all pages in the same moment.
  const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures);
  const due = Date.now() + 1000 * longest * (0.5 + Math.random() / 2);
  failures += 1;
  showStatus("closed", explain(code, reason));
  showPeople(new Map());

  clearInterval(timer);
  timer = setInterval(tick, 200);
  tick();

  function tick() {
    const seconds = Math.ceil((due - Date.now()) / 1000);
    if (seconds <= 0) connect();
    else byId("countdown").textContent = `next try in ${seconds} s`;
  }
}

function explain(code, reason) {
  if (!navigator.onLine) return "offline";
  if (code === 1001 || code === 1012) return "server stopped";
  return reason || (failures > 1 ? "no server" : "connection lost");
}

const waiting = () => socket?.readyState === WebSocket.CLOSED;
byId("retry").addEventListener("click", connect);
addEventListener("online", () => waiting() && connect());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  showTitle();
  if (waiting()) connect();
});

function showStatus(state, text) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
  byId("send").disabled = state !== "open";
  byId("retry").hidden = byId("countdown").hidden = state !== "closed";
}

// What the server tells...

function receive(message) {
  if (message.position) position = message.position;
  if (message.resume === "lost") addNotice("Some messages may be missing here.");
  if (message.data) addMessage(message.data);
  if (message.unsaid) addNotice(`Nobody has heard this: ${message.unsaid}`);
  if (message.people) {
    failures = 0;
    name = message.you; // as the server has understood it
    byId("me").textContent = name;
    showStatus("open", "connected");
    showPeople(new Map(Object.entries(message.people)));
  }
  if (message.joined) {
    const { id, name: newcomer } = message.joined;
    if (!isHere(newcomer)) addNotice(`${newcomer} joined`);
    showPeople(people.set(id, newcomer));
  }
  if (message.left) {
    people.delete(message.left.id);
    showPeople(people);
    if (!isHere(message.left.name)) addNotice(`${message.left.name} left`);
  }
}

// Who has several tabs open is one person, here until the last of them is closed.
const isHere = (who) => [...people.values()].includes(who);

// Showing it...

function addMessage({ name: author, text, at }) {
  const item = make("li", "message");
  item.dataset.author = author;
  item.classList.toggle("mine", author === name);
  item.classList.toggle("more", byId("log").lastElementChild?.dataset.author === author);
  item.style.setProperty("--hue", hue(author));
  const time = make("time", "time", new Date(at).toLocaleTimeString([], { timeStyle: "short" }));
  time.dateTime = at;
  item.append(make("b", "author", author), make("span", "text", text), time);
  append(item);
  if (document.hidden) {
    unseen += 1;
    showTitle();
  }
}

function addNotice(text) {
  append(make("li", "notice", text));
}

function append(item) {
  const log = byId("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(item);
  while (log.childElementCount > MOST_MESSAGES) log.firstElementChild.remove();
  if (atEnd || item.classList.contains("mine")) scrollToEnd();
  else byId("newer").hidden = false;
}

function scrollToEnd() {
  byId("log").scrollTop = byId("log").scrollHeight;
  byId("newer").hidden = true;
}

function showPeople(now) {
  people = now;
  const names = [...new Set(people.values())].sort((one, other) => one.localeCompare(other));
  byId("count").textContent = names.length;
  byId("names").replaceChildren(
    ...names.map((each) => {
      const item = make("li", "person", each);
      item.style.setProperty("--hue", hue(each));
      return item;
    }),
  );
}

function showTitle() {
  document.title = `${unseen ? `(${unseen}) ` : ""}#${room} · Chat`;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function hue(text) {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 65536;
  return (hash * 137.5) % 360; // the golden angle: neighbours look different
}

// What the user does...

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text || byId("send").disabled) return;
  socket.send(text);
  byId("text").value = "";
});

byId("log").addEventListener("scroll", () => {
  const log = byId("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 80) byId("newer").hidden = true;
});
byId("newer").addEventListener("click", scrollToEnd);
new ResizeObserver(scrollToEnd).observe(byId("log")); // a phone's keyboard comes and goes

byId("people-toggle").addEventListener("click", () => {
  const shown = byId("people").classList.toggle("shown");
  byId("people-toggle").setAttribute("aria-expanded", shown);
});

byId("me").addEventListener("click", enter);

function enter() {
  byId("name").value = name;
  byId("to").value = room;
  byId("entrance").showModal();
}

byId("entry").addEventListener("submit", () => {
  const [wanted, to] = [byId("name").value.trim(), byId("to").value.trim()];
  if (!wanted || !to) return;
  localStorage.setItem("name", wanted);
  if (to !== room) location.assign(`/chat/${encodeURIComponent(to)}`);
  else if (wanted !== name || !socket) {
    name = wanted;
    reconnect();
  }
});
byId("entrance").addEventListener("close", () => byId("text").focus());

byId("entrance").addEventListener("cancel", (event) => {
  if (!name) event.preventDefault(); // nobody comes in without a name
});
