import { Link } from "./link.js";
import { Room } from "./room.js";
import { Picture } from "./picture.js";

const linesMost = 200;

const about = await (await fetch("/about")).json();
const link = new Link(about);
const story = document.getElementById("story");
const told = { last: 0 };

function say(text, tone, at = new Date()) {
  const line = document.createElement("p");
  if (tone) line.className = tone;
  const time = document.createElement("time");
  time.dateTime = new Date(at).toISOString();
  time.textContent = new Date(at).toLocaleTimeString([], { hour12: false });
  line.append(time, text);
  story.append(line);
  while (story.children.length > linesMost) story.firstChild.remove();
  story.scrollTop = story.scrollHeight;
}

const pill = document.getElementById("link");

function linked(text, state) {
  if (pill.textContent !== text) pill.textContent = text;
  pill.dataset.state = state;
}

document.getElementById("room-name").textContent = about.room;
document.getElementById("author").maxLength = about.author;
if (!about.control) document.getElementById("lead").textContent = "Every box is a process.";
new Room(link, about);
new Picture(link, say);
link.addEventListener("up", (e) => linked(`at ${e.detail}`, "on"));
link.addEventListener("moved", ({ detail: { from, to, why } }) => {
  linked(`looking for ${to}`, "off");
  say(`${from} ${why}: this window goes on at ${to}.`, "");
});
link.addEventListener("story", ({ detail: line }) => {
  if (line.number <= told.last) return;
  told.last = line.number;
  say(line.text, line.tone, line.at);
});
link.open();
