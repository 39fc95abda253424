package plots

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// entry is a line of a legend.
type entry struct {
	text   string
	sample []plot.Thumbnailer
}

// legend is a plotter that explains the series; its note says what points and bars are. It puts gonum's legends,
// which have one column each, side by side.
type legend struct {
	entries []entry
	note    string
	above   bool // it always stands above the frame
	face    *typeface
	extra   []string // lines below the note

	columns []legendColumn
	size    vg.Point
	corner  *vg.Point // the top left corner in the frame; nil: above the frame
}

// higher returns the height in inches of a figure with these names in its legend. It is the usual height unless
// there are so many names that their legend would take the room of what is drawn.
func higher(usual float64, names []string) float64 {
	row := 0.1
	if slices.ContainsFunc(names, func(name string) bool { return len(name) > 12 }) {
		row = 0.2 // two names in a row, not four
	}
	const few = 6 // two rows of a legend
	return min(usual+row*float64(max(0, len(names)-few)), 3*usual)
}

// foldNote gives the only entry, if it has no name, the note as its text.
func (l *legend) foldNote() {
	if len(l.entries) == 1 && l.entries[0].text == "" {
		l.entries[0].text, l.note = l.note, ""
	}
}

type legendColumn struct {
	plot.Legend
	at vg.Point // the top left corner, from that of the whole legend
}

const (
	sampleWidth  vg.Length = 14
	legendRow    vg.Length = 8.5
	legendGap    vg.Length = 6 // between columns
	legendMargin vg.Length = 4 // from the frame
)

func (l *legend) newColumn(at vg.Point, sample vg.Length) legendColumn {
	c := legendColumn{plot.NewLegend(), at}
	c.Left, c.Top, c.ThumbnailWidth, c.TextStyle = true, true, sample, l.face.small
	c.TextStyle.YAlign = -0.22 // puts digits at the height of the samples
	c.Padding = legendRow - c.TextStyle.Rectangle("").Max.Y
	return c
}

func (c *legendColumn) width() vg.Length { return c.Rectangle(draw.Canvas{}).Size().X }

// arrange lays the legend out in so many columns, row by row. The note stands in the last row if this width has
// room for it, else in a row of its own.
func (l *legend) arrange(columns int, width vg.Length) {
	columns = max(1, min(columns, len(l.entries)))
	l.columns, l.size = nil, vg.Point{}
	for i := range columns {
		c := l.newColumn(vg.Point{X: l.size.X}, sampleWidth)
		for k := i; k < len(l.entries); k += columns {
			c.Add(l.entries[k].text, l.entries[k].sample...)
		}
		l.columns = append(l.columns, c)
		l.size.X += c.width() + legendGap
	}
	l.size.X -= legendGap
	rows := (len(l.entries) + columns - 1) / columns
	if l.note != "" {
		last := l.newColumn(l.columns[(len(l.entries)-1)%columns].at, sampleWidth)
		last.Add(l.entries[len(l.entries)-1].text)
		note := l.newColumn(vg.Point{X: last.at.X + last.width() + legendGap}, 0)
		note.Add(l.note)
		if note.at.X+note.width() > width {
			note.at.X = 0
			rows++
		}
		note.XOffs = -l.face.small.Width(" ")
		note.at.Y = -vg.Length(rows-1) * legendRow
		l.columns = append(l.columns, note)
		l.size.X = max(l.size.X, note.at.X+note.width())
	}
	for _, text := range l.extra {
		line := l.newColumn(vg.Point{Y: -vg.Length(rows) * legendRow}, 0)
		line.Add(text)
		line.XOffs = -l.face.small.Width(" ")
		l.columns = append(l.columns, line)
		l.size.X = max(l.size.X, line.width())
		rows++
	}
	l.size.Y = vg.Length(rows) * legendRow
}

// tellMissing says below the note of a legend above a frame of this width which points have no name, or if the names
// fill more than three lines, how many.
func (l *legend) tellMissing(names []string, width vg.Length) error {
	lines := func(text string) []string {
		return strings.Split(breakLines(l.face.small, text, width-3*l.face.small.Width(" ")), "\n")
	}
	if l.extra = lines("not named: " + strings.Join(names, ", ")); len(l.extra) > 3 {
		l.extra = lines(fmt.Sprintf("%d points have no room for a name: see the csv", len(names)))
	}
	return l.arrangeAbove(width)
}

// arrangeAbove lays the legend out in few rows, to stand over a frame of this width.
func (l *legend) arrangeAbove(width vg.Length) error {
	for columns := len(l.entries); columns > 0; columns-- {
		if l.arrange(columns, width); l.size.X <= width {
			return nil
		}
	}
	return fmt.Errorf("the legend is %.1f in wide, the figure has room for %.1f in:"+
		" raise the width or shorten the names", l.size.X/vg.Inch, width/vg.Inch)
}

// findCorner finds a corner of the frame where the legend covers no line, in as few columns as possible.
func (l *legend) findCorner(frame vg.Rectangle, lines []segment) bool {
	const clearance = legendMargin - 1
	for columns := 1; columns <= min(4, len(l.entries)) && !l.above; columns++ {
		l.arrange(columns, 0)
		w, h := l.size.X, l.size.Y
		right, left := frame.Max.X-legendMargin-w, frame.Min.X+legendMargin
		for _, x := range []vg.Length{right, left, (right + left) / 2} {
			for _, y := range []vg.Length{frame.Max.Y, frame.Min.Y + legendMargin + h} {
				box := vg.Rectangle{
					Min: vg.Point{X: x - clearance, Y: y - h - clearance},
					Max: vg.Point{X: x + w + clearance, Y: y + clearance},
				}
				inside := box.Min.X > frame.Min.X && box.Max.X < frame.Max.X && y <= frame.Max.Y
				if inside && !crossesAny(box, lines) {
					l.corner = &vg.Point{X: x, Y: y}
					return true
				}
			}
		}
	}
	l.corner = nil
	return false
}

// Plot draws the legend.
func (l *legend) Plot(c draw.Canvas, _ *plot.Plot) {
	corner := vg.Point{X: c.Min.X, Y: c.Max.Y + legendMargin + l.size.Y}
	if l.corner != nil {
		corner = *l.corner
	}
	for i := range l.columns {
		at := corner.Add(l.columns[i].at)
		l.columns[i].Draw(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{Min: at, Max: at}})
	}
}

// GlyphBoxes reserves room above the frame.
func (l *legend) GlyphBoxes(*plot.Plot) []plot.GlyphBox {
	if l.corner != nil || len(l.columns) == 0 {
		return nil
	}
	return []plot.GlyphBox{{Y: 1, Rectangle: vg.Rectangle{Max: vg.Point{Y: legendMargin + l.size.Y}}}}
}

// segment is a piece of a drawn line, which a text must not cover.
type segment struct{ from, to vg.Point }

// drawnLines returns what plotters draw in a frame. Of a filled shape it returns edges and chords, so that a text
// inside the shape crosses some of them.
func drawnLines(frame draw.Canvas, p *plot.Plot, plotters []plot.Plotter) (list []segment) {
	var record recorder.Canvas
	for _, plotter := range plotters {
		plotter.Plot(draw.Canvas{Canvas: &record, Rectangle: frame.Rectangle}, p)
	}
	for _, action := range record.Actions {
		switch a := action.(type) {
		case *recorder.Stroke:
			list = append(list, segmentsOf(a.Path, false)...)
		case *recorder.Fill:
			list = append(list, segmentsOf(a.Path, true)...)
		}
	}
	return list
}

func segmentsOf(path vg.Path, filled bool) (list []segment) {
	var corners []vg.Point
	for _, part := range path {
		switch part.Type {
		case vg.ArcComp: // of a circle: its diagonals
			r := part.Radius * math.Sqrt2 / 2
			for _, d := range []vg.Point{{X: r, Y: r}, {X: r, Y: -r}} {
				list = append(list, segment{part.Pos.Sub(d), part.Pos.Add(d)})
			}
		case vg.MoveComp, vg.LineComp:
			if part.Type == vg.LineComp {
				list = append(list, segment{corners[len(corners)-1], part.Pos})
			}
			corners = append(corners, part.Pos)
		}
	}
	for i := range len(corners) / 2 {
		if filled {
			list = append(list, segment{corners[i], corners[len(corners)-1-i]})
		}
	}
	return list
}

func crossesAny(r vg.Rectangle, lines []segment) bool {
	return slices.ContainsFunc(lines, func(s segment) bool { return s.crosses(r) })
}

// crosses reports whether the segment touches the rectangle. It cuts the segment at each edge, as Liang and
// Barsky do.
func (s segment) crosses(r vg.Rectangle) bool {
	enter, leave := vg.Length(0), vg.Length(1) // the part of the segment that is inside
	d := s.to.Sub(s.from)
	for _, edge := range []struct{ speed, distance vg.Length }{
		{-d.X, s.from.X - r.Min.X}, {d.X, r.Max.X - s.from.X},
		{-d.Y, s.from.Y - r.Min.Y}, {d.Y, r.Max.Y - s.from.Y},
	} {
		switch {
		case edge.speed == 0 && edge.distance < 0:
			return false
		case edge.speed < 0:
			enter = max(enter, edge.distance/edge.speed)
		case edge.speed > 0:
			leave = min(leave, edge.distance/edge.speed)
		}
	}
	return enter <= leave
}
