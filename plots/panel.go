package plots

import (
	"cmp"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// panel is a plot with what gonum's plot lacks: a legend that finds its place, and labels of vertical axes that
// are broken into lines. It remembers its plotters, because gonum's plot hides them.
type panel struct {
	*plot.Plot
	face           *typeface
	plotters       []plot.Plotter
	xLabel, yLabel string
	right          *rightAxis  // or nil
	names          *pointNames // or nil
	series         []series
	title          string // of one of several columns, with its letter
	outside        bool   // the limits leave out everything, though no series shows it
	// toX is the value of the horizontal axis where a number of its ticks stands; nil if it is that number.
	toX func(float64) float64
}

func newPanel(face *typeface, xLabel, yLabel string) *panel {
	p := &panel{Plot: plot.New(), face: face, xLabel: xLabel, yLabel: yLabel}
	p.BackgroundColor = nil // the page is white already
	p.Title.TextStyle.Font = face.label.Font
	p.Title.Padding = 2
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = -axis.Width / 2 // the lines of the axes meet
		axis.Label.TextStyle.Font = face.label.Font
		axis.Label.Padding = 2
		axis.Tick.Label.Font = face.small.Font
		axis.Tick.Length = tickLength
	}
	p.X.Tick.Label.YAlign = -1.15 // a little below the ticks
	p.Y.Tick.Label.YAlign = -0.59 // the middle of digits; YCenter is that of a line of text
	return p
}

// Add adds plotters, which are drawn in the order in which they were added.
func (p *panel) Add(list ...plot.Plotter) {
	p.Plot.Add(list...)
	p.plotters = append(p.plotters, list...)
}

// add adds what the panel knows of a series.
func (p *panel) add(s series) { p.series = append(p.series, s) }

// showsPoint reports whether the ranges of the axes leave some point of a series in the frame.
func (p *panel) showsPoint() bool {
	return slices.ContainsFunc(p.series, func(s series) bool {
		return slices.ContainsFunc(slices.Concat(s.way, s.points.means()), func(at plotter.XY) bool {
			return at.X >= p.X.Min && at.X <= p.X.Max && at.Y >= p.Y.Min && at.Y <= p.Y.Max
		})
	})
}

// setRanges sets the ranges of the axes, whatever the plotters cover.
func (p *panel) setRanges(x, y span) {
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = x.low, x.high, y.low, y.high
}

// rightAxis is a plotter of a second vertical axis, with a scale of its own.
type rightAxis struct {
	face   *typeface
	scale  span
	ticks  []plot.Tick
	label  string
	text   string    // the label, broken into lines
	offset vg.Length // from the frame
	color  color.Color
}

// Plot draws the axis right of the frame.
func (a *rightAxis) Plot(c draw.Canvas, _ *plot.Plot) {
	x := c.Max.X + a.offset
	style := draw.LineStyle{Color: a.color, Width: vg.Points(0.5)}
	c.StrokeLine2(style, x, c.Min.Y, x, c.Max.Y)
	tick := styled(a.face.small, a.color, draw.XLeft, draw.YBottom)
	for _, t := range a.ticks {
		y := c.Y(a.scale.part(t.Value))
		c.StrokeLine2(style, x, y, x+tickLength, y)
		write(c, tick, vg.Point{X: x + tickLength + 2, Y: y - a.face.digits/2}, t.Label)
	}
	label := styled(a.face.label, a.color, draw.XCenter, draw.YBottom)
	label.Rotation = math.Pi / 2
	end := vg.Point{X: c.Max.X + a.width() - label.FontExtents().Descent, Y: c.Center().Y}
	c.FillText(label, end, a.text)
}

// width is the room that the axis takes right of the frame.
func (a *rightAxis) width() vg.Length {
	w := vg.Length(0)
	for _, t := range a.ticks {
		w = max(w, a.face.small.Width(t.Label))
	}
	return a.offset + tickLength + 2 + w + 2 + a.face.label.Height(a.text)
}

// GlyphBoxes reserves the room: right of the frame for all, and above it for the label of the tick at its upper end and
// for a label that is longer than the frame. Below it there is room beside the labels of the horizontal axis, which what
// is reserved there would move away from the frame.
func (a *rightAxis) GlyphBoxes(*plot.Plot) []plot.GlyphBox {
	box := func(y float64, height vg.Length) plot.GlyphBox {
		return plot.GlyphBox{X: 1, Y: y, Rectangle: vg.Rectangle{Max: vg.Point{X: a.width(), Y: height / 2}}}
	}
	boxes := []plot.GlyphBox{box(0.5, a.face.label.Width(a.text))}
	for _, t := range a.ticks {
		boxes = append(boxes, box(a.scale.part(t.Value), a.face.digits+1))
	}
	return boxes
}

// span is a range of values along an axis, low < high.
type span struct{ low, high float64 }

// spanOf covers the values with a margin, a fraction of their range. A single value gets a range of its own.
func spanOf(values []float64, margin float64) span {
	s := span{math.Inf(1), math.Inf(-1)}
	for _, v := range values {
		s.low, s.high = min(s.low, v), max(s.high, v)
	}
	if s.high-s.low < 1e-6 { // one value, or one with the rounding errors of its sum
		return span{s.low - 1, s.high + 1}
	}
	m := margin * (s.high - s.low)
	return span{s.low - m, s.high + m}
}

// part returns where v lies in the span: 0 at its low end, 1 at its high end.
func (s span) part(v float64) float64 { return (v - s.low) / (s.high - s.low) }

// at is the inverse of part.
func (s span) at(part float64) float64 { return s.low + part*(s.high-s.low) }

// niceTicks is a ticker of at most limit ticks at multiples of 1, 2, 2.5 or 5 times a power of ten. A limit under
// 5 counts as 5: then there are at least 2 ticks, because the next coarser step is at most 2.5 times as large.
type niceTicks struct {
	limit int
	whole bool // leaves out what is not a whole number
}

// heightTicks is the ticker of a vertical axis on a page of this height. The axis has at least 7/10 of it.
func heightTicks(page vg.Length) niceTicks { return niceTicks{limit: int(0.7 * page / 17)} }

// Ticks returns the ticks from low to high.
func (t niceTicks) Ticks(low, high float64) []plot.Tick {
	for exponent := math.Floor(math.Log10(high-low)) - 2; ; exponent++ {
		for _, digit := range []float64{1, 2, 2.5, 5} {
			step := digit * math.Pow(10, exponent)
			first, last := math.Ceil(low/step-1e-9), math.Floor(high/step+1e-9)
			if int(last-first)+1 > max(t.limit, 5) {
				continue
			}
			decimals := max(0, -int(exponent))
			if digit == 2.5 {
				decimals = max(0, 1-int(exponent))
			}
			if t.whole {
				decimals = 0
			}
			var ticks []plot.Tick
			for k := first; k <= last; k++ {
				if v := k * step; !t.whole || v == math.Round(v) {
					ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v+0, 'f', decimals, 64)})
				}
			}
			return ticks
		}
	}
}

// logTicks is a ticker of an axis of decimal logarithms: at most this many ticks at 1, 2 and 5 times powers of
// ten, or at fewer of those. gonum's LogScale, which has no such ticks, also misplaces the label of the axis.
type logTicks int

// Ticks returns the ticks from low to high.
func (limit logTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for _, digits := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		ticks = nil
		for exponent := math.Floor(low); exponent <= high; exponent++ {
			for _, d := range digits {
				if at := exponent + math.Log10(d); at >= low && at <= high {
					label := strconv.FormatFloat(d*math.Pow(10, exponent), 'f', max(0, -int(exponent)), 64)
					ticks = append(ticks, plot.Tick{Value: at, Label: label})
				}
			}
		}
		if len(ticks) <= max(2, int(limit)) {
			break
		}
	}
	return ticks
}

func accuracyLabel(o Options) string { return cmp.Or(o.AccuracyLabel, "accuracy (%)") }
