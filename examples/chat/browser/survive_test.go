package browser

import (
	"flag"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var pictures = flag.String("pictures", "", "the directory for the pictures of the page; empty: they are not kept")

// The size of a window.
const wide, high = 1280, 860

// TestSurvives is the whole story: two people write, each at a web server of their own, while the master is killed, the next
// one frozen, a worker killed in the middle of its chunks, and a web server killed. In the end both have seen everything that
// either of them has written, once, in the same order, to the byte.
func TestSurvives(t *testing.T) {
	t.Parallel()
	c := startChat(t)
	one, two := openWindow(t, "one", c.at["A1"]), openWindow(t, "two", c.at["A2"])
	want := map[string]string{}
	one.well()
	two.well()
	talk(one, two, want)
	one.picture("chat-well.png")

	masterKilled(one, two, want)
	one.chatter()
	two.chatter()
	masterFrozen(c, two)
	workerKilled(c, one, want)
	webServerKilled(one, two)

	one.well()
	one.hush()
	two.hush()
	for _, w := range []*window{one, two} {
		n := len(one.messages())
		w.become("that it shows everything", `document.querySelectorAll("#messages .message[data-number]").length === %s`, n)
		w.inert()
		if len(w.complaints) > 0 {
			t.Errorf("%s: the page's script failed: %s", w.name, <-w.complaints)
		}
	}
	prove(t, []*window{one, two}, want)
	t.Logf("the story:\n%s", one.story())
}

// talk is the beginning.
func talk(one, two *window, want map[string]string) {
	for _, line := range []struct {
		w            *window
		author, text string
	}{
		{two, "Ada", "Good morning! Is everybody there?"},
		{one, "Grace", "I am, at A1. This message is longer than 64 bytes, so it goes through the queue in several chunks, and comes out whole."},
		{two, "Ada", "And I am at A2. What happens if I kill the master?"},
		{one, "Grace", "Try it."},
	} {
		id := line.w.say(line.author, line.text)
		want[id] = line.text
		line.w.delivered(id)
	}
	one.become("the last line", `[...document.querySelectorAll(".message .text")].at(-1)?.textContent === "Try it."`)
}

// masterKilled kills the master, by the keyboard. What is written before there is a new one waits, and is delivered then.
func masterKilled(one, two *window, want map[string]string) {
	one.t.Helper()
	old := one.master()
	if !eval[bool](one, `(() => {
		const b = document.querySelector('[data-node="' + %s + '"] button[data-action=kill]');
		b.focus();
		return document.activeElement === b;
	})()`, old) {
		one.t.Fatal("the button can't have the focus")
	}
	do(one, chromedp.KeyEvent(kb.Enter))
	one.is(old, "dead")
	if got := eval[string](one, `document.activeElement.ariaLabel`); got != "Start "+old {
		one.t.Errorf("the focus is on %q, not on the button that starts %s", got, old)
	}
	text := "Is anybody there?"
	id := one.say("Grace", text)
	want[id] = text
	one.become("that it waits", `/^waiting|^delivered/.test(document.querySelector('.message[data-id="' + %s + '"] .state').textContent)`, id)
	one.picture("chat-killed.png")
	one.calm()
	for name, text := range odd() {
		want[one.say(name, text)] = text
	}
	for _, text := range hostile {
		want[two.say("<b onclick=window.hurt=1>"+text[:4], text)] = text
	}
	one.master(old)
	one.delivered(id)
}

// masterFrozen freezes the new master. The one that is left has no replica then: it takes nothing at the level that was
// promised, until the one that was killed is back.
func masterFrozen(c *chat, w *window) {
	w.t.Helper()
	dead := eval[string](w, `document.querySelector(".node.server[data-state=dead]").dataset.node`)
	frozen := w.master()
	w.press(frozen, "freeze")
	w.is(frozen, "frozen")
	w.master(dead, frozen)
	w.become("that a message waits for a second node", `[...document.querySelectorAll(".message.own[data-state=sending] .state")].length > 0`)
	w.press(dead, "start")
	w.is(dead, "running")
	w.delivered(w.say("Ada", "There are two again."))
	w.press(frozen, "thaw")
	w.well()
}

// workerKilled kills a worker that has chunks in hand. They can't be finished before, as no replica answers.
func workerKilled(c *chat, w *window, want map[string]string) {
	w.t.Helper()
	act := func(action string, nodes ...string) {
		w.t.Helper()
		for _, node := range nodes {
			if err := c.do(w.t.Context(), node, action); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	replicas := eval[[]string](w, `[...document.querySelectorAll(".node.server:not(.master)")].map((n) => n.dataset.node)`)
	act("freeze", "W1", "W2", "W3")
	text := odd()["long"]
	id := w.say("Grace", text)
	want[id] = text
	w.become("that the chunks are in the queue", `document.querySelector('.message[data-id="' + %s + '"]').dataset.state === "stored"`, id)
	act("freeze", replicas...)
	act("thaw", "W1")
	const holds = `Number((document.querySelector('[data-node=W1] .fact').textContent.match(/[0-9]+/) ?? [0])[0])`
	for { // frozen with chunks in hand, it can't put them down before it is killed
		w.become("that W1 has chunks", holds+" > 0")
		act("freeze", "W1")
		w.is("W1", "frozen")
		if eval[int](w, holds) > 0 {
			break
		}
		act("thaw", "W1")
	}
	act("kill", "W1")
	act("thaw", replicas...)
	act("thaw", "W2", "W3")
	w.delivered(id)
	w.become("the story of W1", `/W1 was killed with [0-9]+ chunks? in hand/.test(document.getElementById("story").textContent)`)
	w.press("W1", "start")
	w.is("W1", "running")
}

// webServerKilled kills the web server of the first window, which goes on at the other by itself.
func webServerKilled(one, two *window) {
	one.t.Helper()
	one.press("A1", "kill")
	one.become("that it is at A2", `document.getElementById("link").textContent === "at A2"`)
	one.delivered(one.say("Grace", "I am at A2 now."))
	one.press("A1", "start")
	two.is("A1", "running")
}
