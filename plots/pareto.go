package plots

import (
	"cmp"
	"errors"
	"fmt"
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

// Pareto is the figure of accuracy against a cost, with the Pareto front. The points beside the front are grey; thin
// lines lead to names that have no room beside their points, and a note says which names have no room at all. The axis of
// the cost is logarithmic if the largest cost is eight times the smallest or more.
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
	off.line.Color, off.glyph.Color = blend(grey, 0.7), blend(grey, 0.7)
	off.glyph.Shape, off.mark = draw.RingGlyph{}, "mark=o"
	var front, others, all summaries
	var xs, values []float64
	var names, otherNames []pointName
	points := f.drawn()
	p := newPanel(o.typeface(), cmp.Or(f.CostLabel, "cost"), accuracyLabel(o))
	p.toX = costScale(&p.X, points[0].Cost, points[len(points)-1].Cost, size.X-30)
	for _, c := range points {
		c.x = p.toX(c.Cost)
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
	list.add(p, "others", off, nil, others)
	list.add(p, "Pareto front", lookOf(0), nil, front)
	if len(front) > 0 { // the most that can be had for a cost
		last := plotter.XY{X: x.high, Y: front[len(front)-1].mean}
		way := append(front.means(), last)
		stairs := line(on.line, way)
		stairs.StepStyle = plotter.PostStep
		p.Add(stairs)
		p.add(series{look: on, way: way, steps: true})
	}
	list.addTo(p)
	p.nameBeside(append(names, otherNames...)) // names of the front find their place first
	p.setRanges(o.X.of(x, p.toX), o.Y.of(spanOf(values, 0.08), nil))
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
