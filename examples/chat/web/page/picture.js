// The picture of the system: a box for each process, and the chunks that move between them.

const svg = "http://www.w3.org/2000/svg";
const dotsMost = 90;
const dotsAtOnce = 6;
const pipsMost = 60;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const words = { kill: "Kill", start: "Start", freeze: "Freeze", thaw: "Thaw" };

export class Picture {
  constructor(link, say) {
    this.link = link;
    this.say = say;
    this.cards = new Map();
    this.nodes = new Map();
    this.dots = 0;
    this.box = document.getElementById("picture");
    this.wires = document.getElementById("wires");
    this.queue = this.card({ name: "Queue", kind: "queue" });
    this.pips = document.createElement("div");
    this.pips.className = "pips";
    this.pips.ariaHidden = "true";
    this.queue.element.append(this.pips);
    new ResizeObserver(() => this.draw()).observe(this.box);
    link.addEventListener("system", (e) => this.show(e.detail));
    link.addEventListener("move", (e) => this.move(e.detail));
    link.addEventListener("message", () => this.deliver());
    link.addEventListener("moved", () => this.mine());
  }

  card(node) {
    let card = this.cards.get(node.name);
    if (card) return card;
    const element = document.createElement("section");
    element.className = `node ${node.kind}`;
    element.dataset.node = node.name;
    if (node.kind === "sentinel") element.classList.add("small");
    const title = document.createElement("h3");
    title.textContent = node.name;
    const what = document.createElement("div");
    what.className = "what";
    const fact = document.createElement("div");
    fact.className = "fact";
    element.append(title, what, fact);
    element.setAttribute("aria-label", node.name);
    card = { element, what, fact, buttons: [] };
    this.cards.set(node.name, card);
    document.getElementById(`tier-${node.kind === "store" ? "server" : node.kind}`).append(element);
    return card;
  }

  // buttons keeps the same two for good, so that the focus stays where it is when a node changes.
  buttons(card, node) {
    if (card.buttons.length === 0) {
      if (!node.can?.length) return;
      const row = document.createElement("div");
      row.className = "do";
      card.buttons = [0, 1].map(() => {
        const b = document.createElement("button");
        b.type = "button";
        b.addEventListener("click", () => this.act(b));
        row.append(b);
        return b;
      });
      card.element.append(row);
    }
    card.buttons.forEach((b, i) => {
      const action = node.can?.[i];
      b.hidden = !action;
      if (!action) {
        if (document.activeElement === b) card.buttons[0].focus();
        return;
      }
      b.dataset.node = node.name;
      b.dataset.action = action;
      b.textContent = words[action];
      b.setAttribute("aria-label", `${words[action]} ${node.name}`);
    });
  }

  async act(button) {
    if (button.ariaDisabled === "true") return;
    const { node, action } = button.dataset;
    button.ariaDisabled = "true";
    const wrong = await this.link.act(node, action);
    button.ariaDisabled = "false";
    if (wrong) this.say(`${node}: ${wrong}.`, "bad");
  }

  show(state) {
    const names = new Set(["Queue"]);
    for (const node of state.nodes) {
      names.add(node.name);
      this.nodes.set(node.name, node);
      const card = this.card(node);
      card.element.dataset.state = node.state;
      card.element.classList.toggle("master", node.role === "master" && node.state !== "dead");
      set(card.what, what(node));
      set(card.fact, fact(node));
      card.fact.title = node.kind === "store" ? node.addr : "";
      this.buttons(card, node);
    }
    for (const [name, card] of this.cards) {
      if (!names.has(name)) { card.element.remove(); this.cards.delete(name); }
    }
    const q = state.queue;
    set(this.queue.what, q.known ? `${many(q.waiting, "chunk waits", "chunks wait")}, ${q.running} in work` : "nobody can tell what waits");
    set(this.queue.fact, `${q.done.toLocaleString("en")} done, ${q.discarded} lost`);
    const pips = q.known ? Math.min(q.waiting, pipsMost) : 0;
    while (this.pips.children.length > pips) this.pips.lastChild.remove();
    while (this.pips.children.length < pips) this.pips.append(document.createElement("i"));
    this.mine();
    this.draw();
  }

  mine() {
    for (const [name, card] of this.cards) card.element.classList.toggle("mine", name === this.link.name);
  }

  // draw draws the wires between the boxes.
  draw() {
    const key = JSON.stringify([this.box.clientWidth, this.box.clientHeight, [...this.nodes.values()].map((n) => [n.name, n.state, n.role])]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.paths = new Map();
    for (const old of this.wires.querySelectorAll("path")) old.remove();
    const all = [...this.nodes.values()];
    const up = (n) => n && n.state === "running";
    const servers = all.filter((n) => n.kind === "server" || n.kind === "store");
    const master = this.master();
    for (const a of all.filter((n) => n.kind === "web")) this.wire(a.name, "Queue", up(a));
    for (const w of all.filter((n) => n.kind === "worker")) {
      this.wire("Queue", w.name, up(w));
      if (master) this.wire(w.name, master.name, up(w) && up(master));
    }
    if (master) for (const b of servers) if (b !== master) this.copy(master.name, b.name, up(master) && up(b));
  }

  master() {
    const all = [...this.nodes.values()];
    return all.find((n) => n.role === "master" && n.state !== "dead") ?? all.find((n) => n.kind === "store");
  }

  place(name) {
    const card = this.cards.get(name);
    if (!card) return null;
    const r = card.element.getBoundingClientRect();
    const o = this.box.getBoundingClientRect();
    return { x: r.left - o.left + r.width / 2, top: r.top - o.top, bottom: r.bottom - o.top, left: r.left - o.left, right: r.right - o.left };
  }

  wire(from, to, live) {
    const a = this.place(from), b = this.place(to);
    if (!a || !b) return;
    const mid = (a.bottom + b.top) / 2;
    this.path(`${from}>${to}`, `M${a.x},${a.bottom} C${a.x},${mid} ${b.x},${mid} ${b.x},${b.top}`, live ? "" : "down");
  }

  // copy is the way from the master to a replica: below the boxes of the database.
  copy(from, to, live) {
    const a = this.place(from), b = this.place(to);
    if (!a || !b) return;
    this.path(`${from}>${to}`, `M${a.x},${a.bottom} C${a.x},${a.bottom + 14} ${b.x},${b.bottom + 14} ${b.x},${b.bottom}`, live ? "copy" : "copy down");
  }

  path(name, d, kind) {
    const path = document.createElementNS(svg, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", kind);
    this.wires.prepend(path);
    this.paths.set(name, path);
  }

  move(m) {
    if (m.kind === "sent") this.run([`${m.by}>Queue`], m.of, "");
    if (m.kind !== "stored") return;
    const master = this.master();
    if (!master) return;
    this.run([`Queue>${m.by}`, `${m.by}>${master.name}`], m.chunks, "", () => {
      for (const b of this.nodes.values()) {
        if (b.kind === "server" && b !== master) this.run([`${master.name}>${b.name}`], Math.min(2, m.chunks), "copy");
      }
    });
  }

  // deliver shows a message on its way back to both web servers.
  deliver() {
    const master = this.master();
    for (const a of this.nodes.values()) {
      if (a.kind === "web" && a.state === "running" && master) this.fly(master.name, a.name);
    }
  }

  // run sends dots along wires, one after the other.
  run(names, n, kind, then) {
    const paths = names.map((name) => this.paths?.get(name));
    if (calm.matches || document.hidden || paths.some((p) => !p)) return;
    const count = Math.min(n, dotsAtOnce, dotsMost - this.dots);
    for (let i = 0; i < count; i++) {
      const points = paths.flatMap((p) => along(p));
      this.dot(points, kind, 420 * paths.length, i * 60, i === 0 ? then : null);
    }
  }

  fly(from, to) {
    const a = this.place(from), b = this.place(to);
    if (calm.matches || document.hidden || !a || !b || this.dots >= dotsMost) return;
    this.dot([{ x: a.x, y: a.top }, { x: (a.x + b.x) / 2, y: (a.top + b.bottom) / 2 }, { x: b.x, y: b.bottom }], "out", 700, 350);
  }

  dot(points, kind, duration, delay, then) {
    const dot = document.createElementNS(svg, "circle");
    dot.setAttribute("r", kind === "out" ? 5 : 4);
    dot.setAttribute("class", kind);
    this.wires.append(dot);
    this.dots++;
    const frames = points.map((p) => ({ transform: `translate(${p.x}px, ${p.y}px)`, opacity: 1 }));
    const flight = dot.animate([{ ...frames[0], opacity: 0 }, ...frames, { ...frames.at(-1), opacity: 0 }], { duration, delay, fill: "backwards", easing: "ease-in-out" });
    flight.onfinish = () => { dot.remove(); this.dots--; then?.(); };
  }
}

function along(path) {
  const length = path.getTotalLength();
  return [0, .25, .5, .75, 1].map((f) => path.getPointAtLength(f * length));
}

function set(element, text) { if (element.textContent !== text) element.textContent = text; }

function many(n, one, more) { return n === 1 ? `1 ${one}` : `${n.toLocaleString("en")} ${more}`; }

function what(node) {
  if (node.state === "dead") return "dead";
  if (node.state === "frozen") return node.role ? `frozen ${node.role}` : "frozen";
  if (node.state === "starting") return "starting";
  switch (node.kind) {
    case "web": return "web server";
    case "worker": return "worker";
    case "sentinel": return "sentinel";
    case "store": return "your store";
  }
  return node.role || "database";
}

function fact(node) {
  switch (node.kind) {
    case "web": return node.state === "dead" ? "nobody is here" : many(node.users ?? 0, "user", "users");
    case "worker": return node.state === "dead" ? "holds nothing" : `holds ${many(node.holds ?? 0, "chunk", "chunks")}`;
    case "store": return node.reachable ? "reachable" : "not reachable";
    case "server": return node.reachable ? `offset ${(node.offset ?? 0).toLocaleString("en")}` : "not reachable";
  }
  return "";
}
