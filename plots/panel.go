package plots

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// panel is a plot with what gonum's plot lacks: a legend that finds its place, and labels of vertical axes that
// are broken into lines. It remembers its plotters, because gonum's plot hides them.
type panel struct {
	*plot.Plot
	plotters []plot.Plotter
	yLabel   string
	right    *rightAxis // or nil
}

func newPanel(xLabel, yLabel string) *panel {
	p := &panel{Plot: plot.New(), yLabel: yLabel}
	p.BackgroundColor = nil // the page is white already
	p.Title.TextStyle.Font.Size = labelText.Font.Size
	p.Title.Padding = 2
	p.X.Label.Text = xLabel
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = -axis.Width / 2 // the lines of the axes meet
		axis.Label.TextStyle.Font.Size = labelText.Font.Size
		axis.Label.Padding = 2
		axis.Tick.Label.Font.Size = smallText.Font.Size
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

// setRanges sets the ranges of the axes, whatever the plotters cover.
func (p *panel) setRanges(x, y span) {
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = x.low, x.high, y.low, y.high
}

// drawPanels draws panels under one another, with the title above them. The legend goes into the first panel if
// some corner of it is free, else above it.
func drawPanels(page draw.Canvas, title string, l legend, panels ...*panel) error {
	first := panels[0]
	if w, room := labelText.Width(title), page.Size().X-2*pageMargin; w > room {
		return fmt.Errorf("the title is %.1f in wide, the figure has room for %.1f in: raise the width or shorten it",
			w/vg.Inch, room/vg.Inch)
	}
	first.Title.Text = title
	areas, err := layOut(page, panels)
	if err != nil {
		return err
	}
	frame := first.DataCanvas(areas[0])
	inside := len(l.entries) == 0 || l.findCorner(frame.Rectangle, drawnLines(frame, first.Plot, first.plotters))
	first.Add(&l)
	for pass := 0; pass < 2 && !inside; pass++ { // a lower frame may break a label, which makes the frame narrower
		if err := l.arrangeAbove(first.DataCanvas(areas[0]).Size().X); err != nil {
			return err
		}
		if areas, err = layOut(page, panels); err != nil {
			return err
		}
	}
	for i, p := range panels {
		p.Draw(areas[i])
	}
	return nil
}

const (
	pageMargin vg.Length = 2
	minFrame   vg.Length = 40 // the smallest side of a frame that can still be read
)

// layOut returns the area of each panel, such that their frames are equal, and breaks the vertical labels. It
// returns an error if the frames are too small.
func layOut(page draw.Canvas, panels []*panel) ([]draw.Canvas, error) {
	inner := draw.Crop(page, pageMargin, -2*pageMargin, pageMargin, -pageMargin)
	var column [][]*plot.Plot
	for _, p := range panels {
		p.setVerticalLabels(0)
		column = append(column, []*plot.Plot{p.Plot})
	}
	areas := make([]draw.Canvas, len(panels))
	var frame vg.Point
	for range 2 { // the second time with broken labels
		for i, row := range plot.Align(column, draw.Tiles{Cols: 1, Rows: len(panels), PadY: 3}, inner) {
			areas[i] = row[0]
		}
		for i, p := range panels {
			frame = p.DataCanvas(areas[i]).Size()
			p.setVerticalLabels(frame.Y)
		}
	}
	if frame.X < minFrame || frame.Y < minFrame {
		return nil, fmt.Errorf("figure of %.3g × %.3g in: %.2g × %.2g in are left beside its labels and legend;"+
			" make it larger or draw fewer series", page.Size().X/vg.Inch, page.Size().Y/vg.Inch,
			max(0, frame.X/vg.Inch), max(0, frame.Y/vg.Inch))
	}
	return areas, nil
}

// setVerticalLabels breaks the labels of the vertical axes for a frame of this height; 0 removes them.
func (p *panel) setVerticalLabels(height vg.Length) {
	p.Y.Label.Text = wrap(p.yLabel, height)
	if p.right != nil {
		p.right.text = wrap(p.right.label, height)
	}
}

// wrap breaks a label into as few lines of at most this length as words allow, and these into lines of about the
// same length. It returns nothing for the length 0.
func wrap(label string, length vg.Length) string {
	if length == 0 {
		return ""
	}
	text := breakLines(label, length)
	for n := strings.Count(text, "\n"); length > 0; length-- {
		shorter := breakLines(label, length)
		if strings.Count(shorter, "\n") > n {
			break
		}
		text = shorter
	}
	return text
}

func breakLines(label string, length vg.Length) (text string) {
	line := ""
	for i, word := range strings.Fields(label) {
		switch {
		case i == 0:
			line = word
		case labelText.Width(line+" "+word) > length:
			text, line = text+line+"\n", word
		default:
			line += " " + word
		}
	}
	return text + line
}

// rightAxis is a plotter of a second vertical axis, with a scale of its own.
type rightAxis struct {
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
	tick := styled(smallText, a.color, draw.XLeft, draw.YBottom)
	for _, t := range a.ticks {
		y := c.Y(a.scale.part(t.Value))
		c.StrokeLine2(style, x, y, x+tickLength, y)
		write(c, tick, vg.Point{X: x + tickLength + 2, Y: y - digitHeight/2}, t.Label)
	}
	label := styled(labelText, a.color, draw.XCenter, draw.YBottom)
	label.Rotation = math.Pi / 2
	end := vg.Point{X: c.Max.X + a.width() - label.FontExtents().Descent, Y: c.Center().Y}
	c.FillText(label, end, a.text)
}

// width is the room that the axis takes right of the frame.
func (a *rightAxis) width() vg.Length {
	w := vg.Length(0)
	for _, t := range a.ticks {
		w = max(w, smallText.Width(t.Label))
	}
	return a.offset + tickLength + 2 + w + 2 + labelText.Height(a.text)
}

// GlyphBoxes reserves the room.
func (a *rightAxis) GlyphBoxes(*plot.Plot) []plot.GlyphBox {
	return []plot.GlyphBox{{X: 1, Rectangle: vg.Rectangle{Max: vg.Point{X: a.width()}}}}
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
