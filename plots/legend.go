package plots

import (
	"fmt"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// entry is a line of a legend.
type entry struct {
	text string
	// sample draws between from and to, 14 pt apart; nil for text alone.
	sample func(from, to vg.Point)
}

const (
	sampleWidth vg.Length = 14
	legendRow   vg.Length = 8.5
	legendGap   vg.Length = 6 // between columns
)

func (e entry) width() vg.Length {
	if e.sample == nil {
		return smallFont.Width(e.text)
	}
	return sampleWidth + 3 + smallFont.Width(e.text)
}

func (e entry) draw(c draw.Canvas, at vg.Point) {
	if e.sample != nil {
		y := at.Y + capHeight(smallFont)/2
		e.sample(vg.Point{X: at.X, Y: y}, vg.Point{X: at.X + sampleWidth, Y: y})
		at.X += sampleWidth + 3
	}
	text(c, smallFont, black, at, left, e.text)
}

// legend explains the series; its note says what points and bars are.
type legend struct {
	entries []entry
	note    string
}

// grid is a legend laid out in columns.
type grid struct {
	legend
	columns       []vg.Length // widths
	noteBeside    bool        // in the row of the entries
	width, height vg.Length
}

// layout fills the columns row by row. beside puts the note into the row of
// the entries, if there is one row only.
func (l legend) layout(columns int, beside bool) grid {
	columns = min(columns, len(l.entries))
	g := grid{legend: l, columns: make([]vg.Length, columns)}
	for i, e := range l.entries {
		g.columns[i%columns] = max(g.columns[i%columns], e.width())
	}
	for i, w := range g.columns {
		if i > 0 {
			g.width += legendGap
		}
		g.width += w
	}
	rows := (len(l.entries) + columns - 1) / columns
	if l.note != "" {
		if g.noteBeside = beside && rows == 1; g.noteBeside {
			g.width += legendGap + smallFont.Width(l.note)
		} else {
			rows++
			g.width = max(g.width, smallFont.Width(l.note))
		}
	}
	g.height = vg.Length(rows)*legendRow - (legendRow - smallFont.Font.Size)
	return g
}

// draw puts the grid's top left corner at at.
func (g grid) draw(c draw.Canvas, at vg.Point) {
	y := at.Y - capHeight(smallFont) - 1
	x := at.X
	for i, e := range g.entries {
		if i > 0 && i%len(g.columns) == 0 {
			x, y = at.X, y-legendRow
		}
		e.draw(c, vg.Point{X: x, Y: y})
		x += g.columns[i%len(g.columns)] + legendGap
	}
	if g.note == "" {
		return
	}
	if !g.noteBeside {
		x, y = at.X, y-legendRow
	}
	text(c, smallFont, black, vg.Point{X: x, Y: y}, left, g.note)
}

// above is the layout in few rows that stands over a frame of this width.
func (l legend) above(width vg.Length) (grid, error) {
	for columns := len(l.entries); columns > 1; columns-- {
		for _, beside := range []bool{true, false} {
			if g := l.layout(columns, beside); g.width <= width {
				return g, nil
			}
		}
	}
	g := l.layout(1, false)
	if g.width > width {
		return g, fmt.Errorf("the legend is %.1f in wide, the figure has room for %.1f in: raise the width or shorten the names", g.width/vg.Inch, width/vg.Inch)
	}
	return g, nil
}

// inside finds the first corner of the frame where the legend covers nothing,
// in as few columns as possible.
func (l legend) inside(frame vg.Rectangle, obstacles []obstacle) (g grid, at vg.Point, ok bool) {
	const margin, clearance vg.Length = 3, 3
	for columns := 1; columns <= min(4, len(l.entries)); columns++ {
		g := l.layout(columns, false)
		xs := []vg.Length{frame.Max.X - margin - g.width, frame.Min.X + margin, (frame.Min.X + frame.Max.X - g.width) / 2}
		ys := []vg.Length{frame.Max.Y, frame.Min.Y + margin + g.height}
		if xs[0] < frame.Min.X+margin || ys[1] > frame.Max.Y {
			continue
		}
		for _, x := range xs {
		next:
			for _, y := range ys {
				box := vg.Rectangle{
					Min: vg.Point{X: x - clearance, Y: y - g.height - clearance},
					Max: vg.Point{X: x + g.width + clearance, Y: y + clearance},
				}
				for _, o := range obstacles {
					if o.crosses(box) {
						continue next
					}
				}
				return g, vg.Point{X: x, Y: y}, true
			}
		}
	}
	return grid{}, vg.Point{}, false
}
