package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"igcsearch/store/download"
)

//go:embed assets
var assets embed.FS

const (
	// often is the shortest time between two looks at the database.
	often = time.Second
	// seldom is after what time it is read even if nothing was committed, because
	// a process that was killed commits nothing.
	seldom = 15 * time.Second
	// beat is the time after which a page hears that the server is there.
	beat = 5 * time.Second

	// These bound what is there at once: clients that receive files, different
	// files and copies of the database, and pages that hear of changes.
	mostClients, mostFiles, mostCopies, mostPages = 100, 20, 4, 1000
)

// Site serves the pages.
type Site struct {
	source   Source
	version  string // of the assets
	page     *template.Template
	now      func() time.Time
	interval time.Duration // of beats
	files    *download.Sender
	copies   *download.Sender // of the database
	streams  chan struct{}    // of events; it is full while there are as many as may be

	mu    sync.Mutex
	mark  string // of the source, when it was last read
	shown *shown
	asked time.Time     // when the mark was last asked for
	read  time.Time     // when the source was last read
	pause time.Duration // how long to wait before the next look, if longer than often
}

// shown is a State and what is made of it. It does not change, except that its
// figures are drawn and its pages are made when they are first asked for.
type shown struct {
	State
	problem string // why the database cannot be read; then there are no studies
	id      string // other numbers have another one
	figures map[[2]string]*drawn

	mu    sync.Mutex
	pages map[string][]byte // by study, "" for all studies
	asOf  time.Time         // when the database was last asked
}

// drawn is a figure as the page shows it.
type drawn struct {
	Figure
	version string
	once    sync.Once
	svg     []byte
	zipped  []byte
	err     error
}

// New makes a site that shows a source.
func New(source Source) *Site {
	s := &Site{source: source, now: time.Now, interval: beat,
		files: download.NewSender(mostClients, mostFiles), copies: download.NewSender(mostClients, mostCopies),
		streams: make(chan struct{}, mostPages)}
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
		panic(err) // the binary contains them
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
	handle("/studies/{study}/{$}", func(w http.ResponseWriter, r *http.Request) {
		redirect(w, "../"+url.PathEscape(r.PathValue("study")), http.StatusMovedPermanently)
	})
	handle("/studies/{study}/{file}", s.serveFile)
	handle("/database", s.serveDatabase)
	handle("/events", s.serveEvents)
	handle("/assets/{file}", s.serveAsset)
}

// redirect sends a browser to an address that is relative to the one it asked
// for. http.Redirect makes it begin with "/", which fails behind a proxy that puts
// the site below a path.
func redirect(w http.ResponseWriter, to string, code int) {
	w.Header().Set("Location", to)
	w.WriteHeader(code)
}

// protect sets the headers of every answer: a browser loads nothing from other
// hosts, runs no script but ours, and shows this page in no other page.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// current returns what to show now, and when the database was last asked.
func (s *Site) current() (*shown, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.now()
	if s.shown != nil && start.Sub(s.asked) < max(often, s.pause) {
		return s.shown, s.asked
	}
	// This is not the context of the request, because others wait for the same answer.
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
	// Looking at a large database takes at most a tenth of one core.
	s.pause = 9 * s.asked.Sub(start)
	s.shown.mu.Lock()
	s.shown.asOf, s.shown.pages = s.asked, map[string][]byte{}
	s.shown.mu.Unlock()
	return s.shown, s.asked
}

// show makes a state the one that is shown.
func (s *Site) show(state State, err error) {
	problem := ""
	if err != nil {
		problem = strings.ReplaceAll(err.Error(), "\n", "; ")
		state = State{Database: state.Database} // it was read only in part
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
		panic(err) // plain values always have a JSON form
	}
	sum.Write(text)
	fmt.Fprint(sum, next.problem)
	next.id = hex.EncodeToString(sum.Sum(nil))[:16]
	if s.shown == nil || s.shown.id != next.id {
		s.shown = next
	}
}

// plain returns a state without its functions.
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

// view is what the template shows.
type view struct {
	Title    string
	Root     string // what relative addresses begin with: "", or "../" on the page of a study
	Assets   string // their version
	ID       string // of what is shown
	AsOf     time.Time
	Database string
	Problem  string
	Missing  string
	Want     string // the study of this page, "" for all
	Studies  []article
	Others   []Study // shown in one line each
}

// article is a study that is shown in full.
type article struct {
	Study
	Root   string // as in view
	Place  int    // among the articles of the page
	Images []image
}

// image is a figure on the page. Its address contains its version, so that a
// browser can keep it.
type image struct {
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

// view chooses what a page shows: one study, or all studies, of which those that
// run are shown in full. If none runs, that is the study that changed last.
func (s *Site) view(shown *shown, want string) view {
	v := view{
		Title: "igcsearch", Assets: s.version, ID: shown.id, AsOf: shown.asOf,
		Database: shown.Database, Problem: shown.problem, Missing: shown.Missing, Want: want,
	}
	if want != "" {
		v.Root = "../"
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
		item := article{Study: one, Root: v.Root, Place: len(v.Studies)}
		for _, f := range one.Figures {
			item.Images = append(item.Images, image{f, shown.figures[[2]string{one.Name, f.Name}].version})
		}
		v.Studies = append(v.Studies, item)
	}
	return v
}
