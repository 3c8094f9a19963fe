// Both pages: shows what comes, says what is clicked, and comes back when the connection is lost.

const address = new URL("live", location.href); // beside the page: /live, or /staff/live
address.protocol = location.protocol.replace("http", "ws"); // https: becomes wss:
const buttons = document.querySelectorAll("button");
let socket;

function connect() {
  socket = new WebSocket(address);
  showState("connecting");
  socket.onopen = () => showState("connected");
  socket.onmessage = (event) => showVotes(JSON.parse(event.data));
  socket.onclose = () => {
    showState("not connected, trying again");
    setTimeout(connect, 500 + 1000 * Math.random()); // not all of them at once
  };
}

function showState(text) {
  document.getElementById("state").textContent = text;
  for (const button of buttons) button.disabled = socket.readyState !== WebSocket.OPEN;
}

function showVotes(votes) {
  const most = Math.max(1, ...Object.values(votes));
  const items = Object.entries(votes).map(([choice, count]) => {
    const item = document.createElement("li");
    const bar = document.createElement("meter");
    bar.max = most;
    bar.value = count;
    item.append(`${choice}: ${count}`, bar);
    return item;
  });
  document.getElementById("votes").replaceChildren(...items);
}

for (const button of buttons) button.onclick = () => socket.send(button.dataset.say);
connect();
