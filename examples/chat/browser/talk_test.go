package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/waggleq/waggle/examples/chat/check"
)

// shown is a message as a window shows it.
type shown struct {
	ID     string `json:"id"`
	Number int64  `json:"number"`
	Author string `json:"author"`
	Text   string `json:"text"`
	State  string `json:"state"`
	Own    bool   `json:"own"`
}

// say writes a message as somebody at the window would, and returns the id that the page gave it.
func (w *window) say(author, text string) string {
	w.t.Helper()
	return eval[string](w, `(() => {
		document.getElementById("author").value = %s;
		document.getElementById("text").value = %s;
		document.getElementById("form").requestSubmit();
		return [...document.querySelectorAll(".message.own")].at(-1).dataset.id;
	})()`, author, text)
}

// messages are all that the window shows, in the order in which it does.
func (w *window) messages() []shown {
	w.t.Helper()
	return eval[[]shown](w, `[...document.querySelectorAll("#messages .message")].map((m) => ({
		id: m.dataset.id, number: Number(m.dataset.number ?? 0), state: m.dataset.state ?? "", own: m.classList.contains("own"),
		author: m.querySelector("bdi").textContent, text: m.querySelector(".text").textContent,
	}))`)
}

// chatter has the window say something every quarter of a second, until hush, while not too much of it is under way: a busy
// machine is not to be buried.
func (w *window) chatter() {
	w.t.Helper()
	eval[bool](w, `(() => {
		let n = 0;
		window.chatter = setInterval(() => {
			if (document.querySelectorAll(".message.own:not([data-number])").length > 2) return;
			document.getElementById("author").value = %s;
			document.getElementById("text").value = "Round " + ++n + ", " + "and so on ".repeat(n %% 20) + "from " + %s;
			document.getElementById("form").requestSubmit();
		}, 250);
		return true;
	})()`, "Chatter "+w.name, w.name)
}

// hush ends the chatter and waits until all that the window has said is delivered.
func (w *window) hush() {
	w.t.Helper()
	eval[bool](w, `(clearInterval(window.chatter), true)`)
	w.become("that all is delivered", `[...document.querySelectorAll(".message.own")].every((m) => m.dataset.state === "delivered")`)
}

// delivered waits until a message of the window is.
func (w *window) delivered(id string) {
	w.t.Helper()
	w.become("that "+id+" is delivered", `document.querySelector('.message[data-id="' + %s + '"]')?.dataset.state === "delivered"`, id)
}

// press presses a button of a node, as soon as it is there.
func (w *window) press(node, action string) {
	w.t.Helper()
	w.become(action+" of "+node, `(() => {
		const b = document.querySelector('[data-node="' + %s + '"] button[data-action="' + %s + '"]');
		if (!b || b.hidden || b.ariaDisabled === "true") return false;
		b.click();
		return true;
	})()`, node, action)
}

// is waits until a node is in a state.
func (w *window) is(node, state string) {
	w.t.Helper()
	w.become(node+" "+state, `document.querySelector('.node[data-node="' + %s + '"]')?.dataset.state === %s`, node, state)
}

// master waits until there is one that is not among others, and returns its name.
func (w *window) master(others ...string) string {
	w.t.Helper()
	const master = `(document.querySelector(".node.master[data-state=running]")?.dataset.node ?? "")`
	w.become("a master", `!["", ...%s].includes(`+master+`)`, append([]string{}, others...))
	return eval[string](w, master)
}

// well waits until every node runs and the database has one master and two replicas.
func (w *window) well() {
	w.t.Helper()
	w.become("that all is well", `(() => {
		const nodes = [...document.querySelectorAll(".node:not(.queue)")];
		const roles = nodes.filter((n) => n.classList.contains("server")).map((n) => n.querySelector(".what").textContent).sort();
		return nodes.length === 11 && nodes.every((n) => n.dataset.state === "running") && roles.join() === "master,replica,replica" &&
			nodes.every((n) => !n.textContent.includes("not reachable"));
	})()`)
}

// prove reads what the windows show and finds everything that was lost, doubled, out of order or changed. want are the texts
// of messages by id, as they were written; the windows' own account of the others counts.
func prove(t *testing.T, windows []*window, want map[string]string) {
	t.Helper()
	h := check.NewHistory()
	all := make([][]shown, len(windows))
	for i, w := range windows {
		all[i] = w.messages()
		for _, m := range all[i] {
			if !m.Own {
				continue
			}
			text, known := want[m.ID]
			if !known {
				text = m.Text
			}
			h.Sent(m.ID, m.Author, text)
			h.Accepted(m.ID)
		}
	}
	for i, w := range windows {
		h.Joined(w.name)
		for _, m := range all[i] {
			h.Saw(w.name, m.Number, m.ID, m.Author, m.Text)
		}
	}
	r := h.Check()
	t.Logf("%d messages, %d delivered to all, %d lost, %d doubled, %d out of order, %d changed", r.Messages, r.Delivered, r.Lost, r.Duplicated, r.OutOfOrder, r.Changed)
	if !r.OK() || r.Messages < len(want) {
		t.Errorf("%s", strings.Join(r.Faults, "\n"))
	}
}

// hostile is a corpus of texts that would do something if they were taken for anything but text.
var hostile = []string{
	`<img src=x onerror="window.hurt=1">`,
	`<script>window.hurt=1</script>`,
	`</div></article><script>window.hurt=1</script>`,
	`"><svg onload=window.hurt=1>`,
	`<iframe srcdoc="<script>parent.hurt=1</script>"></iframe>`,
	`<a href="javascript:window.hurt=1">click</a>`,
	`<style>* { display: none }</style>`,
	`<base href="http://127.0.0.1:1/">`,
	`<form action="http://127.0.0.1:1/"><input autofocus onfocus=window.hurt=1>`,
	`&lt;b&gt; &amp; &#x3c;script&#x3e;`,
	"${window.hurt=1} {{constructor.constructor('window.hurt=1')()}}",
	"\u202eright to left\u202c and \u2066isolated",
	"data: x\n\nevent: message\ndata: {}\n\n",
}

// inert checks that text has stayed text.
func (w *window) inert() {
	w.t.Helper()
	if eval[bool](w, `"hurt" in window`) {
		w.t.Errorf("%s: a message was run as a script", w.name)
	}
	if n := eval[int](w, `document.querySelectorAll("#messages .text *, #messages bdi *").length`); n > 0 {
		w.t.Errorf("%s: messages have made %d elements", w.name, n)
	}
}

// odd are messages of other kinds, by a name for each.
func odd() map[string]string {
	return map[string]string{
		"one byte":      "x",
		"64 KiB":        strings.Repeat("0123456789abcde\n", 4096),
		"64 KiB, wide":  strings.Repeat("蜂", 21845) + "x",
		"emoji":         "🐝 👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301",
		"right to left": "مرحبا بالعالم, שלום עולם, hello",
		"NUL":           "before\x00after",
		"white space":   "  two\tspaces \u00a0 and\n\nlines  ",
		"long":          fmt.Sprint(strings.Repeat("long ", 500)),
	}
}
