package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// artefactsEnv names the directory that screenshots go to.
const artefactsEnv = "S3DAEMON_E2E_ARTEFACTS"

// browser is the one of the suite, which the first test that needs it starts.
type browser struct {
	once  sync.Once
	ctx   context.Context // of chromedp; nil where there is none
	close context.CancelFunc
	err   error
}

// theBrowser is ended by TestMain.
var theBrowser browser

// started returns the browser, and skips the test where there is none.
func (b *browser) started(t testing.TB) context.Context {
	t.Helper()
	b.once.Do(func() {
		var path string
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if found, err := exec.LookPath(name); err == nil && path == "" {
				path = found
			}
		}
		if path == "" {
			return
		}
		options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path)}
		if os.Geteuid() == 0 {
			options = append(options, chromedp.NoSandbox) // which it does not start with, as root
		}
		b.ctx, b.close = chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(options...))
		b.err = chromedp.Do(b.ctx)
	})
	if b.err != nil {
		t.Fatalf("the browser does not start: %v", b.err)
	}
	if b.ctx == nil {
		t.Skip("there is no chromium here (Debian's package chromium)")
	}
	return b.ctx
}

// stop ends the browser, if it was started.
func (b *browser) stop() {
	if b.close != nil {
		b.close()
	}
}

// tab is a tab of a browser of its own, without anything that another test has left in
// it. It fails its test for whatever the page writes to the console, and for each
// request to anybody but the daemon.
type tab struct {
	t    testing.TB
	ctx  context.Context
	base string // of the addresses that it may ask

	mu       sync.Mutex // guards what follows
	console  []string
	expected []string // beginnings of what may be in the console
	asked    []string // the addresses of requests
}

// openTab opens a tab at an address of the daemon's: base, and what follows.
func openTab(t testing.TB, base, path string) *tab {
	t.Helper()
	b := &tab{t: t, base: base}
	ctx, cancel := chromedp.NewContext(theBrowser.started(t), chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		if t.Failed() {
			b.shot("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
		}
		cancel()
		b.check()
	})
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // without a limit: the tab lives as long as its first context
		t.Fatal(err)
	}
	b.desktop()
	b.open(path)
	return b
}

// listen is told all that happens in the tab.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.console = append(b.console, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		for _, arg := range e.Args {
			b.console = append(b.console, fmt.Sprintf("%s: %s %s", e.Type, arg.Value, arg.Description))
		}
	case *log.EventEntryAdded:
		b.console = append(b.console, e.Entry.Text)
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
	}
}

// expect lets the console have what begins so: a browser says there that a request
// failed, whatever the page makes of that.
func (b *tab) expect(beginning string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, beginning)
}

func (b *tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
console:
	for _, line := range b.console {
		for _, beginning := range b.expected {
			if strings.HasPrefix(line, beginning) {
				continue console
			}
		}
		b.t.Errorf("the console has: %s", line)
	}
	for _, address := range b.asked {
		if !strings.HasPrefix(address, b.base) && !strings.HasPrefix(address, "data:") && address != "about:blank" {
			b.t.Errorf("the page asked %s", address)
		}
	}
}

// requests returns how many were made whose path begins so.
func (b *tab) requests(path string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range b.asked {
		if u, err := url.Parse(address); err == nil && strings.HasPrefix(u.Path, path) {
			n++
		}
	}
	return n
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// open goes to an address as if somebody had typed it.
func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(b.base+path))
}

// eval returns what an expression of JavaScript is.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := tryEval[T](b, expression)
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func tryEval[T any](b *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// wait waits until an expression of JavaScript is true. It has $ and row in it.
func (b *tab) wait(what, expression string) {
	b.t.Helper()
	var last error
	err := poll(patience, func() error {
		var is bool
		if is, last = tryEval[bool](b, finders+"Boolean("+expression+") }"); last == nil && !is {
			last = errNotYet
		}
		return last
	})
	if err != nil {
		b.t.Fatalf("waiting for %s (%s): %v; the page is:\n%s", what, expression, err, b.words())
	}
}

// finders are for expressions: text is what is seen of an element, and row what is
// seen of the row of the list that has a text in it.
const finders = `{
	const text = (selector) => document.querySelector(selector)?.innerText ?? '';
	const row = (part) => [...document.querySelectorAll('#rows tr')].map((r) => r.innerText).find((t) => t.includes(part)) ?? '';
`

// words returns all that is seen of the page.
func (b *tab) words() string {
	words, err := tryEval[string](b, "document.body.innerText")
	if err != nil {
		return err.Error()
	}
	return words
}

// text returns what is seen of an element.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("document.querySelector(%q).innerText", selector))
}

// click clicks on the first element that can be seen.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// clickIn clicks on the button of the row that has a text in it.
func (b *tab) clickIn(part string) {
	b.t.Helper()
	const mark = `[...document.querySelectorAll('#rows tr')].find((r) => r.innerText.includes(%q)).querySelector('button').setAttribute('data-test', '')`
	eval[chromedp.Void](b, "for (const e of document.querySelectorAll('[data-test]')) e.removeAttribute('data-test'); "+fmt.Sprintf(mark, part))
	b.click("[data-test]")
}

// press presses keys, one after another.
func (b *tab) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do(chromedp.KeyEvent(key))
	}
}

// tabTo presses the key that moves the focus until that is on an element.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 200 {
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("the focus does not come to %s; it is on %s", selector, eval[string](b, "document.activeElement.outerHTML"))
}

// The sizes of windows.
func (b *tab) desktop() { b.t.Helper(); b.do(chromedp.EmulateViewport(1280, 900)) }
func (b *tab) phone()   { b.t.Helper(); b.do(chromedp.EmulateViewport(360, 780)) }
func (b *tab) narrow()  { b.t.Helper(); b.do(chromedp.EmulateViewport(320, 640)) }

// prefers has the browser say what its user prefers, as prefers-color-scheme.
func (b *tab) prefers(feature, value string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: feature, Value: value}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// shot keeps a picture of what the window shows.
func (b *tab) shot(name string) { b.keep(name, chromedp.CaptureScreenshot()) }

// fullShot keeps a picture of the whole page.
func (b *tab) fullShot(name string) { b.keep(name, chromedp.FullScreenshot(100)) }

func (b *tab) keep(name string, take chromedp.Action[[]byte]) {
	b.t.Helper()
	dir := os.Getenv(artefactsEnv)
	if dir == "" {
		dir = "artefacts"
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, take)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Errorf("the picture %s: %v", name, err)
	}
}

// fits fails the test where something is cut off at the side, or has to be scrolled to.
func (b *tab) fits(what string) {
	b.t.Helper()
	if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		b.t.Errorf("%s is %d pixels wider than the window", what, over)
	}
}
