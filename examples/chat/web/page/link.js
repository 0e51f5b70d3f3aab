// The link to the chat: one web server at a time, and the other when that one does not answer.

const silentMost = 3000; // ms without a sign of life from a server: it gives one every second
const answerMost = 4000; // ms for an answer to a message
const pause = 400; // ms between two tries

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export class Link extends EventTarget {
  constructor(about) {
    super();
    this.room = about.room;
    this.client = newID();
    this.names = Object.keys(about.peers).sort();
    this.names.sort((a, b) => (b === about.name) - (a === about.name)); // the one this page came from first
    this.ports = about.peers;
    this.at = 0;
    this.last = 0; // the number of the last message that was seen
    this.first = true;
  }

  get name() { return this.names[this.at]; }

  url(path, name = this.name) { return `http://${location.hostname}:${this.ports[name]}${path}`; }

  tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  // leave goes on with the other server, unless that has happened meanwhile.
  leave(name, why) {
    if (name !== this.name) return;
    this.at = (this.at + 1) % this.names.length;
    this.tell("moved", { from: name, to: this.name, why });
    this.open();
  }

  // open follows the room at the present server, after the last message that was seen.
  open() {
    this.source?.close();
    clearTimeout(this.alarm);
    const name = this.name;
    const from = this.first ? "tail=200" : `after=${this.last}`;
    const source = new EventSource(this.url(`/rooms/${this.room}/events?system&${from}`));
    this.source = source;
    const alive = () => {
      clearTimeout(this.alarm);
      if (source === this.source) this.alarm = setTimeout(() => this.leave(name, "is silent"), silentMost);
    };
    alive();
    source.onerror = () => {
      source.close();
      setTimeout(() => { if (source === this.source) this.leave(name, "does not answer"); }, pause);
    };
    const on = (type, f) => source.addEventListener(type, (e) => {
      if (source !== this.source) return;
      alive();
      f(JSON.parse(e.data));
    });
    on("beat", () => { this.tell("up", name); });
    on("message", (m) => {
      this.first = false;
      if (m.number <= this.last) return;
      this.last = m.number;
      this.tell("message", m);
    });
    on("move", (m) => this.tell("move", m));
    on("system", (m) => this.tell("system", m));
    on("story", (m) => this.tell("story", m));
  }

  // send sends a message until there is an answer. Its id makes sending it again harmless.
  async send(message, waiting) {
    const query = new URLSearchParams({ id: message.id, author: message.author });
    for (;;) {
      const name = this.name;
      let answer;
      try {
        answer = await fetch(this.url(`/rooms/${this.room}/messages?${query}`, name), {
          method: "POST",
          body: message.text,
          headers: { "Content-Type": "text/plain; charset=utf-8", "X-Chat-Client": this.client },
          signal: AbortSignal.timeout(answerMost),
        });
      } catch {
        this.leave(name, "does not answer");
        waiting(`${name} does not answer, trying ${this.name}`);
        await sleep(pause);
        continue;
      }
      const said = await answer.json().catch(() => ({}));
      if (answer.status === 202) return { ok: true, ...said };
      if (answer.status !== 429 && answer.status < 500) return { ok: false, error: said.error ?? "it was refused" };
      waiting(`waiting: ${said.error ?? "the server can't take it now"}`);
      await sleep(answer.status === 429 ? 1000 * (Number(answer.headers.get("Retry-After")) || 1) : pause);
    }
  }

  // act has something done to a node. It returns what is wrong, if anything is.
  async act(node, action) {
    try {
      const answer = await fetch(this.url(`/nodes/${node}/${action}`), { method: "POST", headers: { "X-Chat-Control": "1" } });
      return answer.ok ? "" : (await answer.json()).error;
    } catch {
      return node === this.name ? "" : `${this.name} does not answer`; // it can't tell of its own end
    }
  }
}

export function newID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
