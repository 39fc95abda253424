package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// browser starts Chromium, or skips the test where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("IGC_REQUIRE_BROWSER") == "1" {
			t.Fatal("no Chromium, and IGC_REQUIRE_BROWSER=1: apt-get install chromium")
		}
		t.Skip("no Chromium: apt-get install chromium")
	}
	// Chromium's last processes may still write when the first has ended. t.TempDir
	// would fail then. The path of its socket may have 107 bytes, so a long TMPDIR
	// is not for it.
	temp := os.TempDir()
	if len(temp) > 40 {
		temp = "/tmp"
	}
	profile, err := os.MkdirTemp(temp, "igcsearch-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(profile),
		chromedp.Env("TMPDIR="+profile), chromedp.WSURLReadTimeout(browserLimit(t)))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root with one
	}
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// browserLimit is how long to wait for the browser: until shortly before the limit of go test, because on a busy
// machine everything may take long, but what the page shows then is to be seen.
func browserLimit(t *testing.T) time.Duration {
	end, ok := t.Deadline()
	if !ok {
		return time.Hour
	}
	return time.Until(end) - 20*time.Second
}

// tab is one page of a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	errors []string // what the browser complained about
}

func open(t *testing.T, browser context.Context, url string) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser)
	t.Cleanup(stop)
	p := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(e any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			p.errors = append(p.errors, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError && e.Entry.Source != log.SourceNetwork {
				p.errors = append(p.errors, e.Entry.Text)
			}
		}
	})
	// The mark is lost if the page is ever loaded again.
	p.run(log.Enable(), chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url),
		chromedp.Evaluate(`window.neverReloaded = true`, nil))
	return p
}

func (p *tab) run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) text() (text string) {
	p.t.Helper()
	p.run(chromedp.Evaluate(`document.body.innerText`, &text))
	return text
}

// until waits until an expression is true, in a page that is never reloaded.
func (p *tab) until(expression string) {
	p.t.Helper()
	var ok bool
	for browserLimit(p.t) > 0 {
		p.run(chromedp.Evaluate(`window.neverReloaded && Boolean(`+expression+`)`, &ok))
		if ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("never true: %s; the page:\n%s", expression, p.text())
}

// says waits for a text.
func (p *tab) says(text string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.body.innerText.replace(/\s+/g, " ").includes(%q)`, text))
}

// cells returns the trials that the table shows, as exportedCells does.
func (p *tab) cells() (list []string) {
	p.t.Helper()
	p.run(chromedp.Evaluate(`[...document.querySelectorAll("[id^=table-scroll] tbody tr")].map((r) =>
		r.cells[0].textContent + "x" + r.cells[1].textContent + ": " +
		[...r.querySelectorAll(".cell")].map((c) => c.lastChild.textContent).join(" "))`, &list))
	return list
}

// exported checks that the page has the numbers of export.
func (p *tab) exported(db string) {
	p.t.Helper()
	if diff := cmp.Diff(exportedCells(p.t, db), p.cells()); diff != "" {
		p.t.Errorf("export against page:\n%s", diff)
	}
	var accuracies []string
	p.run(chromedp.Evaluate(`[...document.querySelectorAll("td.accuracy")].map((c) => c.textContent)`, &accuracies))
	table := exportedTable(p.t, db)
	for _, a := range accuracies {
		if !strings.Contains(table, "| "+a+" |") {
			p.t.Errorf("export has no accuracy %q:\n%s", a, table)
		}
	}
	if len(accuracies) != 2 {
		p.t.Errorf("accuracies of %d pairs, want 2", len(accuracies))
	}
	p.until(`[...document.images].every((i) => i.complete && i.naturalWidth > 0)`)
}

// TestBrowser watches a study from before it starts to after its end, over a
// restart of the server. Its pages are loaded once.
func TestBrowser(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), strings.Repeat("long", 40)+".db") // pages show it, on a phone in several lines
	b := &browsing{t: t, chromium: browser(t), db: db, address: "127.0.0.1:0"}
	b.start()
	all, one := b.open("/"), b.open("/studies/sweep")
	proxied := open(t, b.chromium, below(t, "http://"+b.address)+"/")
	b.pages = append(b.pages, proxied)
	for _, p := range b.pages {
		p.says("Nothing has started yet")
	}
	w := newSweep(t, b.db, "<i>a & b</i>")
	for _, p := range b.pages {
		p.says("0 of 4")
		p.says("<i>a & b</i>")
		p.says("Figures appear with the first epoch")
		p.exported(b.db)
	}
	b.watchEpochs(w, one)
	b.watchRestart(w)

	// The end is seen by pages that were there and by one that comes later.
	w.train(3)
	w.do(func(db *store.DB) error { // the trial that failed
		all := func(space.System, int) bool { return true }
		_, err := db.Retry(t.Context(), "sweep", []search.Status{search.Failed}, all)
		return err
	})
	w.train(1)
	late := b.open("/studies/sweep")
	for _, p := range b.pages {
		p.says("100 %")
		p.says("4 done")
		p.until(`document.querySelector(".state.done") && document.title.startsWith("100 % sweep")`)
		p.exported(b.db)
	}
	late.checkDevices()
	for _, p := range []*tab{all, one, proxied, late} {
		p.mu.Lock()
		if len(p.errors) > 0 {
			t.Errorf("the browser complained: %q", p.errors)
		}
		p.mu.Unlock()
		chromedp.Cancel(p.ctx)
	}
	b.stop()
}

// browsing is a browser with pages of a server.
type browsing struct {
	t        *testing.T
	chromium context.Context
	db       string
	address  string // of the server
	stop     func() // stops the server
	pages    []*tab
}

// open opens a page of the server.
func (b *browsing) open(path string) *tab {
	b.t.Helper()
	p := open(b.t, b.chromium, "http://"+b.address+path)
	b.pages = append(b.pages, p)
	return p
}

// start starts the server, the second time at the same address.
func (b *browsing) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	var out lockedBuffer
	ended, alive := make(chan struct{}), atomic.Bool{}
	alive.Store(true)
	go func() {
		defer close(ended)
		defer alive.Store(false)
		err := runServe(ctx, serveOptions{db: b.db, listen: b.address}, &out, io.Discard)
		if err != nil && ctx.Err() == nil {
			b.t.Error(err)
		}
	}()
	b.stop = func() {
		cancel()
		<-ended
	}
	var printed string
	until(b.t, "the address of the server", alive.Load, func() bool {
		printed = out.String()
		return strings.HasSuffix(printed, "\n")
	})
	b.address = strings.Trim(strings.TrimPrefix(printed, "http://"), "/\n")
}

// watchEpochs watches a trial that trains and one that fails.
func (b *browsing) watchEpochs(w *sweep, one *tab) {
	b.t.Helper()
	w.begin(0)
	w.epoch(0, 1)
	for _, p := range b.pages {
		p.says("1/3")
		p.until(`document.images.length === 1`) // the learning curves; no accuracy is there yet
		p.exported(b.db)
	}
	// A new epoch comes while a link has the focus.
	one.run(chromedp.Focus(`img + p a[href$=".png"]`))
	w.epoch(0, 2)
	for _, p := range b.pages {
		p.says("2/3")
		p.exported(b.db)
	}
	one.until(`document.activeElement.getAttribute("href").endsWith("/curves.png")`)
	w.epoch(0, 3)
	w.end(0, search.Done, "")
	w.begin(1)
	w.end(1, search.Failed, "line one\n<script>window.broken = true</script>")
	for _, p := range b.pages {
		p.until(`document.images.length === 2`)
		p.says("1 done, 1 failed, 2 pending · 1 failure")
		p.says("<script>window.broken = true</script>")
		p.until(`window.broken === undefined`)
		p.exported(b.db)
	}
}

// watchRestart stops the server while the study goes on, and starts it again.
func (b *browsing) watchRestart(w *sweep) {
	b.t.Helper()
	b.stop()
	for _, p := range b.pages {
		p.until(`document.body.classList.contains("stale")`)
		p.says("no word from the server")
	}
	w.train(2)
	for _, p := range b.pages {
		if strings.Contains(p.text(), "2 done") {
			b.t.Error("a page has news without a server")
		}
	}
	b.start()
	for _, p := range b.pages {
		p.says("live, as of")
		p.says("2 done, 1 failed, 1 pending")
		p.until(`!document.body.classList.contains("stale")`)
		p.exported(b.db)
	}
}

// checkDevices looks at a page on a phone, by the keyboard, and in light and dark
// colours.
func (p *tab) checkDevices() {
	p.t.Helper()
	p.run(chromedp.EmulateViewport(390, 800, chromedp.EmulateMobile))
	var wide int
	p.run(chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
	if wide > 390 {
		p.t.Errorf("on a phone of 390 px the page is %d px wide", wide)
	}
	var reached []string
	const focused = `document.activeElement.id || document.activeElement.getAttribute("href") || ""`
	for range 20 {
		var id string
		p.run(chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(focused, &id))
		reached = append(reached, id)
	}
	for _, want := range []string{
		"#main", "home", "../studies/sweep/accuracy.pdf", "table-scroll-0", "../studies/sweep/results.csv",
	} {
		if !slices.Contains(reached, want) {
			p.t.Errorf("the Tab key does not reach %s, only %v", want, reached)
		}
	}
	for scheme, want := range map[string]string{"light": "rgb(246, 247, 248)", "dark": "rgb(17, 20, 23)"} {
		var ground string
		prefers := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		p.run(emulation.SetEmulatedMedia().WithFeatures(prefers),
			chromedp.Evaluate(`getComputedStyle(document.body).backgroundColor`, &ground))
		if ground != want {
			p.t.Errorf("%s: the ground is %s, want %s", scheme, ground, want)
		}
	}
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
