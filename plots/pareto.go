package plots

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// CostPoint is a network with what it costs.
type CostPoint struct {
	// Name stands beside the point, "L40M2".
	Name string
	// Cost is finite and > 0, in the unit that the axis names.
	Cost float64
	// Accuracies in percent, one for each seed. A point without any is left out.
	Accuracies []float64
	// Front is set for a point of the Pareto front: by their means, no other point is at least as accurate and
	// as cheap, and better in one of both.
	Front bool
}

// Pareto is the figure of accuracy against a cost, with the Pareto front. The points beside the front are grey;
// their names are left out where there is no room. The axis of the cost is logarithmic if the largest cost is
// eight times the smallest or more.
type Pareto struct {
	Points []CostPoint
	// CostLabel names the cost and its unit.
	CostLabel string
	// Bar says what the error bars are; "" is Std.
	Bar Bar
}

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

// drawnCost is a point with its summary, which stands at its cost.
type drawnCost struct {
	CostPoint
	summary
}

// drawn returns the points that have accuracies, by rising cost; of equal costs, the more accurate first.
func (f Pareto) drawn() (list []drawnCost) {
	for _, p := range f.Points {
		if len(p.Accuracies) > 0 {
			list = append(list, drawnCost{p, summarize(p.Cost, p.Accuracies, f.Bar, 100)})
		}
	}
	slices.SortStableFunc(list, func(a, b drawnCost) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.mean, a.mean))
	})
	return list
}

// table has a row for each point by rising cost; front is 1 or 0.
func (f Pareto) table() [][]string {
	rows := [][]string{{"name", "cost", "n", "mean", "low", "high", "bar", "front"}}
	for _, p := range f.drawn() {
		about := []string{p.Name, strconv.FormatFloat(p.Cost, 'g', 9, 64), strconv.Itoa(p.n)}
		rows = append(rows, slices.Concat(about, p.fields(f.Bar), []string{zeroOrOne(p.Front)}))
	}
	return rows
}

func (f Pareto) size() (width, height float64) { return columnWidth, 2.2 }

func (f Pareto) layout(size vg.Point, o Options) layout {
	on, off := lookOf(0), lookOf(0)
	on.line.Color = blend(on.line.Color, 0.5)
	off.line.Color, off.glyph.Color, off.glyph.Shape = blend(grey, 0.7), blend(grey, 0.7), draw.RingGlyph{}
	var front, others, all summaries
	var xs, values []float64
	var names, otherNames []pointName
	points := f.drawn()
	p := newPanel(o.typeface(), cmp.Or(f.CostLabel, "cost"), accuracyLabel(o))
	scale := costScale(&p.X, points[0].Cost, points[len(points)-1].Cost, size.X-30)
	for _, c := range points {
		c.x = scale(c.Cost)
		all, xs, values = append(all, c.summary), append(xs, c.x), append(values, c.low, c.high)
		at := plotter.XY{X: c.x, Y: c.mean}
		if c.Front {
			front, names = append(front, c.summary), append(names, pointName{c.Name, at, black})
		} else {
			others, otherNames = append(others, c.summary), append(otherNames, pointName{c.Name, at, grey})
		}
	}
	x := spanOf(xs, 0.12)
	if first := xs[0]; first == xs[len(xs)-1] {
		x = span{0.9 * first, 1.1 * first}
	}
	var list layers
	list.add(off, nil, others)
	list.add(lookOf(0), nil, front)
	if len(front) > 0 { // the most that can be had for a cost
		last := plotter.XY{X: x.high, Y: front[len(front)-1].mean}
		stairs := line(on.line, append(front.means(), last))
		stairs.StepStyle = plotter.PostStep
		p.Add(stairs)
	}
	list.addTo(p)
	p.Add(&pointNames{o.typeface(), append(names, otherNames...), p.plotters}) // names of the front find their place first
	p.setRanges(o.X.of(x, scale), o.Y.of(spanOf(values, 0.08), nil))
	p.Y.Tick.Marker = heightTicks(size.Y)
	l := legend{note: all.note(f.Bar), above: true}
	if len(front) > 0 {
		l.entries = append(l.entries, entry{"Pareto front", on.sample()})
	}
	if len(others) > 0 {
		l.entries = append(l.entries, entry{"others", []plot.Thumbnailer{scatter(off.glyph, nil)}})
	}
	return one(l, p)
}

// costScale chooses the ticks of an axis of this length, and returns where on it a cost stands.
func costScale(axis *plot.Axis, least, most float64, length vg.Length) func(float64) float64 {
	if most >= 8*least {
		axis.Tick.Marker = logTicks(length / 25)
		return math.Log10
	}
	axis.Tick.Marker = niceTicks{limit: int(length / 35)}
	return func(cost float64) float64 { return cost }
}

// pointName is a text beside a point.
type pointName struct {
	text  string
	at    plotter.XY
	color color.Color
}

// pointNames is a plotter of names. Each takes the first free place around its point, and none if there is none.
type pointNames struct {
	face     *typeface
	names    []pointName
	plotters []plot.Plotter // what a name must not cover
}

// Plot draws the names.
func (n *pointNames) Plot(c draw.Canvas, p *plot.Plot) {
	lines := drawnLines(c, p, n.plotters)
	toX, toY := p.Transforms(&c)
	for _, name := range n.names {
		at := vg.Point{X: toX(name.at.X), Y: toY(name.at.Y)}
		box, ok := freePlace(c.Rectangle, at, n.face.small.Width(name.text), n.face.digits, lines)
		if !ok {
			continue
		}
		write(c, styled(n.face.small, name.color, draw.XLeft, draw.YBottom), box.Min, name.text)
		lines = append(lines, segment{box.Min, box.Max}, segment{
			vg.Point{X: box.Min.X, Y: box.Max.Y}, vg.Point{X: box.Max.X, Y: box.Min.Y}})
	}
}

// freePlace returns the box for a text of this width beside a point: the nearest that stays in the frame and
// touches no line.
func freePlace(frame vg.Rectangle, pt vg.Point, width, height vg.Length, lines []segment) (vg.Rectangle, bool) {
	for _, gap := range []vg.Length{4, 6, 10} {
		right, left, middle := pt.X+gap, pt.X-gap-width, pt.X-width/2
		over, under, beside := pt.Y+gap-1, pt.Y-gap+1-height, pt.Y-height/2
		for _, at := range []vg.Point{
			{X: right, Y: over}, {X: left, Y: over}, {X: right, Y: under}, {X: left, Y: under},
			{X: right, Y: beside}, {X: left, Y: beside}, {X: middle, Y: over + 1}, {X: middle, Y: under - 1},
		} {
			end := vg.Point{X: at.X + width, Y: at.Y + height}
			inside := at.X > frame.Min.X+1 && end.X < frame.Max.X && at.Y > frame.Min.Y+1 && end.Y < frame.Max.Y
			margin := vg.Point{X: 1.5, Y: 1}
			if inside && !crossesAny(vg.Rectangle{Min: at.Sub(margin), Max: end.Add(margin)}, lines) {
				return vg.Rectangle{Min: at, Max: end}, true
			}
		}
	}
	return vg.Rectangle{}, false
}
