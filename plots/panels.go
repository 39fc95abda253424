package plots

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Panels is a figure of several figures side by side, lettered (a), (b) and so on, with one legend above them. Their
// frames are of the same size.
type Panels struct {
	Panels []Panel // 2 to 6, all of one kind
	// SameY gives the vertical axes one range, which covers what all of them show.
	SameY bool
}

// Panel is one of Panels.
type Panel struct {
	// Name stands above the panel, after its letter; it may be empty.
	Name   string
	Figure Figure
	// AccuracyLabel names the accuracy axis of this panel; "" is that of Options. Where all panels have the same, it
	// stands at the first only.
	AccuracyLabel string
}

// letter returns the letter of a panel, "(a)".
func letter(i int) string { return fmt.Sprintf("(%c)", 'a'+i) }

func (f Panels) validate() error {
	if len(f.Panels) < 2 || len(f.Panels) > 6 {
		return fmt.Errorf("%d panels, want 2 to 6", len(f.Panels))
	}
	for i, p := range f.Panels {
		if _, nested := p.Figure.(Panels); nested || p.Figure == nil {
			return fmt.Errorf("panel %s: want one figure", letter(i))
		}
		if err := p.Figure.validate(); err != nil {
			return fmt.Errorf("panel %s: %w", letter(i), err)
		}
		if !slices.Equal(p.Figure.table()[0], f.Panels[0].Figure.table()[0]) {
			return errors.New("the panels are of different kinds, want all of one")
		}
	}
	return nil
}

// table has the rows of all panels, which begin with the panel's letter and name.
func (f Panels) table() (rows [][]string) {
	for i, p := range f.Panels {
		own := p.Figure.table()
		if i == 0 {
			rows = append(rows, append([]string{"panel", "title"}, own[0]...))
		}
		for _, row := range own[1:] {
			rows = append(rows, append([]string{string(rune('a' + i)), p.Name}, row...))
		}
	}
	return rows
}

func (f Panels) size() (width, height float64) {
	for _, p := range f.Panels {
		_, h := p.Figure.size()
		height = max(height, h+0.2) // for the letters
	}
	n := float64(len(f.Panels))
	return columnWidth*n + 0.25*(n-1), height
}

func (f Panels) layout(size vg.Point, o Options) (all layout) {
	n := len(f.Panels)
	size.X = (size.X - columnGap*vg.Length(n-1)) / vg.Length(n)
	labels := make([]string, n)
	for i, p := range f.Panels {
		if labels[i] = accuracyLabel(o); p.AccuracyLabel != "" {
			labels[i] = p.AccuracyLabel
		}
	}
	same := !slices.ContainsFunc(labels, func(label string) bool { return label != labels[0] })
	draw := func(i int, o Options) layout {
		o.AccuracyLabel = labels[i]
		return f.Panels[i].Figure.layout(size, o)
	}
	if f.SameY && o.Y == (Limits{}) {
		whole := Limits{math.Inf(1), math.Inf(-1)}
		for i := range f.Panels {
			y := draw(i, o).columns[0][0].Y
			whole = Limits{min(whole.Low, y.Min), max(whole.High, y.Max)}
		}
		o.Y = whole
	}
	var legends []legend
	for i, p := range f.Panels {
		column := draw(i, o)
		top := column.columns[0][0]
		top.title = strings.TrimSpace(letter(i) + " " + p.Name)
		top.Add(heading{o.typeface(), top.title})
		if i > 0 && same && top.yLabel == labels[0] {
			top.yLabel = ""
		}
		all.columns = append(all.columns, column.columns[0])
		legends = append(legends, column.legend)
	}
	all.legend = joinLegends(legends)
	return all
}

// heading is a plotter of a text above the frame.
type heading struct {
	face *typeface
	text string
}

// Plot draws the text, in the middle of the frame.
func (h heading) Plot(c draw.Canvas, _ *plot.Plot) {
	style := styled(h.face.label, black, text.XCenter, text.YBottom)
	write(c, style, vg.Point{X: c.Center().X, Y: c.Max.Y + legendMargin}, h.text)
}

// GlyphBoxes reserves the room.
func (h heading) GlyphBoxes(*plot.Plot) []plot.GlyphBox {
	half := h.face.label.Width(h.text) / 2
	return []plot.GlyphBox{{X: 0.5, Y: 1, Rectangle: vg.Rectangle{Min: vg.Point{X: -half},
		Max: vg.Point{X: half, Y: legendMargin + labelSize}}}}
}

// joinLegends returns one legend for all panels. What differs between them is said for each, with its letter: also a name
// that has another look elsewhere.
func joinLegends(list []legend) (all legend) {
	notes := map[string]bool{}
	looks := map[string][]entry{} // by name
	for _, l := range list {
		notes[l.note] = true
		for _, e := range l.entries {
			looks[e.text] = append(looks[e.text], e)
		}
	}
	common := func(name string) bool {
		return len(looks[name]) == len(list) && !slices.ContainsFunc(looks[name], func(e entry) bool {
			return !reflect.DeepEqual(e.sample, looks[name][0].sample)
		})
	}
	for i, l := range list {
		for _, e := range l.entries {
			switch {
			case !common(e.text):
				e.text = letter(i) + " " + e.text
			case i > 0:
				continue // it is there already
			}
			all.entries = append(all.entries, e)
		}
		switch {
		case l.note == "":
		case len(notes) == 1:
			all.note = l.note
		case all.note != "":
			all.note += "; " + letter(i) + " " + l.note
		default:
			all.note = letter(i) + " " + l.note
		}
	}
	return all
}
