package live

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a source whose numbers a test changes.
type fake struct {
	mu           sync.Mutex
	mark         int
	state        State
	err          error
	marks, reads atomic.Int32
	draws        atomic.Int32
}

func (f *fake) Mark(context.Context) (string, error) {
	f.marks.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.mark), f.err
}

func (f *fake) Read(context.Context) (State, error) {
	f.reads.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.err
}

func (f *fake) Export(context.Context, io.Writer, string, bool) error { return nil }
func (f *fake) Snapshot(context.Context, string) error                { return errors.New("no room") }

func (f *fake) set(share float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mark++
	draw := func(w io.Writer, _ string, _ bool) error {
		f.draws.Add(1)
		_, err := io.WriteString(w, "<svg/>")
		return err
	}
	f.state = State{Database: "x.db", Studies: []Study{{
		Name: "one", Status: "running", Share: share, Trials: 2, Counts: "2 running",
		Figures: []Figure{{Name: "accuracy", Title: "Accuracy", Numbers: fmt.Sprint(share), Draw: draw}},
	}}}
}

// clock is a time that a test moves.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.Load()) }

func serve(t *testing.T) (*fake, *Site, *clock, *httptest.Server) {
	t.Helper()
	source := &fake{}
	source.set(0.25)
	site := New(source)
	c := &clock{}
	c.Store(1e18)
	site.now = c.now
	mux := http.NewServeMux()
	site.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return source, site, c, server
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestOneQuery: any number of pages costs one look a second, and one reading a
// change.
func TestOneQuery(t *testing.T) {
	t.Parallel()
	source, _, c, server := serve(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if code, body := get(t, server.URL); code != 200 || !strings.Contains(body, "25 %") {
				t.Errorf("code %d, page %s", code, body)
			}
		})
	}
	all.Wait()
	want := func(what string, marks, reads int32) {
		t.Helper()
		if source.marks.Load() != marks || source.reads.Load() != reads {
			t.Errorf("%s: asked %d times, read %d times; want %d, %d",
				what, source.marks.Load(), source.reads.Load(), marks, reads)
		}
	}
	want("50 pages at once", 1, 1)
	c.Add(int64(often))
	get(t, server.URL)
	want("a second later", 2, 1)
	c.Add(int64(often))
	source.set(0.5)
	if _, body := get(t, server.URL); !strings.Contains(body, "50 %") {
		t.Errorf("the page after a change: %s", body)
	}
	want("after a change", 3, 2)
	c.Add(int64(seldom))
	get(t, server.URL)
	want("a while later", 4, 3)
}

// TestDrawnOnce: a figure is drawn once for the same numbers, and anew for others.
func TestDrawnOnce(t *testing.T) {
	t.Parallel()
	source, _, c, server := serve(t)
	for range 3 {
		if code, body := get(t, server.URL+"/studies/one/accuracy.svg?v=x"); code != 200 || body != "<svg/>" {
			t.Fatalf("code %d: %s", code, body)
		}
	}
	source.mu.Lock()
	source.mark++ // another commit, the same numbers
	source.mu.Unlock()
	c.Add(int64(often))
	get(t, server.URL+"/studies/one/accuracy.svg?v=x")
	if n := source.draws.Load(); n != 1 {
		t.Errorf("drawn %d times, want once", n)
	}
	source.set(0.5)
	c.Add(int64(often))
	get(t, server.URL+"/studies/one/accuracy.svg?v=x")
	if n := source.draws.Load(); n != 2 {
		t.Errorf("drawn %d times after a change, want twice", n)
	}
}

// TestEvents: a page hears of the numbers first, of a change, and in between
// that the server is there.
func TestEvents(t *testing.T) {
	t.Parallel()
	source, site, _, server := serve(t)
	site.now = time.Now
	site.interval = 50 * time.Millisecond
	r, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if kind := r.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	events := make(chan string)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok && lines.Scan() {
				events <- event + " " + strings.Fields(lines.Text())[1]
			}
		}
	}()
	next := func() string {
		t.Helper()
		e, ok := <-events
		if !ok {
			t.Fatal("the stream of events has ended")
		}
		return e
	}
	first := next()
	if !strings.HasPrefix(first, "state ") {
		t.Fatalf("the first event is %q", first)
	}
	if e := next(); e != strings.Replace(first, "state", "beat", 1) {
		t.Errorf("without a change: %q", e)
	}
	source.set(0.75)
	for {
		e := next()
		if strings.HasPrefix(e, "state ") {
			if e == first {
				t.Errorf("another state has the same name %q", e)
			}
			break
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	source, _, c, server := serve(t)
	get(t, server.URL)
	source.mu.Lock()
	source.err = errors.New("the disk is <gone>")
	source.mu.Unlock()
	c.Add(int64(often))
	code, body := get(t, server.URL)
	told := strings.Contains(body, "the disk is &lt;gone&gt;")
	if code != http.StatusServiceUnavailable || !told || strings.Contains(body, "25 %") {
		t.Errorf("code %d: %s", code, body)
	}
	source.mu.Lock()
	source.err, source.state = nil, State{Database: "x.db", Missing: "none yet"}
	source.mu.Unlock()
	c.Add(int64(often))
	if code, body := get(t, server.URL); code != 200 || !strings.Contains(body, "none yet") {
		t.Errorf("code %d: %s", code, body)
	}
	source.set(0.1)
	c.Add(int64(often))
	code, body = get(t, server.URL+"/database")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "no room") {
		t.Errorf("a copy: code %d: %s", code, body)
	}
}

// TestLinks: no address in the pages begins with "/", so that they work below the
// path of a proxy, and an address with a slash at its end leads to a page.
func TestLinks(t *testing.T) {
	t.Parallel()
	_, _, _, server := serve(t)
	for _, path := range []string{"/", "/studies/one", "/studies/one/", "/studies/none"} {
		_, body := get(t, server.URL+path)
		if strings.Contains(body, `="/`) || !strings.Contains(body, "assets/live.js") {
			t.Errorf("%s: %s", path, body)
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := client.Get(server.URL + "/studies/one/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if to := r.Header.Get("Location"); to != "../one" {
		t.Errorf("a slash at the end leads to %q", to)
	}
}

// TestManyPages: a page that is one too many is told to come again, until another
// one is closed.
func TestManyPages(t *testing.T) {
	t.Parallel()
	_, site, _, server := serve(t)
	site.streams = make(chan struct{}, 1)
	first, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	second, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	second.Body.Close()
	if second.StatusCode != http.StatusServiceUnavailable || second.Header.Get("Retry-After") == "" {
		t.Errorf("the second page: %s, %v", second.Status, second.Header)
	}
	first.Body.Close()
	site.streams <- struct{}{} // there is room again
}

// TestServeDownloads: a download says how long it is and what it is, so that a
// client notices one that breaks off.
func TestServeDownloads(t *testing.T) {
	t.Parallel()
	_, _, _, server := serve(t)
	r, err := http.Get(server.URL + "/studies/one/accuracy.png")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "<svg/>" || r.ContentLength != 6 || r.Header.Get("ETag") == "" {
		t.Errorf("%q, %v, %v", body, r.Header, err)
	}
}
