// Package plots draws the figures of a paper with gonum's plot and plotters. AccuracyVsM, accuracy against the number
// of secondary partitions M, is the paper's Figure 3; the other types that implement Figure stand in files of their own.
//
// A figure is a struct of numbers. Encode turns it into PDF, SVG, PNG, EPS or TeX, or into a CSV table of the
// numbers that are drawn. The same figure gives the same bytes, always. The zero Options are those of one column
// of a two-column paper: 3.25 in wide with text of 7 and 8 pt, so that nothing is rescaled when the figure is
// included at its own size.
//
// Series differ in colour, in dashes and in marker, so that a figure stays readable in grey print and for
// colour-blind readers. The colours are those of Okabe and Ito, "Color Universal Design", 2008. All fills are
// opaque, because PDF, EPS and TeX output cannot be trusted with transparency.
package plots

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// Options say how a figure is drawn. The zero value is good.
type Options struct {
	// Width and Height are in inches. 0 is a width of 3.25, of a figure of several columns of panels 6.75, and the
	// height that suits the kind of figure.
	Width, Height float64
	// TextSize is the size of the labels of axes in points, 5 to 20; 0 is 8. All other text is 7/8 as large. Lines and
	// markers grow with the text.
	TextSize float64
	// Font is the family of all text; "" is Serif.
	Font Font
	// X and Y are the ranges of the axes, in the units of their ticks. Of several panels, they are those of each. A
	// legend's place, the labels under the axis and the ticks are chosen for these ranges. The losses of LearningCurves
	// keep their own range.
	X, Y Limits
	// Title stands above the figure, in the size of the labels. Papers put such text into the caption.
	Title string
	// Name and Description are what SVG says to screen readers, and TeX to those who read the file: what the figure is
	// called, and in a sentence what it shows. They are not drawn.
	Name, Description string
	// AccuracyLabel names the accuracy axis; "" is "accuracy (%)".
	AccuracyLabel string
	// Split and Pictures are the pictures of the accuracies and losses: the last columns of CSV, and the split in the
	// label of losses. "" is not known, and has no such columns.
	Split    string
	Pictures int
	// Date is written into PDF and EPS files as their time of creation; the zero time is 1970-01-01. It is an
	// option because every file would differ if the clock were read: give SOURCE_DATE_EPOCH, or the time at
	// which the numbers last changed.
	Date time.Time
	// Outlines makes SVG draw its text as outlines instead of embedding the font. It is for a page that is drawn again
	// and again.
	Outlines bool
	// Data is the name of the file that a TikZ figure reads its numbers from: what Encode writes as "dat".
	Data string
}

// scale is how much larger than its usual size everything is drawn.
func (o Options) scale() vg.Length {
	return vg.Length(cmp.Or(o.TextSize, float64(labelSize))) / labelSize
}

func (o Options) validate() error {
	if o.TextSize != 0 && !(o.TextSize >= 5 && o.TextSize <= 20) {
		return fmt.Errorf("text size %g pt: want 5 to 20, or 0 for 8", o.TextSize)
	}
	return cmp.Or(checkSide("width", o.Width), checkSide("height", o.Height), o.Font.validate(),
		o.X.validate("x"), o.Y.validate("y"))
}

// Limits are the ends of an axis. The zero value leaves both to the figure; so does NaN with one of them.
type Limits struct{ Low, High float64 }

func (l Limits) validate(axis string) error {
	if math.IsInf(l.Low, 0) || math.IsInf(l.High, 0) || l.Low >= l.High && l != (Limits{}) {
		return fmt.Errorf("limits %g to %g of the %s axis: want the lower end first", l.Low, l.High, axis)
	}
	return nil
}

// of replaces the ends of a span by the limits. to is where a number stands on the axis; nil if it is that number.
func (l Limits) of(s span, to func(float64) float64) span {
	if l == (Limits{}) {
		return s
	}
	if to == nil {
		to = func(v float64) float64 { return v }
	}
	if low := to(l.Low); !math.IsNaN(l.Low) && !math.IsInf(low, -1) { // a logarithmic axis has no 0
		s.low = low
	}
	if !math.IsNaN(l.High) {
		s.high = to(l.High)
	}
	return s
}

// Figure is a kind of figure with its numbers.
type Figure interface {
	// validate returns what is wrong with the numbers.
	validate() error
	// table returns the numbers that are drawn, under a row of column names.
	table() [][]string
	// size is the default width and height in inches.
	size() (width, height float64)
	// layout returns what is drawn on a page of this size.
	layout(size vg.Point, o Options) layout
}

// Formats lists the formats that Encode knows.
func Formats() []string {
	return []string{"pdf", "svg", "png", "eps", "tex", "pgf", "tikz", "dat", "csv"}
}

// Encode writes a figure in one of Formats.
//
// PDF has the characters of the code page 1252 only. PDF and SVG embed the part of the font that they need. EPS has
// text as outlines. TeX is a stand-alone document for LaTeX with pgf, and PGF the same picture to \input into another
// document, both in the document's font. TikZ is code for pgfplots, for authors who want to change the figure, and DAT
// the table that this code reads. A character that a format cannot show is an error, which names it, and so is
// text that the page cuts off. In CSV, the columns low and high are the ends of an error bar or band; they are empty if
// n = 1.
func Encode(w io.Writer, format string, f Figure, o Options) error {
	if !slices.Contains(Formats(), format) {
		return fmt.Errorf("figure format %q is unknown: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if err := cmp.Or(o.validate(), f.validate()); err != nil {
		return err
	}
	if format == "csv" {
		return csv.NewWriter(w).WriteAll(withSplit(f.table(), o))
	}
	usualWidth, usualHeight := f.size()
	width := vg.Length(cmp.Or(o.Width, usualWidth)) * vg.Inch
	height := vg.Length(cmp.Or(o.Height, usualHeight*float64(o.scale()))) * vg.Inch
	if format == "tikz" || format == "dat" {
		size := vg.Point{X: width / o.scale(), Y: height / o.scale()}
		l := f.layout(size, o)
		if err := l.checkLimits(); err != nil {
			return err
		}
		t, err := newTikZ(l, vg.Point{X: width, Y: height}, o)
		if err != nil {
			return err
		}
		if format == "dat" {
			return t.writeData(w)
		}
		_, err = t.code.WriteTo(w)
		return err
	}
	var drawn recorder.Canvas
	page := draw.NewCanvas(&drawn, width/o.scale(), height/o.scale())
	page.SetColor(white)
	page.Fill(page.Rectangle.Path()) // also gives TeX pictures their size
	if err := f.layout(page.Size(), o).draw(page, o); err != nil {
		return err
	}
	if err := checkInside(drawn.Actions, page.Size()); err != nil {
		return err
	}
	c := newCanvas(format, width, height, o, texts(drawn.Actions))
	for _, action := range drawn.Actions { // not by ReplayOn, which reads all fonts anew
		if text, ok := action.(*recorder.FillString); ok {
			c.FillString(plot.DefaultTextHandler.Cache().Lookup(text.Font, text.Size), text.Point, text.String)
			continue
		}
		action.ApplyTo(c)
	}
	return c.write(w)
}

// texts returns the texts of a drawing.
func texts(actions []recorder.Action) (list []*recorder.FillString) {
	for _, action := range actions {
		if text, ok := action.(*recorder.FillString); ok {
			list = append(list, text)
		}
	}
	return list
}

// checkInside returns an error if a text reaches over the edge of a page of this size.
func checkInside(actions []recorder.Action, page vg.Point) error {
	// A point of a text is turned by the angle and moved by the shift of the top of the stack.
	type transform struct {
		shift vg.Point
		angle float64
	}
	at := transform{}
	var stack []transform
	turned := func(p vg.Point) vg.Point {
		sin, cos := math.Sincos(at.angle)
		return at.shift.Add(vg.Point{X: p.X*vg.Length(cos) - p.Y*vg.Length(sin), Y: p.X*vg.Length(sin) + p.Y*vg.Length(cos)})
	}
	for _, action := range actions {
		switch a := action.(type) {
		case *recorder.Push:
			stack = append(stack, at)
		case *recorder.Pop:
			at, stack = stack[len(stack)-1], stack[:len(stack)-1]
		case *recorder.Rotate:
			at.angle += a.Angle
		case *recorder.Translate:
			at.shift = turned(a.Point)
		case *recorder.FillString:
			face := plot.DefaultTextHandler.Cache().Lookup(a.Font, a.Size)
			low, high := vg.Length(-0.2)*a.Size, 0.7*a.Size
			for _, corner := range []vg.Point{{Y: low}, {Y: high}, {X: face.Width(a.String), Y: low},
				{X: face.Width(a.String), Y: high}} {
				p := turned(a.Point.Add(corner))
				const edge = 0.5
				if p.X < -edge || p.Y < -edge || p.X > page.X+edge || p.Y > page.Y+edge {
					return fmt.Errorf("text %q reaches over the edge of the figure of %.3g × %.3g in: make it larger, or"+
						" its text smaller", a.String, page.X/vg.Inch, page.Y/vg.Inch)
				}
			}
		}
	}
	return nil
}

// withSplit adds the columns split and pictures to a table. Measures of the training pictures are of that split.
func withSplit(rows [][]string, o Options) [][]string {
	if o.Split == "" {
		return rows
	}
	measure := slices.Index(rows[0], "measure")
	rows[0] = append(rows[0], "split", "pictures")
	for i, row := range rows[1:] {
		of := []string{o.Split, strconv.Itoa(o.Pictures)}
		if measure >= 0 && strings.HasPrefix(row[measure], "train_") {
			of = []string{"training", ""}
		}
		rows[i+1] = append(row, of...)
	}
	return rows
}

// checkSide checks an optional side of a figure. 40 in is a poster; a larger PNG would take a gigabyte.
func checkSide(name string, inches float64) error {
	if inches != 0 && !(inches >= 1 && inches <= 40) {
		return fmt.Errorf("figure %s %g in: want 1 to 40, or 0 for the default", name, inches)
	}
	return nil
}

// checkNames checks that the names of a figure's series differ, and that each has one if there are several.
func checkNames(what string, names []string) error {
	for i, name := range names {
		if name == "" && len(names) > 1 {
			return fmt.Errorf("%s %d of %d has no name", what, i+1, len(names))
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("two %s are named %q", strings.TrimSuffix(what, "s")+"s", name)
		}
	}
	return nil
}
