package plots

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Font is a family of the font of a figure. "" is Serif.
type Font string

const (
	// Serif is Liberation Serif, which is as wide as Times; in TeX, \rmfamily of the document.
	Serif Font = "serif"
	// Sans is Liberation Sans, which is as wide as Arial and Helvetica; in TeX, \sffamily of the document.
	Sans Font = "sans"
)

// Fonts lists the families.
func Fonts() []Font { return []Font{Serif, Sans} }

func (f Font) validate() error {
	switch f {
	case "", Serif, Sans:
		return nil
	}
	return fmt.Errorf("font %q is unknown: want one of %s, %s", f, Serif, Sans)
}

// typeface has the styles of all text of a figure. Text stands left of and above its point. There is no italic: it
// would add a second font to every file, and vgpdf cannot find it.
type typeface struct {
	label text.Style // of axes and titles, 8 pt
	small text.Style // of ticks, legends and names, 7 pt
	// digits is the height of digits and capitals in small.
	digits vg.Length
}

var typefaces = map[Font]*typeface{
	Serif: newTypeface("Serif", 0.66),
	Sans:  newTypeface("Sans", 0.73),
}

func newTypeface(variant font.Variant, capitals vg.Length) *typeface {
	of := plot.DefaultFont
	of.Variant = variant
	style := func(size vg.Length) text.Style {
		return text.Style{Color: black, Font: font.From(of, size), Handler: plot.DefaultTextHandler}
	}
	t := &typeface{label: style(labelSize), small: style(smallSize)}
	t.digits = capitals * smallSize
	return t
}

// The sizes of text, in points of a page that Options.TextSize does not scale.
const (
	labelSize vg.Length = 8
	smallSize vg.Length = 7
)

// typeface returns the styles of the figure's text.
func (o Options) typeface() *typeface {
	if o.Font == Sans {
		return typefaces[Sans]
	}
	return typefaces[Serif]
}

// styled returns a style with another colour and alignment.
func styled(s text.Style, clr color.Color, x text.XAlignment, y text.YAlignment) text.Style {
	s.Color, s.XAlign, s.YAlign = clr, x, y
	return s
}

// write writes text with its baseline at pt.
func write(c draw.Canvas, s text.Style, pt vg.Point, txt string) {
	pt.Y += s.FontExtents().Ascent - s.Font.Size // where the plain text handler puts the baseline
	c.FillText(s, pt, txt)
}
