// A browser's WebSocket in its simplest form: send, and show what comes back.

const byId = (id) => document.getElementById(id);
const sent = []; // when each message left: echoes come back in the same order

const socket = new WebSocket(new URL("echo", location.href.replace(/^http/, "ws")));
socket.binaryType = "arraybuffer"; // else bytes come as a Blob

socket.addEventListener("open", () => showStatus("open", "connected"));
socket.addEventListener("close", (event) => {
  showStatus("closed", `closed (${event.code}${event.reason && `, ${event.reason}`})`);
});
socket.addEventListener("message", (event) => {
  const milliseconds = performance.now() - sent.shift();
  const binary = event.data instanceof ArrayBuffer;
  const text = binary ? new TextDecoder().decode(event.data) : event.data;
  show(text, binary ? "bytes" : "text", milliseconds);
});

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value;
  sent.push(performance.now());
  socket.send(byId("binary").checked ? new TextEncoder().encode(text) : text);
  byId("text").value = "";
  byId("text").focus();
});

function show(text, kind, milliseconds) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  // textContent, never innerHTML: what a peer says is text, whatever it looks like.
  for (const [name, content] of [
    ["kind", kind],
    ["content", text],
    ["time", `${milliseconds.toFixed(1)} ms`],
  ]) {
    const part = item.appendChild(document.createElement("span"));
    part.className = name;
    part.textContent = content;
  }
  byId("log").prepend(item);
  byId("empty").hidden = true;
}

function showStatus(state, text) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
  byId("send").disabled = state !== "open";
}
