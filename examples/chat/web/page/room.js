// The room: what was said, and what has become of what this page says. Text is only ever set as text.

import { newID } from "./link.js";

const shownMost = 2000;

export class Room {
  constructor(link, about) {
    this.link = link;
    this.limit = about.limit;
    this.list = document.getElementById("messages");
    this.form = document.getElementById("form");
    this.author = document.getElementById("author");
    this.text = document.getElementById("text");
    this.hint = document.getElementById("hint");
    this.own = new Map(); // id → message that is under way
    this.outbox = [];
    this.author.value = sessionStorage.getItem("author") ?? `Bee ${1 + (crypto.getRandomValues(new Uint8Array(1))[0] % 99)}`;
    this.form.addEventListener("submit", (e) => { e.preventDefault(); this.submit(); });
    this.text.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); this.submit(); }
    });
    link.addEventListener("message", (e) => this.arrived(e.detail));
    link.addEventListener("move", (e) => this.moved(e.detail));
  }

  say(text, bad) {
    this.hint.textContent = text;
    this.hint.classList.toggle("bad", bad);
  }

  submit() {
    const author = this.author.value.trim();
    const text = this.text.value;
    if (author === "") { this.say("Say who you are: the name is empty.", true); this.author.focus(); return; }
    if (text === "") { this.say("The message is empty.", true); this.text.focus(); return; }
    if (new TextEncoder().encode(text).length > this.limit) { this.say("The message is longer than 64 KiB.", true); return; }
    sessionStorage.setItem("author", author);
    this.say("Enter sends, Shift and Enter begin a new line.", false);
    this.text.value = "";
    const message = { id: newID(), author, text: text.toWellFormed(), at: new Date().toISOString() };
    message.element = this.element(message, true);
    this.own.set(message.id, message);
    this.list.append(message.element);
    this.state(message, "sending", "waits its turn");
    this.scroll(true);
    this.outbox.push(message);
    if (this.outbox.length === 1) this.work();
  }

  // work sends what is in the outbox, one after the other.
  async work() {
    while (this.outbox.length > 0) {
      const message = this.outbox[0];
      this.state(message, "sending", "sending");
      const answer = await this.link.send(message, (why) => this.state(message, "sending", why));
      this.outbox.shift();
      if (!this.own.has(message.id)) continue; // it has arrived already
      if (answer.ok) {
        this.progress(message, message.stored ?? 0, answer.chunks);
      } else {
        this.state(message, "refused", `not sent: ${answer.error}`);
        this.own.delete(message.id);
      }
    }
  }

  element({ id, author, text, at, number }, own) {
    const article = document.createElement("article");
    article.className = own ? "message own" : "message";
    article.dataset.id = id;
    const who = document.createElement("div");
    who.className = "who";
    const name = document.createElement("bdi");
    name.textContent = author;
    const time = document.createElement("time");
    time.dateTime = at;
    time.textContent = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    who.append(name, time);
    const body = document.createElement("div");
    body.className = "text";
    body.dir = "auto";
    body.textContent = text;
    if (text.length > 300 || text.split("\n").length > 8) body.tabIndex = 0; // it scrolls, by keyboard too
    article.append(who, body);
    if (own) {
      const state = document.createElement("div");
      state.className = "state";
      article.append(state);
    }
    if (number) article.dataset.number = number;
    return article;
  }

  state(message, state, text) {
    message.element.dataset.state = state;
    message.element.querySelector(".state").textContent = text;
  }

  progress(message, stored, of) {
    message.stored = Math.max(stored, message.stored ?? 0);
    message.element.dataset.state = "stored";
    const bar = document.createElement("progress");
    bar.max = of;
    bar.value = message.stored;
    bar.setAttribute("aria-label", "chunks that are stored");
    const plural = of === 1 ? "chunk" : "chunks";
    message.element.querySelector(".state").replaceChildren(bar, `stored by ${message.stored} of ${of} ${plural}`);
  }

  moved(move) {
    const message = this.own.get(move.id);
    if (message && move.kind === "stored") this.progress(message, move.stored, move.of);
  }

  arrived(m) {
    document.getElementById("empty")?.remove();
    const atEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 80;
    const own = this.own.get(m.id);
    let element;
    if (own) {
      this.own.delete(m.id);
      element = own.element;
      element.dataset.number = m.number;
      element.querySelector(".text").textContent = m.text; // what everybody sees
      this.state(own, "delivered", "delivered");
    } else {
      element = this.element(m, false);
      element.dataset.state = "delivered";
    }
    // What is under way stays below what has its number.
    const first = this.list.querySelector(".message:not([data-number])");
    if (first !== element || element.nextSibling) this.list.insertBefore(element, first === element ? element.nextSibling : first);
    for (const old of [...this.list.querySelectorAll(".message[data-number]")].slice(0, -shownMost)) old.remove();
    this.scroll(atEnd);
  }

  scroll(wanted) { if (wanted) this.list.scrollTop = this.list.scrollHeight; }
}
