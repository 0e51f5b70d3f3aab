package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	// becomeMost bounds every wait for a condition: generous, for a machine that is busy with other things too.
	becomeMost = 90 * time.Second
	lookEvery  = 50 * time.Millisecond
)

// window is a browser of its own, with one window.
type window struct {
	t    *testing.T
	name string
	ctx  context.Context
	// complaints are what the page's script failed with, and what its console calls an error.
	complaints chan string
}

// openWindow starts a browser and goes to a page.
func openWindow(t *testing.T, name, at string) *window {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true), chromedp.WindowSize(wide, high),
		chromedp.WSURLReadTimeout(becomeMost))
	allocated, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel2 := chromedp.NewContext(allocated)
	w := &window{t: t, name: name, ctx: ctx, complaints: make(chan string, 100)}
	t.Cleanup(func() {
		if t.Failed() {
			w.leavePicture()
		}
		cancel2()
		cancel()
		for len(w.complaints) > 0 {
			t.Logf("%s: %s", name, <-w.complaints)
		}
	})
	// The browser lives as long as the context of the first call, so that has no bound.
	if err := chromedp.Listen(ctx, w.hear); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	w.shape(wide, high)
	do(w, chromedp.Navigate(at))
	do(w, chromedp.WaitReady("#form"))
	return w
}

func (w *window) hear(event any) {
	if e, ok := event.(*runtime.EventExceptionThrown); ok {
		select {
		case w.complaints <- fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception):
		default:
		}
	}
}

// do runs an action of the browser.
func do[T any](w *window, action chromedp.Action[T]) T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, becomeMost)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
	return v
}

// shape sets the size of the window.
func (w *window) shape(width, height int64) {
	w.t.Helper()
	p := emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500}
	if _, err := chromedp.Call(w.ctx, emulation.SetDeviceMetricsOverride, p); err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
}

// scheme sets what the person prefers: light or dark.
func (w *window) scheme(name string) {
	w.t.Helper()
	w.media("prefers-color-scheme", name)
}

// calm has the page show no motion, which costs a machine without a graphics card dearly.
func (w *window) calm() {
	w.t.Helper()
	w.media("prefers-reduced-motion", "reduce")
}

func (w *window) media(feature, value string) {
	w.t.Helper()
	p := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: feature, Value: value}}}
	if _, err := chromedp.Call(w.ctx, emulation.SetEmulatedMedia, p); err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
}

// eval returns the value of an expression of the page, into which the arguments are put as JSON.
func eval[T any](w *window, expression string, args ...any) T {
	w.t.Helper()
	texts := make([]any, len(args))
	for i, a := range args {
		b, err := json.Marshal(a)
		if err != nil {
			w.t.Fatal(err)
		}
		texts[i] = string(b)
	}
	return do(w, chromedp.Evaluate[T](fmt.Sprintf(expression, texts...), chromedp.EvalAwaitPromise))
}

// become waits until an expression of the page is true.
func (w *window) become(what, expression string, args ...any) {
	w.t.Helper()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(becomeMost); !eval[bool](w, expression, args...); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("%s: %s did not come about within %v; the story is:\n%s", w.name, what, becomeMost, w.story())
		}
	}
}

func (w *window) story() string { return eval[string](w, `document.getElementById("story").innerText`) }

// leavePicture keeps what the window showed when the test failed.
func (w *window) leavePicture() {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		w.t.Logf("%s: no picture: %v", w.name, err)
		return
	}
	path := filepath.Join(os.TempDir(), "waggle-chat-"+w.name+".png")
	if err := os.WriteFile(path, png, 0o644); err == nil {
		w.t.Logf("%s: what it showed is in %s", w.name, path)
	}
}
