package plots

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// SizePoint is a network of some size.
type SizePoint struct {
	// Name stands beside the point, "M1K5K6K6".
	Name string
	// Size is finite and > 0, in the unit that the axis names.
	Size float64
	// Accuracies in percent, one for each seed. A point without any is left out.
	Accuracies []float64
}

// SizeSeries are networks of one family or one study.
type SizeSeries struct {
	// Name stands in the legend; it may be empty if there is one series.
	Name   string
	Points []SizePoint // in any order
}

// AccuracyVsSize is the figure of accuracy against a size of networks, such as their width, with a line for each family.
// It compares networks that have no common M, at one budget or at several. Where networks of one series have the same
// size, the line runs through the best of them. The axis of the size is logarithmic if the largest is eight times the
// smallest or more.
type AccuracyVsSize struct {
	Series []SizeSeries
	// SizeLabel names the size, with its unit if it has one; "" is "width (channels)".
	SizeLabel string
	// Bar says what the error bars are; "" is Std.
	Bar Bar
	// Seeds adds a dot for each seed, right of the bar.
	Seeds bool
}

func (f AccuracyVsSize) validate() error {
	var names []string
	drawn := 0
	for _, s := range f.Series {
		names = append(names, s.Name)
		for _, p := range s.Points {
			if !(p.Size > 0) || math.IsInf(p.Size, 0) {
				return fmt.Errorf("point %q: size %g, want a finite number > 0", p.Name, p.Size)
			}
			if err := checkValues(p.Accuracies, 0, 100); err != nil {
				return fmt.Errorf("point %q: accuracy %w", p.Name, err)
			}
			drawn += len(p.Accuracies)
		}
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no point has an accuracy yet")
	}
	return cmp.Or(f.Bar.validate(), checkNames("series", names))
}

// drawnSize is a point with its summary, which stands at its size.
type drawnSize struct {
	SizePoint
	summary
}

// drawn returns the points of a series that have accuracies, by rising size; of equal sizes, the more accurate first.
func (f AccuracyVsSize) drawn(s SizeSeries) (list []drawnSize) {
	for _, p := range s.Points {
		if len(p.Accuracies) > 0 {
			list = append(list, drawnSize{p, summarize(p.Size, p.Accuracies, f.Bar, 100)})
		}
	}
	slices.SortStableFunc(list, func(a, b drawnSize) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(b.mean, a.mean))
	})
	return list
}

// table has a row for each point in the order series, size.
func (f AccuracyVsSize) table() [][]string {
	rows := [][]string{{"series", "network", "size", "n", "mean", "low", "high", "bar"}}
	for _, s := range f.Series {
		for _, p := range f.drawn(s) {
			about := []string{s.Name, p.Name, strconv.FormatFloat(p.Size, 'g', 9, 64), strconv.Itoa(p.n)}
			rows = append(rows, slices.Concat(about, p.fields(f.Bar)))
		}
	}
	return rows
}

func (f AccuracyVsSize) size() (width, height float64) { return columnWidth, 2.4 }

func (f AccuracyVsSize) layout(size vg.Point, o Options) layout {
	p := newPanel(o.typeface(), cmp.Or(f.SizeLabel, "width (channels)"), accuracyLabel(o))
	var sizes, values []float64
	for _, s := range f.Series {
		for _, d := range f.drawn(s) {
			sizes, values = append(sizes, d.Size), append(values, d.low, d.high)
			if f.Seeds {
				values = append(values, d.Accuracies...)
			}
		}
	}
	p.toX = costScale(&p.X, slices.Min(sizes), slices.Max(sizes), size.X-30)
	for i, v := range sizes {
		sizes[i] = p.toX(v)
	}
	x := spanOf(sizes, 0.08)
	l := legend{}
	var list layers
	var all summaries
	var names []pointName
	for i, s := range f.Series {
		look := lookOf(i)
		var way, points summaries
		for _, d := range f.drawn(s) {
			d.x = p.toX(d.Size)
			points = append(points, d.summary)
			if k := len(way); k == 0 || way[k-1].x != d.x {
				way = append(way, d.summary)
			}
			names = append(names, pointName{d.Name, plotter.XY{X: d.x, Y: d.mean}, look.line.Color})
			if f.Seeds {
				list.addSeeds(look, d.x+3*(x.high-x.low)/float64(size.X-40), d.Accuracies)
			}
		}
		if len(points) == 0 {
			continue
		}
		all = append(all, points...)
		list.add(p, s.Name, look, way.means(), points)
		l.entries = append(l.entries, entry{s.Name, look.sample()})
	}
	list.addTo(p)
	p.nameBeside(names)
	p.setRanges(o.X.of(x, p.toX), o.Y.of(spanOf(values, 0.08), nil))
	p.Y.Tick.Marker = heightTicks(size.Y)
	l.note, l.above = all.note(f.Bar), true
	l.foldNote()
	return one(l, p)
}
