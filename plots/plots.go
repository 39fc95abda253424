// Package plots draws the figures of a paper: accuracy against the number of
// secondary partitions M (AccuracyVsM), learning curves (LearningCurves), the
// history of a race (RaceHistory), accuracy against cost (Pareto), and accuracy
// over budget and M (HeatMap).
//
// A figure is a struct of numbers and options; its zero options are those of
// one column of a two-column paper: 3.25 × 2.2 in with 7 and 8 pt text, so
// that nothing is rescaled when it is included at its own size. Its Save
// method writes PDF, SVG, PNG, EPS or TeX by the file's extension, and as .csv
// the numbers that are drawn. The same figure gives the same bytes, always.
//
// Series are told apart by colour, by dashes and by marker, so that a figure
// survives grey print and colour-blind readers; the colours are those of Okabe
// and Ito, "Color Universal Design", 2008. All fills are opaque, because PDF,
// EPS and TeX output cannot be trusted with transparency.
package plots

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Options are common to all figures. The zero value is good.
type Options struct {
	// Width and Height are in inches; 0 is 3.25 and 2.2; learning curves with a
	// loss panel are 3.4 high, races 2.6, heat maps as high as their rows want.
	Width, Height float64
	// Title stands above the figure, in the size of the labels; papers put
	// such text in the caption.
	Title string
	// AccuracyLabel names the accuracy axis; "" is "accuracy (%)".
	AccuracyLabel string
	// Date is written into PDF and EPS files as their time of creation; the
	// zero time is 1970-01-01. It is an option because reading the clock
	// would make every file differ: give SOURCE_DATE_EPOCH, or when the
	// numbers last changed.
	Date time.Time
	// Outlines makes SVG draw its text as outlines in place of embedding half a
	// megabyte of font: for a page that is drawn again and again.
	Outlines bool
}

// figure is what a kind of figure gives to be written.
type figure interface {
	options() Options
	// validate says what is wrong with the numbers or options.
	validate() error
	// defaultHeight in inches.
	defaultHeight() float64
	// draw returns an error if the canvas is too small.
	draw(draw.Canvas) error
	CSV(io.Writer) error
}

// Formats lists the extensions that Save knows, without the dot.
func Formats() []string { return []string{"pdf", "svg", "png", "eps", "tex", "csv"} }

// size returns the outer size of a figure.
func size(f figure) (w, h vg.Length) {
	w, h = 3.25*vg.Inch, vg.Length(f.defaultHeight())*vg.Inch
	if o := f.options(); o.Width > 0 {
		w = vg.Length(o.Width) * vg.Inch
	}
	if o := f.options(); o.Height > 0 {
		h = vg.Length(o.Height) * vg.Inch
	}
	return w, h
}

func (o Options) validate() error {
	for _, side := range []struct {
		name   string
		inches float64
	}{{"width", o.Width}, {"height", o.Height}} {
		// 40 in is a poster; beyond it a PNG takes a gigabyte.
		if side.inches != 0 && !(side.inches >= 1 && side.inches <= 40) {
			return fmt.Errorf("figure %s %g in: want 1 to 40, or 0 for the default", side.name, side.inches)
		}
	}
	return nil
}

// encode writes a figure in one of Formats.
func encode(w io.Writer, format string, f figure) error {
	if !slices.Contains(Formats(), format) {
		return fmt.Errorf("figure format %q is unknown: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if err := f.options().validate(); err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return err
	}
	if format == "csv" {
		return f.CSV(w)
	}
	width, height := size(f)
	c := newCanvas(format, width, height, f.options())
	page := draw.NewCanvas(c, width, height)
	// The white page also gives TeX pictures their size.
	fill(page, white, rectangle(page.Rectangle))
	if err := f.draw(page); err != nil {
		return err
	}
	return c.write(w)
}

// save writes a figure to path by way of a temporary file beside it, so that
// a full disk or an error leaves the old figure or none, never half a one.
func save(path string, f figure) (err error) {
	format := strings.ToLower(strings.TrimPrefix(filepath.Ext(path), "."))
	if !slices.Contains(Formats(), format) {
		return fmt.Errorf("save figure %s: the extension says the format, want one of .%s", path, strings.Join(Formats(), ", ."))
	}
	var b bytes.Buffer
	if err := encode(&b, format, f); err != nil {
		return fmt.Errorf("save figure %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("save figure: %w", err)
		}
	}()
	mode := os.FileMode(0o644)
	if old, err := os.Stat(path); err == nil {
		mode = old.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	if _, err := tmp.Write(b.Bytes()); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
