package plots

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// CostPoint is a network with what it costs.
type CostPoint struct {
	// Name stands beside the point, "L40M2".
	Name string
	// Cost is finite and > 0, in the unit that the axis names.
	Cost float64
	// Accuracies in percent, one for each seed. A point without any is left
	// out.
	Accuracies []float64
}

// Pareto is the figure of accuracy against a cost, with the front: the points
// than which none is at least as accurate and as cheap and better in one of
// both, by their means. The others are grey; their names are left out where
// there is no room. The axis of the cost is logarithmic if the largest is eight
// times the smallest or more.
type Pareto struct {
	Options
	Points []CostPoint
	// CostLabel names the cost and its unit.
	CostLabel string
	// Bar says what the error bars are; "" is Std.
	Bar Bar
}

// Save writes the figure to path in the format that its extension says, one
// of Formats; see AccuracyVsM.Save.
func (f Pareto) Save(path string) error { return save(path, f) }

// Encode writes the figure to w in one of Formats.
func (f Pareto) Encode(w io.Writer, format string) error { return encode(w, format, f) }

// CSV writes the numbers that are drawn, a row for each point by rising cost.
// The columns low and high are empty if n = 1; front is 1 or 0.
func (f Pareto) CSV(w io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.Write([]string{"name", "cost", "n", "mean", "low", "high", "bar", "front"})
	for _, p := range f.points() {
		low, high := ends(p.summary)
		front := "0"
		if p.front {
			front = "1"
		}
		out.Write([]string{p.Name, strconv.FormatFloat(p.Cost, 'g', 9, 64), strconv.Itoa(p.n), number(p.mean), low, high, string(cmp.Or(f.Bar, Std)), front})
	}
	out.Flush()
	return out.Error()
}

func (f Pareto) options() Options       { return f.Options }
func (f Pareto) defaultHeight() float64 { return 2.2 }

func (f Pareto) validate() error {
	if err := f.Bar.validate(); err != nil {
		return err
	}
	drawn := 0
	for _, p := range f.Points {
		if !(p.Cost > 0) || math.IsInf(p.Cost, 0) {
			return fmt.Errorf("point %q: cost %g, want a finite number > 0", p.Name, p.Cost)
		}
		if err := checkValues(p.Accuracies, 0, 100); err != nil {
			return fmt.Errorf("point %q: accuracy %w", p.Name, err)
		}
		drawn += len(p.Accuracies)
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no point has an accuracy yet")
	}
	return nil
}

type paretoPoint struct {
	CostPoint
	summary
	front bool
}

// points are those with accuracies by rising cost, the more accurate first.
func (f Pareto) points() []paretoPoint {
	var out []paretoPoint
	for _, p := range f.Points {
		if len(p.Accuracies) > 0 {
			out = append(out, paretoPoint{CostPoint: p, summary: summarize(p.Accuracies, f.Bar, 100)})
		}
	}
	slices.SortStableFunc(out, func(a, b paretoPoint) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.mean, a.mean))
	})
	for i, p := range out {
		out[i].front = !slices.ContainsFunc(out, func(q paretoPoint) bool {
			return q.Cost <= p.Cost && q.mean >= p.mean && (q.Cost < p.Cost || q.mean > p.mean)
		})
	}
	return out
}

// logTicks are at most limit ticks at 1, 2 and 5 times powers of ten, or at
// those powers; the span is of decimal logarithms.
func logTicks(s span, limit int) []tick {
	var ticks []tick
	for _, digits := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		ticks = nil
		for exponent := math.Floor(s.low); exponent <= s.high; exponent++ {
			for _, d := range digits {
				if at := exponent + math.Log10(d); at >= s.low && at <= s.high {
					ticks = append(ticks, tick{at, strconv.FormatFloat(d*math.Pow(10, exponent), 'f', max(0, -int(exponent)), 64)})
				}
			}
		}
		if len(ticks) <= max(2, limit) {
			break
		}
	}
	return ticks
}

func (f Pareto) draw(c draw.Canvas) error {
	points := f.points()
	first, last := points[0].Cost, points[len(points)-1].Cost
	scale := func(v float64) float64 { return v }
	if last >= 8*first {
		scale = math.Log10
	}
	var xs, values []float64
	var sums []summary
	for _, p := range points {
		xs, values, sums = append(xs, scale(p.Cost)), append(values, p.low, p.high), append(sums, p.summary)
	}
	p := panel{Canvas: c, x: spanOf(xs, 0.12), y: spanOf(values, 0.08)}
	if first == last {
		p.x = span{0.9 * scale(first), 1.1 * scale(first)}
	}
	ticks := niceTicks(p.y, heightLimit(0.7*c.Size().Y))
	bottom := c.Min.Y + smallMargin + 1.25*labelFont.Font.Size + 2 + capHeight(smallFont) + 2 + tickLength
	p.frame = vg.Rectangle{
		Min: vg.Point{X: c.Min.X + verticalAxisWidth(ticks), Y: bottom},
		Max: vg.Point{X: c.Max.X - 2*smallMargin, Y: c.Max.Y - topMargin - titleHeight(f.Title)},
	}
	under := niceTicks(p.x, max(5, int(p.frame.Size().X/35)))
	if last >= 8*first {
		under = logTicks(p.x, int(p.frame.Size().X/25))
	}
	on, off := look{color: palette[0]}, look{color: blend(grey, 0.7)}
	lookOf := func(q paretoPoint) look {
		if q.front {
			return on
		}
		return off
	}
	l := legend{note: note(sums, f.Bar), entries: []entry{
		{"Pareto front", func(from, to vg.Point) {
			stroke(c, blend(on.color, 0.5), lineWidth, nil, from, to)
			mark(c, on, vg.Point{X: (from.X + to.X) / 2, Y: from.Y}, markerSize)
		}},
		{"others", func(from, to vg.Point) { mark(c, off, vg.Point{X: (from.X + to.X) / 2, Y: from.Y}, markerSize) }},
	}}
	if !slices.ContainsFunc(points, func(q paretoPoint) bool { return !q.front }) {
		l.entries = l.entries[:1]
	}
	// Above: names want the room inside.
	g, err := l.above(c.Max.X - smallMargin - p.frame.Min.X)
	if err != nil {
		return err
	}
	at := vg.Point{X: p.frame.Min.X, Y: p.frame.Max.Y}
	p.frame.Max.Y -= g.height + 4
	if err := p.check(); err != nil {
		return err
	}
	if err := drawTitle(c, f.Title, p.frame); err != nil {
		return err
	}
	g.draw(c, at)

	place := func(q paretoPoint, v float64) vg.Point { return p.at(scale(q.Cost), v) }
	var stairs []vg.Point // what can be had for a cost
	for _, q := range points {
		if !q.front {
			continue
		}
		pt := place(q, q.mean)
		if n := len(stairs); n > 0 {
			stairs = append(stairs, vg.Point{X: pt.X, Y: stairs[n-1].Y})
		}
		stairs = append(stairs, pt)
	}
	stairs = append(stairs, vg.Point{X: p.frame.Max.X, Y: stairs[len(stairs)-1].Y})
	stroke(c, blend(on.color, 0.5), lineWidth, nil, stairs...)
	obstacles := obstaclesOf(stairs...)
	for _, q := range points {
		obstacles = append(obstacles, obstaclesOf(place(q, q.low), place(q, q.high))...)
		const r = markerSize
		at := place(q, q.mean)
		obstacles = append(obstacles, obstaclesOf(vg.Point{X: at.X - r, Y: at.Y - r}, vg.Point{X: at.X + r, Y: at.Y + r})...)
		obstacles = append(obstacles, obstaclesOf(vg.Point{X: at.X - r, Y: at.Y + r}, vg.Point{X: at.X + r, Y: at.Y - r})...)
	}
	for _, q := range points {
		halo(c, lookOf(q), place(q, q.mean), markerSize)
	}
	for _, q := range points {
		if q.n < 2 {
			continue
		}
		low, high := place(q, q.low), place(q, q.high)
		stroke(c, lookOf(q).color, 0.7*lineWidth, nil, low, high)
		for _, end := range []vg.Point{low, high} {
			stroke(c, lookOf(q).color, 0.7*lineWidth, nil, vg.Point{X: end.X - capWidth/2, Y: end.Y}, vg.Point{X: end.X + capWidth/2, Y: end.Y})
		}
	}
	for _, front := range []bool{false, true} {
		for _, q := range points {
			if q.front == front {
				mark(c, lookOf(q), place(q, q.mean), markerSize)
			}
		}
	}
	// Names of the front first; a name takes the first free place around.
	for _, front := range []bool{true, false} {
		for _, q := range points {
			if q.front != front {
				continue
			}
			clr := black
			if !front {
				clr = grey
			}
			if box, ok := freePlace(p.frame, place(q, q.mean), smallFont.Width(q.Name), obstacles); ok {
				text(c, smallFont, clr, box.Min, left, q.Name)
				obstacles = append(obstacles, obstaclesOf(box.Min, box.Max)...)
				obstacles = append(obstacles, obstaclesOf(vg.Point{X: box.Min.X, Y: box.Max.Y}, vg.Point{X: box.Max.X, Y: box.Min.Y})...)
			}
		}
	}
	p.leftAxis(ticks, cmp.Or(f.AccuracyLabel, "accuracy (%)"))
	p.bottomLine()
	for _, t := range under {
		x := p.atX(t.value)
		stroke(c, black, axisWidth, nil, vg.Point{X: x, Y: bottom}, vg.Point{X: x, Y: bottom - tickLength})
		text(c, smallFont, black, vg.Point{X: x, Y: bottom - tickLength - 2 - capHeight(smallFont)}, centre, t.label)
	}
	text(c, labelFont, black, vg.Point{X: (p.frame.Min.X + p.frame.Max.X) / 2, Y: c.Min.Y + smallMargin + 0.25*labelFont.Font.Size}, centre, cmp.Or(f.CostLabel, "cost"))
	return nil
}

// freePlace is the box for a text of this width beside a point: the nearest
// that stays in the frame and touches no obstacle.
func freePlace(frame vg.Rectangle, pt vg.Point, width vg.Length, obstacles []obstacle) (vg.Rectangle, bool) {
	height := capHeight(smallFont)
	for _, gap := range []vg.Length{4, 6, 10} {
		for _, at := range []vg.Point{
			{X: pt.X + gap, Y: pt.Y + gap - 1}, {X: pt.X - gap - width, Y: pt.Y + gap - 1},
			{X: pt.X + gap, Y: pt.Y - gap + 1 - height}, {X: pt.X - gap - width, Y: pt.Y - gap + 1 - height},
			{X: pt.X + gap, Y: pt.Y - height/2}, {X: pt.X - gap - width, Y: pt.Y - height/2},
			{X: pt.X - width/2, Y: pt.Y + gap}, {X: pt.X - width/2, Y: pt.Y - gap - height},
		} {
			box := vg.Rectangle{Min: at, Max: vg.Point{X: at.X + width, Y: at.Y + height}}
			if box.Min.X < frame.Min.X+1 || box.Max.X > frame.Max.X || box.Min.Y < frame.Min.Y+1 || box.Max.Y > frame.Max.Y {
				continue
			}
			wide := vg.Rectangle{Min: vg.Point{X: at.X - 1.5, Y: at.Y - 1}, Max: vg.Point{X: box.Max.X + 1.5, Y: box.Max.Y + 1}}
			if !slices.ContainsFunc(obstacles, func(o obstacle) bool { return o.crosses(wide) }) {
				return box, true
			}
		}
	}
	return vg.Rectangle{}, false
}
