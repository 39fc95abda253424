package live

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// serveFile serves the figures and tables of a study. A name from outside only
// chooses among what is there, and never becomes a path.
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
	kind := map[string]string{
		"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8",
	}[format]
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

// serveShown serves a figure as the page shows it. It is drawn once.
func (s *Site) serveShown(w http.ResponseWriter, r *http.Request, d *drawn, version string) {
	d.once.Do(func() {
		var b bytes.Buffer
		d.err = d.Draw(&b, "svg", true)
		d.svg = b.Bytes()
		var z bytes.Buffer // a third as large, for slow lines
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
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // for the figure alone
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

// send sends a file that the browser stores.
func send(w http.ResponseWriter, kind, name string, b []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", attachment(name))
	h.Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b)
}

// attachment returns the header for a file that the browser stores. It replaces
// characters that would end the header or the name.
func attachment(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, name)
	return `attachment; filename="` + name + `"`
}

// serveDatabase sends a copy of the database, by way of a temporary file. It
// makes one copy at a time, because it may be large.
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
	// The copy is sent whole: a browser could not continue with a part of another copy.
	if info, err := f.Stat(); err == nil {
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
	}
	io.Copy(w, f)
}

func (s *Site) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	kind := map[string]string{
		"live.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	}[name]
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
