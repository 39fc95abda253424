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
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Options say how a figure is drawn. The zero value is good.
type Options struct {
	// Width and Height are in inches. 0 is a width of 3.25 and the height that suits the kind of figure.
	Width, Height float64
	// Title stands above the figure, in the size of the labels. Papers put such text into the caption.
	Title string
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
	// Outlines makes SVG draw its text as outlines instead of embedding half a megabyte of font. It is for a
	// page that is drawn again and again.
	Outlines bool
}

// Figure is a kind of figure with its numbers.
type Figure interface {
	// validate returns what is wrong with the numbers.
	validate() error
	// table returns the numbers that are drawn, under a row of column names.
	table() [][]string
	// height is the default height in inches.
	height() float64
	// draw draws the figure on the page. It returns an error if the page is too small.
	draw(page draw.Canvas, o Options) error
}

// Formats lists the formats that Encode knows.
func Formats() []string { return []string{"pdf", "svg", "png", "eps", "tex", "csv"} }

// Encode writes a figure in one of Formats.
//
// PDF has the characters of the code page 1252 only, in embedded Liberation Serif. SVG embeds the font too. EPS
// has text as outlines. TeX is a stand-alone document for LaTeX with pgf, in the document's font. A character that a
// format cannot show is an error, which names it. In CSV, the columns low and high are the ends of an error bar or
// band; they are empty if n = 1.
func Encode(w io.Writer, format string, f Figure, o Options) error {
	if !slices.Contains(Formats(), format) {
		return fmt.Errorf("figure format %q is unknown: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if err := cmp.Or(checkSide("width", o.Width), checkSide("height", o.Height), f.validate()); err != nil {
		return err
	}
	if format == "csv" {
		return csv.NewWriter(w).WriteAll(withSplit(f.table(), o))
	}
	width, height := vg.Length(cmp.Or(o.Width, 3.25))*vg.Inch, vg.Length(cmp.Or(o.Height, f.height()))*vg.Inch
	c := newCanvas(format, width, height, o)
	page := draw.NewCanvas(c, width, height)
	page.SetColor(white)
	page.Fill(page.Rectangle.Path()) // also gives TeX pictures their size
	if err := f.draw(page, o); err != nil {
		return err
	}
	return c.write(w)
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
