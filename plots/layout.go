package plots

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// layout is what a figure draws on its page: columns of panels side by side, with one legend for all.
type layout struct {
	columns [][]*panel // each from top to bottom, all with as many panels
	legend  legend
}

// one is the layout of a single column.
func one(l legend, panels ...*panel) layout { return layout{columns: [][]*panel{panels}, legend: l} }

// blank is a page of this size on which nothing is drawn, to measure on.
func blank(size vg.Point) draw.Canvas { return draw.Canvas{Rectangle: vg.Rectangle{Max: size}} }

// columnWidth is the width in inches of a column of a paper.
const columnWidth = 3.25

const (
	pageMargin vg.Length = 2
	columnGap  vg.Length = 10
	minFrame   vg.Length = 40 // the smallest side of a frame that can still be read
)

// draw draws the panels on a page. With one column, the legend goes into the first panel if some corner of it is free,
// else above it, and the title stands above the panels. With several columns, both stand above all of them.
func (l layout) draw(page draw.Canvas, o Options) error {
	face := o.typeface()
	if w, room := face.label.Width(o.Title), page.Size().X-2*pageMargin; w > room {
		return fmt.Errorf("the title is %.1f in wide, the figure has room for %.1f in: raise the width or shorten it",
			w/vg.Inch, room/vg.Inch)
	}
	if err := l.checkLimits(); err != nil {
		return err
	}
	l.legend.face = face
	inner := draw.Crop(page, pageMargin, -pageMargin, pageMargin, -pageMargin)
	if len(l.columns) > 1 {
		return l.drawColumns(page, inner, o)
	}
	first := l.columns[0][0]
	first.Title.Text = o.Title
	inner.Max.X -= pageMargin
	areas, err := l.place(page, inner)
	if err != nil {
		return err
	}
	frame := first.DataCanvas(areas[0][0])
	legend := &l.legend
	inside := len(legend.entries) == 0 || legend.findCorner(frame.Rectangle, drawnLines(frame, first.Plot, first.plotters))
	first.Add(legend)
	for pass := 0; pass < 2 && !inside; pass++ { // a lower frame may break a label, which makes the frame narrower
		if err := legend.arrangeAbove(first.DataCanvas(areas[0][0]).Size().X); err != nil {
			return err
		}
		if areas, err = l.place(page, inner); err != nil {
			return err
		}
	}
	for range 2 { // the note makes the frame lower, which may leave out another name
		missing := l.missingNames(areas)
		if len(missing) == 0 {
			break
		}
		if err := legend.tellMissing(missing, first.DataCanvas(areas[0][0]).Size().X); err != nil {
			return err
		}
		if areas, err = l.place(page, inner); err != nil {
			return err
		}
	}
	l.drawPanels(areas)
	return nil
}

// checkLimits returns an error if the limits of the axes leave a panel empty.
func (l layout) checkLimits() error {
	for _, p := range slices.Concat(l.columns...) {
		if !(p.X.Min < p.X.Max && p.Y.Min < p.Y.Max) || len(p.series) > 0 && !p.showsPoint() || p.outside {
			return errors.New("the limits of the axes leave out everything that is drawn")
		}
	}
	return nil
}

// missingNames are the names of points that have no room.
func (l layout) missingNames(areas [][]draw.Canvas) (list []string) {
	for i, column := range l.columns {
		for k, p := range column {
			if p.names == nil {
				continue
			}
			_, missing := p.names.place(p.DataCanvas(areas[i][k]).Rectangle, p.Plot)
			for _, name := range missing {
				if len(l.columns) > 1 {
					name = letter(i) + " " + name
				}
				list = append(list, name)
			}
		}
	}
	return list
}

// drawColumns draws several columns, and above them the title and the legend.
func (l layout) drawColumns(page, inner draw.Canvas, o Options) error {
	if o.Title != "" {
		style := styled(o.typeface().label, black, text.XCenter, text.YTop)
		inner.FillText(style, vg.Point{X: inner.Center().X, Y: inner.Max.Y}, o.Title)
		inner.Max.Y -= style.Height(o.Title) + 2
	}
	legend, below := &l.legend, inner
	var areas [][]draw.Canvas
	for range 3 { // the note of missing names makes the frames lower
		if len(legend.entries) > 0 {
			if err := legend.arrangeAbove(inner.Size().X); err != nil {
				return err
			}
			legend.corner = &vg.Point{X: inner.Center().X - legend.size.X/2, Y: inner.Max.Y}
			below.Max.Y = inner.Max.Y - legend.size.Y - legendMargin
		}
		var err error
		if areas, err = l.place(page, below); err != nil {
			return err
		}
		missing := l.missingNames(areas)
		if len(missing) == 0 {
			break
		}
		if err := legend.tellMissing(missing, inner.Size().X); err != nil {
			return err
		}
	}
	legend.Plot(inner, nil)
	l.drawPanels(areas)
	return nil
}

func (l layout) drawPanels(areas [][]draw.Canvas) {
	for i, column := range l.columns {
		for k, p := range column {
			p.Draw(areas[i][k])
		}
	}
}

// place returns the area of each panel, by column, such that their frames are equal, and breaks the labels of the
// axes. It returns an error if the frames are too small.
func (l layout) place(page, inner draw.Canvas) ([][]draw.Canvas, error) {
	tiles := draw.Tiles{Cols: len(l.columns), Rows: len(l.columns[0]), PadX: columnGap, PadY: 3}
	rows := make([][]*plot.Plot, tiles.Rows)
	areas := make([][]draw.Canvas, tiles.Cols)
	for i, column := range l.columns {
		areas[i] = make([]draw.Canvas, tiles.Rows)
		for k, p := range column {
			p.breakLabels(vg.Point{})
			rows[k] = append(rows[k], p.Plot)
		}
	}
	var frame vg.Point
	for range 3 { // labels take room, which breaks them anew
		for k, row := range plot.Align(rows, tiles, inner) {
			for i, area := range row {
				areas[i][k] = area
			}
		}
		for i, column := range l.columns {
			for k, p := range column {
				frame = p.DataCanvas(areas[i][k]).Size()
				p.breakLabels(frame)
			}
		}
	}
	// Where the labels leave no room, plot.Align returns areas of any size.
	if size := page.Size(); !(frame.X >= minFrame && frame.Y >= minFrame && frame.X <= size.X && frame.Y <= size.Y) {
		return nil, fmt.Errorf("figure of %.3g × %.3g in: %.2g × %.2g in are left beside its labels and legend;"+
			" make it larger or draw fewer series", page.Size().X/vg.Inch, page.Size().Y/vg.Inch,
			room(frame.X, page.Size().X)/vg.Inch, room(frame.Y, page.Size().Y)/vg.Inch)
	}
	return areas, nil
}

// room is a side of a frame, and 0 of one that does not fit the side of its page.
func room(side, page vg.Length) vg.Length {
	if side > 0 && side <= page {
		return side
	}
	return 0
}

// breakLabels breaks the labels of the axes for a frame of this size; a side of 0 removes them.
func (p *panel) breakLabels(frame vg.Point) {
	p.X.Label.Text = p.wrap(p.xLabel, frame.X)
	p.Y.Label.Text = p.wrap(p.yLabel, frame.Y)
	if p.right != nil {
		p.right.text = p.wrap(p.right.label, frame.Y)
	}
}

func (p *panel) wrap(label string, length vg.Length) string { return wrap(p.face.label, label, length) }

// wrap breaks a label into as few lines of at most this length as words allow, and these into lines of about the
// same length. It returns nothing for the length 0.
func wrap(style text.Style, label string, length vg.Length) string {
	if length == 0 {
		return ""
	}
	length = min(length, style.Width(label)) // a longer one changes nothing
	text := breakLines(style, label, length)
	for n := strings.Count(text, "\n"); length > 0; length-- {
		shorter := breakLines(style, label, length)
		if strings.Count(shorter, "\n") > n {
			break
		}
		text = shorter
	}
	return text
}

func breakLines(style text.Style, label string, length vg.Length) (text string) {
	line := ""
	for i, word := range strings.Fields(label) {
		switch {
		case i == 0:
			line = word
		case style.Width(line+" "+word) > length:
			text, line = text+line+"\n", word
		default:
			line += " " + word
		}
	}
	return text + line
}
