package plots

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Epoch is what was measured after one epoch.
type Epoch struct {
	// Number counts from 1.
	Number int
	// Accuracies in percent, one for each seed that reached the epoch; none if it was not evaluated.
	Accuracies []float64
	// Losses are the mean losses (nats) on the same pictures; none if they are not known.
	Losses []float64
	// TrainAccuracies and TrainLosses are those on the training pictures, as they were augmented, with the
	// weights of their step.
	TrainAccuracies, TrainLosses []float64
}

// LearningCurve is the training of one network over all its seeds.
type LearningCurve struct {
	// Name stands in the legend, "L40M2".
	Name   string
	Epochs []Epoch // in any order, each once
}

// LearningCurves is the figure of accuracy against epoch. For each curve it draws the mean over the seeds with a
// band around it, and as a thin line without a band the mean accuracy on the training pictures. Bands are opaque, but
// have edges that lie above all bands, so that each is seen whole; all lines lie above them.
type LearningCurves struct {
	Curves []LearningCurve
	// Bar says what the bands are; "" is Std.
	Bar Bar
	// Loss adds a panel with the losses below. Where only those of the training pictures are known, it has only
	// thin lines.
	Loss bool
}

// measure is what a panel shows.
type measure struct {
	name   string
	most   float64 // the largest value that makes sense
	values func(Epoch) []float64
}

// measures returns two measures for each panel. The first is of held-out pictures; the second, drawn as thin lines,
// is of the training pictures.
func (f LearningCurves) measures() [][]measure {
	list := [][]measure{{
		{"accuracy", 100, func(e Epoch) []float64 { return e.Accuracies }},
		{"train_accuracy", 100, func(e Epoch) []float64 { return e.TrainAccuracies }},
	}}
	if f.Loss {
		list = append(list, []measure{
			{"loss", math.Inf(1), func(e Epoch) []float64 { return e.Losses }},
			{"train_loss", math.Inf(1), func(e Epoch) []float64 { return e.TrainLosses }},
		})
	}
	return list
}

// of summarizes the epochs of a curve that have values, in order.
func (m measure) of(c LearningCurve, bar Bar) (list summaries) {
	for _, e := range c.Epochs {
		if v := m.values(e); len(v) > 0 {
			list = append(list, summarize(float64(e.Number), v, bar, m.most))
		}
	}
	slices.SortFunc(list, func(a, b summary) int { return cmp.Compare(a.x, b.x) })
	return list
}

// all summarizes the epochs of all curves.
func (f LearningCurves) all(m measure) (list summaries) {
	for _, c := range f.Curves {
		list = append(list, m.of(c, f.Bar)...)
	}
	return list
}

func (f LearningCurves) names() (names []string) {
	for _, c := range f.Curves {
		names = append(names, c.Name)
	}
	return names
}

func (f LearningCurves) validate() error {
	for _, c := range f.Curves {
		epochs := map[int]bool{}
		for _, e := range c.Epochs {
			if e.Number < 1 || epochs[e.Number] {
				return fmt.Errorf("curve %q, epoch %d: want each epoch once, from 1", c.Name, e.Number)
			}
			epochs[e.Number] = true
			for _, m := range slices.Concat(f.measures()...) {
				if err := checkValues(m.values(e), 0, m.most); err != nil {
					return fmt.Errorf("curve %q, epoch %d: %s %w", c.Name, e.Number, m.name, err)
				}
			}
		}
	}
	for i, m := range f.measures() {
		// Accuracies on the training pictures alone would mislead; losses are shown below other accuracies.
		if len(f.all(m[0])) == 0 && (i == 0 || len(f.all(m[1])) == 0) {
			return errors.New("nothing to draw: no epoch has " + m[0].name + " values yet")
		}
	}
	return cmp.Or(f.Bar.validate(), checkNames("curve", f.names()))
}

// table has a row for each curve, measure ("accuracy" and "train_accuracy" in percent, "loss" and "train_loss" in
// nats) and epoch.
func (f LearningCurves) table() [][]string {
	rows := [][]string{{"curve", "measure", "epoch", "n", "mean", "low", "high", "bar"}}
	for _, c := range f.Curves {
		for _, m := range slices.Concat(f.measures()...) {
			for _, s := range m.of(c, f.Bar) {
				rows = append(rows, slices.Concat([]string{c.Name, m.name}, integers(int(s.x), s.n), s.fields(f.Bar)))
			}
		}
	}
	return rows
}

func (f LearningCurves) size() (width, height float64) {
	if f.Loss {
		return columnWidth, higher(3.4, f.names())
	}
	return columnWidth, higher(2.2, f.names())
}

// thinWidth is the width of the lines of the training pictures.
const thinWidth vg.Length = 0.4

func (f LearningCurves) layout(size vg.Point, o Options) layout {
	labels := []string{accuracyLabel(o), strings.TrimSpace(o.Split + " loss (nats)")}[:len(f.measures())]
	var panels []*panel
	var epochs []float64
	trained := false
	for i, m := range f.measures() {
		p := newPanel(o.typeface(), "", labels[i])
		trained = f.add(p, m) || trained
		var values []float64
		for _, s := range f.all(m[0]) {
			epochs, values = append(epochs, s.x), append(values, s.low, s.high)
		}
		for _, s := range f.all(m[1]) {
			epochs, values = append(epochs, s.x), append(values, s.mean)
		}
		y := spanOf(values, 0.05)
		if i == 0 {
			y = o.Y.of(y, nil)
		}
		p.setRanges(span{}, y)
		p.Y.Tick.Marker = heightTicks(size.Y / vg.Length(len(labels)))
		panels = append(panels, p)
	}
	for i, p := range panels {
		x := o.X.of(spanOf(epochs, 0.02), nil)
		p.X.Min, p.X.Max = x.low, x.high
		p.X.Tick.Marker = niceTicks{limit: int((size.X - 30) / 25), whole: true}
		if i == len(panels)-1 {
			p.xLabel = "epoch"
			continue
		}
		labelled := p.X.Tick.Marker
		p.X.Tick.Marker = plot.TickerFunc(func(low, high float64) (ticks []plot.Tick) {
			for _, t := range labelled.Ticks(low, high) {
				ticks = append(ticks, plot.Tick{Value: t.Value})
			}
			return ticks
		})
		p.X.Tick.Length *= 2 // a tick without a label is drawn half as long
	}
	all := f.all(f.measures()[0][0])
	l := legend{note: all.note(f.Bar)}
	for i, c := range f.Curves {
		look := lookOf(i)
		sample := look.sample()
		if slices.ContainsFunc(all, func(s summary) bool { return s.n > 1 }) {
			sample = slices.Insert(sample, 0, plot.Thumbnailer(summaries{}.band(look)))
		}
		l.entries = append(l.entries, entry{c.Name, sample})
	}
	l.foldNote()
	if trained {
		style := draw.LineStyle{Color: grey, Width: thinWidth}
		if len(f.Curves) == 1 {
			style.Color = lookOf(0).line.Color
		}
		l.entries = append(l.entries, entry{"training", []plot.Thumbnailer{line(style, nil)}})
	}
	return one(l, panels...)
}

// add draws the bands, over them the edges of all bands, the thin lines, and over those the others with a few markers.
// It reports whether there are thin lines.
func (f LearningCurves) add(p *panel, m []measure) (trained bool) {
	var edges, thin, lines, marks []plot.Plotter
	for i, c := range f.Curves {
		look := lookOf(i)
		list := m[0].of(c, f.Bar)
		if len(list) > 1 {
			p.Add(list.band(look))
			edges = append(edges, list.edges(look)...)
		}
		if list := m[1].of(c, f.Bar); len(list) > 0 {
			look := look
			look.line.Width = thinWidth
			thin = append(thin, line(look.line, list.means()))
			p.add(series{look: look, way: list.means()})
			trained = true
		}
		means := list.means()
		lines = append(lines, line(look.line, means))
		step := max(1, len(means)/4) // markers not at the same epochs for all
		var some plotter.XYs
		for k := (i * step / len(f.Curves)) % step; k < len(means); k += step {
			some = append(some, means[k])
		}
		marks = append(marks, halos(some), scatter(look.glyph, some))
		p.add(series{name: c.Name, look: look, way: means, band: list})
	}
	p.Add(slices.Concat(edges, thin, lines, marks)...)
	return trained
}
