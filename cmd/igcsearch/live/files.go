package live

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"igcsearch/store/download"
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
		s.send(w, r, "text/csv; charset=utf-8", shown.id, one.Name, file, func(ctx context.Context, w io.Writer) error {
			return s.source.Export(ctx, w, one.Name, file == "epochs.csv")
		})
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
	d := shown.figures[[2]string{one.Name, figure.Name}]
	if version := r.URL.Query().Get("v"); version != "" && format == "svg" {
		s.serveShown(w, r, d, version)
		return
	}
	s.send(w, r, kind, d.version, one.Name, file, func(_ context.Context, w io.Writer) error {
		return figure.Draw(w, format, false)
	})
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

// send sends a file of a study that the browser stores. Files of one version are
// the same.
func (s *Site) send(w http.ResponseWriter, r *http.Request, kind, version, study, file string,
	write func(context.Context, io.Writer) error) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", attachment(study+"-"+file))
	key := strings.Join([]string{version, study, file}, "/")
	err := s.files.Send(w, r, key, func(ctx context.Context, path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		b := bufio.NewWriterSize(f, 1<<16)
		return errors.Join(write(ctx, b), b.Flush(), f.Close())
	})
	unavailable(w, err)
}

// unavailable answers that a file cannot be sent now, if there is an error.
func unavailable(w http.ResponseWriter, err error) {
	if err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
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

// serveDatabase sends a copy of the database. It may be large, so there are few
// copies at once.
func (s *Site) serveDatabase(w http.ResponseWriter, r *http.Request) {
	shown, _ := s.current()
	if shown.problem != "" || shown.Missing != "" {
		http.Error(w, cmp.Or(shown.problem, shown.Missing), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.sqlite3")
	w.Header().Set("Content-Disposition", attachment(filepath.Base(shown.Database)))
	err := s.copies.Send(w, r, shown.id, s.source.Snapshot)
	if err != nil && !errors.Is(err, download.ErrBusy) {
		err = fmt.Errorf("copy the database: %w", err)
	}
	unavailable(w, err)
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
