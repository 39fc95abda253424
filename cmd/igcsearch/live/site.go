package live

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed assets
var assets embed.FS

const (
	// often is how often the database is asked at most.
	often = time.Second
	// seldom is how often it is read even if nothing was committed: a process
	// that was killed commits nothing.
	seldom = 15 * time.Second
	// beat is how often a page hears that the server is there.
	beat = 5 * time.Second
)

// Site serves the pages.
type Site struct {
	source   Source
	version  string // of the assets
	page     *template.Template
	now      func() time.Time
	interval time.Duration // of beats
	copying  chan struct{} // full while somebody copies the database

	mu    sync.Mutex
	mark  string // of source, when it was read
	shown *shown
	asked time.Time     // the last look for another mark
	read  time.Time     // the last reading
	pause time.Duration // until the next look, if longer than often
}

// shown is a State with what is made of it. Nothing of it changes but the
// figures, which are drawn when they are first asked for.
type shown struct {
	State
	problem string // the database cannot be read; there are no studies then
	id      string // another one for other numbers
	figures map[[2]string]*drawn

	mu    sync.Mutex
	pages map[string][]byte // of the last time the database was asked
	asOf  time.Time
}

// drawn is a figure on the page.
type drawn struct {
	Figure
	version string
	once    sync.Once
	svg     []byte
	zipped  []byte
	err     error
}

// New makes a site of a source.
func New(source Source) *Site {
	s := &Site{source: source, now: time.Now, copying: make(chan struct{}, 1), interval: beat}
	sum := sha256.New()
	err := fs.WalkDir(assets, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(name)
		sum.Write(b)
		return err
	})
	if err != nil {
		panic(err) // they are in the binary
	}
	s.version = hex.EncodeToString(sum.Sum(nil))[:12]
	s.page = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"clock": func(t time.Time) string { return t.Local().Format("15:04:05 MST") },
		"date":  func(t time.Time) string { return t.Local().Format("2 Jan 15:04 MST") },
		"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"path":  url.PathEscape,
	}).ParseFS(assets, "assets/page.html"))
	return s
}

// Register adds the site to mux.
func (s *Site) Register(mux *http.ServeMux) {
	handle := func(pattern string, f http.HandlerFunc) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			protect(w.Header())
			f(w, r)
		})
	}
	handle("/{$}", s.servePage)
	handle("/studies/{study}", s.servePage)
	handle("/studies/{study}/{file}", s.serveFile)
	handle("/database", s.serveDatabase)
	handle("/events", s.serveEvents)
	handle("/assets/{file}", s.serveAsset)
}

// protect is for every answer: nothing of another place is loaded, no script
// but ours runs, and no other page shows this one as part of itself.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// current is what is to be shown now, and when the database last was asked.
func (s *Site) current() (*shown, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.now()
	if s.shown != nil && start.Sub(s.asked) < max(often, s.pause) {
		return s.shown, s.asked
	}
	// Not the context of the request: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mark, err := s.source.Mark(ctx)
	if s.shown == nil || err != nil || s.shown.problem != "" || mark != s.mark || start.Sub(s.read) >= seldom {
		var state State
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			state, err = s.source.Read(ctx)
		}
		s.show(state, err)
		s.mark, s.read = mark, start
	}
	s.asked = s.now()
	// To look at a large database takes a tenth of one core at most.
	s.pause = 9 * s.asked.Sub(start)
	s.shown.mu.Lock()
	s.shown.asOf, s.shown.pages = s.asked, map[string][]byte{}
	s.shown.mu.Unlock()
	return s.shown, s.asked
}

// show makes a state the shown one.
func (s *Site) show(state State, err error) {
	problem := ""
	if err != nil {
		problem = strings.ReplaceAll(err.Error(), "\n", "; ")
		state = State{Database: state.Database} // what was read until then is not whole
	}
	next := &shown{State: state, problem: problem, figures: map[[2]string]*drawn{}}
	sum := sha256.New()
	for _, study := range state.Studies {
		for _, f := range study.Figures {
			version := digest([]byte(f.Numbers))
			fmt.Fprintln(sum, version)
			key := [2]string{study.Name, f.Name}
			if s.shown != nil && s.shown.figures[key] != nil && s.shown.figures[key].version == version {
				next.figures[key] = s.shown.figures[key]
				continue
			}
			next.figures[key] = &drawn{Figure: f, version: version}
		}
	}
	text, err := json.Marshal(plain(state))
	if err != nil {
		panic(err) // plain values
	}
	sum.Write(text)
	fmt.Fprint(sum, next.problem)
	next.id = hex.EncodeToString(sum.Sum(nil))[:16]
	if s.shown == nil || s.shown.id != next.id {
		s.shown = next
	}
}

// plain is a state without its functions.
func plain(state State) State {
	state.Studies = slices.Clone(state.Studies)
	for i := range state.Studies {
		state.Studies[i].Figures = nil
	}
	return state
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:16]
}

// view is what the template gets.
type view struct {
	Title    string
	Assets   string // version
	ID       string // of the numbers
	AsOf     time.Time
	Database string
	Problem  string
	Missing  string
	Want     string // the study of this page, "" for all
	Studies  []study
	Others   []Study // in one line each
}

type study struct {
	Study
	Place    int
	Pictures []picture
}

type picture struct {
	Figure
	Version string
}

func (s *Site) servePage(w http.ResponseWriter, r *http.Request) {
	want := r.PathValue("study")
	shown, _ := s.current()
	shown.mu.Lock()
	defer shown.mu.Unlock()
	_, known := shown.study(want)
	page, ok := shown.pages[want]
	if !ok {
		var b bytes.Buffer
		if err := s.page.Execute(&b, s.view(shown, want)); err != nil {
			http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
			return
		}
		page = b.Bytes()
		if known || want == "" {
			shown.pages[want] = page
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch {
	case shown.problem != "":
		w.WriteHeader(http.StatusServiceUnavailable)
	case want != "" && !known:
		w.WriteHeader(http.StatusNotFound)
	}
	w.Write(page)
}

// view chooses what a page shows: one study, or of all those in full that run,
// or else the one that changed last.
func (s *Site) view(shown *shown, want string) view {
	v := view{
		Title: "igcsearch", Assets: s.version, ID: shown.id, AsOf: shown.asOf,
		Database: shown.Database, Problem: shown.problem, Missing: shown.Missing, Want: want,
	}
	for _, one := range shown.Studies {
		full := one.Name == want
		if want == "" {
			full = one.Status == "running" || len(v.Studies) == 0
		}
		if !full {
			if want == "" {
				v.Others = append(v.Others, one)
			}
			continue
		}
		if len(v.Studies) == 0 {
			v.Title = one.Fact() + " – igcsearch"
		}
		item := study{Study: one, Place: len(v.Studies)}
		for _, f := range one.Figures {
			item.Pictures = append(item.Pictures, picture{f, shown.figures[[2]string{one.Name, f.Name}].version})
		}
		v.Studies = append(v.Studies, item)
	}
	return v
}

// serveFile serves the figures and tables of a study. Names that come from
// outside choose among what is there; none becomes a path.
func (s *Site) serveFile(w http.ResponseWriter, r *http.Request) {
	shown, _ := s.current()
	one, ok := shown.study(r.PathValue("study"))
	if !ok {
		http.Error(w, "there is no such study", http.StatusNotFound)
		return
	}
	file := r.PathValue("file")
	if file == "results.csv" || file == "epochs.csv" {
		var b bytes.Buffer
		if err := s.source.Export(r.Context(), &b, one.Name, file == "epochs.csv"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		send(w, "text/csv; charset=utf-8", one.Name+"-"+file, b.Bytes())
		return
	}
	format := strings.TrimPrefix(path.Ext(file), ".")
	kind := map[string]string{"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}[format]
	figure, ok := one.figure(strings.TrimSuffix(file, "."+format))
	if !ok || kind == "" {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	if version := r.URL.Query().Get("v"); version != "" && format == "svg" {
		s.serveShown(w, r, shown.figures[[2]string{one.Name, figure.Name}], version)
		return
	}
	var b bytes.Buffer
	if err := figure.Draw(&b, format, false); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	send(w, kind, one.Name+"-"+file, b.Bytes())
}

// serveShown serves a figure as the page shows it, drawn once.
func (s *Site) serveShown(w http.ResponseWriter, r *http.Request, d *drawn, version string) {
	d.once.Do(func() {
		var b bytes.Buffer
		d.err = d.Draw(&b, "svg", true)
		d.svg = b.Bytes()
		var z bytes.Buffer // a third: who watches may be behind a slow line
		zip := gzip.NewWriter(&z)
		zip.Write(d.svg)
		zip.Close()
		d.zipped = z.Bytes()
	})
	if d.err != nil {
		http.Error(w, d.err.Error(), http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // of the picture alone
	if version == d.version {
		h.Set("Cache-Control", "private, max-age=86400, immutable")
	}
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		w.Write(d.zipped)
		return
	}
	w.Write(d.svg)
}

// send sends a file to be kept.
func send(w http.ResponseWriter, kind, name string, b []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", attachment(name))
	h.Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b)
}

// attachment has no character in name that ends the header or the name.
func attachment(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, name)
	return `attachment; filename="` + name + `"`
}

// serveDatabase sends a copy, by way of a temporary file: one at a time, for it
// may be large.
func (s *Site) serveDatabase(w http.ResponseWriter, r *http.Request) {
	shown, _ := s.current()
	if shown.problem != "" || shown.Missing != "" {
		http.Error(w, cmp.Or(shown.problem, shown.Missing), http.StatusServiceUnavailable)
		return
	}
	name := filepath.Base(shown.Database)
	w.Header().Set("Content-Type", "application/vnd.sqlite3")
	w.Header().Set("Content-Disposition", attachment(name))
	if r.Method == http.MethodHead {
		return
	}
	select {
	case s.copying <- struct{}{}:
		defer func() { <-s.copying }()
	case <-r.Context().Done():
		return
	}
	fail := func(err error) {
		w.Header().Del("Content-Disposition")
		http.Error(w, "copy the database: "+err.Error(), http.StatusServiceUnavailable)
	}
	dir, err := os.MkdirTemp("", "igcsearch-*")
	if err != nil {
		fail(err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "snapshot.db")
	if err := s.source.Snapshot(r.Context(), file); err != nil {
		fail(err)
		return
	}
	f, err := os.Open(file)
	if err != nil {
		fail(err)
		return
	}
	defer f.Close()
	// Whole: a part of another copy does not fit to what a browser has.
	if info, err := f.Stat(); err == nil {
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
	}
	io.Copy(w, f)
}

// serveEvents tells a page of changes: "state" with the ID of the numbers, first
// and when it changes, and "beat" in between. Both carry the version of the
// assets: a page of an older server loads itself anew.
func (s *Site) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between would hold events back
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 2000\n\n")
	sent, last := "", time.Time{}
	tick := time.NewTicker(min(often, s.interval))
	defer tick.Stop()
	for {
		shown, asked := s.current()
		event := "beat"
		if shown.id != sent {
			event = "state"
		}
		if event == "state" || time.Since(last) >= s.interval {
			sent, last = shown.id, time.Now()
			_, err := fmt.Fprintf(w, "event: %s\ndata: %s %s %s\n\n", event, shown.id, s.version, asked.UTC().Format(time.RFC3339))
			if err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Site) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	kind := map[string]string{"live.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}[name]
	if kind == "" {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	b, err := assets.ReadFile("assets/" + name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	if r.URL.Query().Get("v") == s.version {
		w.Header().Set("Cache-Control", "private, max-age=86400, immutable")
	}
	w.Write(b)
}
