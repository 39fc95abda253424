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

// Epoch is what was measured after one epoch.
type Epoch struct {
	// Number counts from 1.
	Number int
	// Accuracies in percent, one for each seed that got there; none if the
	// epoch was not evaluated.
	Accuracies []float64
	// Losses are the mean losses (nats) of the same pictures; none if there are none.
	Losses []float64
	// TrainAccuracies and TrainLosses are those of the training pictures, as they
	// were augmented and by the weights of their step.
	TrainAccuracies, TrainLosses []float64
}

// Curve is the training of one pair over all its seeds.
type Curve struct {
	// Name stands in the legend, "L40M2".
	Name   string
	Epochs []Epoch // in any order, each once
}

// LearningCurves is the figure of accuracy against epoch: for each curve the
// mean over its seeds, with a band around it, and as a thin line without a band the
// mean accuracy on the training pictures. Bands are opaque, so that of
// overlapping ones the last is seen whole; all lines lie above all bands.
type LearningCurves struct {
	Options
	Curves []Curve
	// Bar says what the bands are; "" is Std.
	Bar Bar
	// Loss adds a panel with the losses below. Where there are only those of the
	// training pictures, it has only thin lines.
	Loss bool
}

// Save writes the figure to path in the format that its extension says, one
// of Formats; see AccuracyVsM.Save.
func (f LearningCurves) Save(path string) error { return save(path, f) }

// Encode writes the figure to w in one of Formats.
func (f LearningCurves) Encode(w io.Writer, format string) error { return encode(w, format, f) }

// CSV writes the numbers that are drawn, a row for each curve, measure
// ("accuracy" and "train_accuracy" in percent, "loss" and "train_loss" in nats) and
// epoch. The columns low and high, the ends of the band (which a thin line has
// not in the figure), are empty if n = 1.
func (f LearningCurves) CSV(w io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.Write([]string{"curve", "measure", "epoch", "n", "mean", "low", "high", "bar"})
	for _, c := range f.Curves {
		for _, m := range slices.Concat(f.measures()...) {
			for _, e := range m.of(c, f.Bar) {
				low, high := ends(e.summary)
				out.Write([]string{c.Name, m.name, strconv.Itoa(e.epoch), strconv.Itoa(e.n), number(e.mean), low, high, string(cmp.Or(f.Bar, Std))})
			}
		}
	}
	out.Flush()
	return out.Error()
}

func (f LearningCurves) options() Options { return f.Options }

func (f LearningCurves) defaultHeight() float64 {
	if f.Loss {
		return 3.4
	}
	return 2.2
}

// measure is what a panel shows; thin, if it is of the training pictures.
type measure struct {
	name   string
	thin   bool
	high   float64 // the largest value that makes sense
	values func(Epoch) []float64
}

// measures are what each panel shows.
func (f LearningCurves) measures() [][]measure {
	out := [][]measure{{
		{"accuracy", false, 100, func(e Epoch) []float64 { return e.Accuracies }},
		{"train_accuracy", true, 100, func(e Epoch) []float64 { return e.TrainAccuracies }},
	}}
	if f.Loss {
		out = append(out, []measure{
			{"loss", false, math.Inf(1), func(e Epoch) []float64 { return e.Losses }},
			{"train_loss", true, math.Inf(1), func(e Epoch) []float64 { return e.TrainLosses }},
		})
	}
	return out
}

// labels are the titles of the vertical axes of the panels.
func (f LearningCurves) labels() []string {
	return []string{cmp.Or(f.AccuracyLabel, "accuracy (%)"), "loss (nats)"}
}

type curveEpoch struct {
	epoch int
	summary
}

// of summarizes the epochs that have values, in order.
func (m measure) of(c Curve, bar Bar) []curveEpoch {
	var out []curveEpoch
	for _, e := range c.Epochs {
		if v := m.values(e); len(v) > 0 {
			out = append(out, curveEpoch{e.Number, summarize(v, bar, m.high)})
		}
	}
	slices.SortFunc(out, func(a, b curveEpoch) int { return cmp.Compare(a.epoch, b.epoch) })
	return out
}

func (f LearningCurves) validate() error {
	if err := f.Bar.validate(); err != nil {
		return err
	}
	names := map[string]bool{}
	for i, c := range f.Curves {
		if len(f.Curves) > 1 && c.Name == "" {
			return fmt.Errorf("curve %d of %d has no name", i+1, len(f.Curves))
		}
		if names[c.Name] {
			return fmt.Errorf("two curves are named %q", c.Name)
		}
		names[c.Name] = true
		epochs := map[int]bool{}
		for _, e := range c.Epochs {
			if e.Number < 1 || epochs[e.Number] {
				return fmt.Errorf("curve %q, epoch %d: want each epoch once, from 1", c.Name, e.Number)
			}
			epochs[e.Number] = true
			for _, m := range slices.Concat(f.measures()...) {
				if err := checkValues(m.values(e), 0, m.high); err != nil {
					return fmt.Errorf("curve %q, epoch %d: %s %w", c.Name, e.Number, m.name, err)
				}
			}
		}
	}
	for i, measures := range f.measures() {
		if i == 0 {
			measures = measures[:1] // a figure of the training pictures alone would mislead
		}
		n := 0
		for _, m := range measures {
			for _, c := range f.Curves {
				n += len(m.of(c, f.Bar))
			}
		}
		if n == 0 {
			return errors.New("nothing to draw: no epoch has " + measures[0].name + " values yet")
		}
	}
	return nil
}

func (f LearningCurves) draw(c draw.Canvas) error {
	measures := f.measures()
	panels := make([]panel, len(measures))
	ticks := make([][]tick, len(measures))
	var epochs []float64
	var sums []summary
	axis := vg.Length(0)
	for i := range measures {
		var values []float64
		for _, m := range measures[i] {
			for _, curve := range f.Curves {
				for _, e := range m.of(curve, f.Bar) {
					epochs = append(epochs, float64(e.epoch))
					if m.thin {
						values = append(values, e.mean)
						continue
					}
					values = append(values, e.low, e.high)
					sums = append(sums, e.summary)
				}
			}
		}
		panels[i] = panel{Canvas: c, y: spanOf(values, 0.05)}
		ticks[i] = niceTicks(panels[i].y, heightLimit(0.7*c.Size().Y/vg.Length(len(measures))))
		axis = max(axis, verticalAxisWidth(ticks[i]))
	}
	x := spanOf(epochs, 0.02)
	l := f.legend(c, sums)

	const betweenPanels = 6
	bottom := c.Min.Y + smallMargin + 1.25*labelFont.Font.Size + 2 + capHeight(smallFont) + 2 + tickLength
	layout := func(top vg.Length) {
		height := (top - bottom - betweenPanels*vg.Length(len(panels)-1)) / vg.Length(len(panels))
		for i := range panels {
			panels[i].x = x
			panels[i].frame = vg.Rectangle{
				Min: vg.Point{X: c.Min.X + axis, Y: top - height},
				Max: vg.Point{X: c.Max.X - 2*smallMargin, Y: top},
			}
			top -= height + betweenPanels
		}
	}
	top := c.Max.Y - topMargin - titleHeight(f.Title)
	layout(top)
	g, at, inside := l.inside(panels[0].frame, f.obstacles(panels[0], measures[0]))
	if !inside {
		var err error
		if g, err = l.above(c.Max.X - smallMargin - panels[0].frame.Min.X); err != nil {
			return err
		}
		at = vg.Point{X: panels[0].frame.Min.X, Y: top}
		layout(top - g.height - 4)
	}
	if err := drawTitle(c, f.Title, panels[0].frame); err != nil {
		return err
	}
	for i, p := range panels {
		if err := p.check(); err != nil {
			return err
		}
		f.drawPanel(p, measures[i])
		p.leftAxis(ticks[i], f.labels()[i])
		p.bottomLine()
	}
	g.draw(c, at)

	last := panels[len(panels)-1]
	y := last.frame.Min.Y
	for _, t := range niceTicks(x, int(last.frame.Size().X/25)) {
		if t.value != math.Round(t.value) {
			continue // half an epoch
		}
		tx := last.atX(t.value)
		for _, p := range panels {
			stroke(c, black, axisWidth, nil, vg.Point{X: tx, Y: p.frame.Min.Y}, vg.Point{X: tx, Y: p.frame.Min.Y - tickLength})
		}
		text(c, smallFont, black, vg.Point{X: tx, Y: y - tickLength - 2 - capHeight(smallFont)}, centre, strconv.Itoa(int(t.value)))
	}
	text(c, labelFont, black, vg.Point{X: (last.frame.Min.X + last.frame.Max.X) / 2, Y: c.Min.Y + smallMargin + 0.25*labelFont.Font.Size}, centre, "epoch")
	return nil
}

// band is how light bands are.
const band = 0.22

// thinWidth is the width of the lines of the training pictures.
const thinWidth vg.Length = 0.4

// drawPanel draws the bands, over them the thin lines, and over those the others.
func (f LearningCurves) drawPanel(p panel, measures []measure) {
	m, training := measures[0], measures[1]
	for i, curve := range f.Curves {
		var lows, highs []vg.Point
		for _, e := range m.of(curve, f.Bar) {
			lows = append(lows, p.at(float64(e.epoch), e.low))
			highs = append(highs, p.at(float64(e.epoch), e.high))
		}
		slices.Reverse(lows)
		if len(highs) > 1 {
			fill(p.Canvas, blend(lookOf(i).color, band), append(highs, lows...))
		}
	}
	for i, curve := range f.Curves {
		stroke(p.Canvas, lookOf(i).color, thinWidth, lookOf(i).dashes, p.means(training.of(curve, f.Bar))...)
	}
	for i, curve := range f.Curves {
		stroke(p.Canvas, lookOf(i).color, lineWidth, lookOf(i).dashes, p.means(m.of(curve, f.Bar))...)
	}
	// A few markers on each line, not at the same epochs for all.
	for i, curve := range f.Curves {
		means := p.means(m.of(curve, f.Bar))
		step := max(1, len(means)/4)
		for j := (i * step / max(1, len(f.Curves))) % step; j < len(means); j += step {
			halo(p.Canvas, lookOf(i), means[j], markerSize)
			mark(p.Canvas, lookOf(i), means[j], markerSize)
		}
	}
}

func (p panel) means(epochs []curveEpoch) []vg.Point {
	var out []vg.Point
	for _, e := range epochs {
		out = append(out, p.at(float64(e.epoch), e.mean))
	}
	return out
}

func (f LearningCurves) obstacles(p panel, measures []measure) []obstacle {
	var out []obstacle
	for _, m := range measures {
		for _, curve := range f.Curves {
			epochs := m.of(curve, f.Bar)
			// The band as a hatching, which finds a legend inside it too.
			for _, e := range epochs {
				if !m.thin {
					out = append(out, obstaclesOf(p.at(float64(e.epoch), e.low), p.at(float64(e.epoch), e.high))...)
				}
			}
			if means := p.means(epochs); len(means) > 0 {
				out = append(out, obstaclesOf(means...)...)
			}
		}
	}
	return out
}

// trained reports whether there is anything of the training pictures to draw.
func (f LearningCurves) trained() bool {
	for _, m := range slices.Concat(f.measures()...) {
		for _, curve := range f.Curves {
			if m.thin && len(m.of(curve, f.Bar)) > 0 {
				return true
			}
		}
	}
	return false
}

func (f LearningCurves) legend(c draw.Canvas, sums []summary) legend {
	l := legend{note: note(sums, f.Bar)}
	banded := slices.ContainsFunc(sums, func(s summary) bool { return s.n > 1 })
	for i, curve := range f.Curves {
		look := lookOf(i)
		l.entries = append(l.entries, entry{curve.Name, func(from, to vg.Point) {
			const half = 2.5
			if banded {
				fill(c, blend(look.color, band), rectangle(vg.Rectangle{Min: vg.Point{X: from.X, Y: from.Y - half}, Max: vg.Point{X: to.X, Y: to.Y + half}}))
			}
			stroke(c, look.color, lineWidth, look.dashes, from, to)
			mark(c, look, vg.Point{X: (from.X + to.X) / 2, Y: from.Y}, markerSize)
		}})
	}
	if len(f.Curves) == 1 && f.Curves[0].Name == "" {
		l.entries[0].text, l.note = l.note, ""
	}
	if f.trained() {
		clr := grey
		if len(f.Curves) == 1 {
			clr = lookOf(0).color
		}
		l.entries = append(l.entries, entry{"training", func(from, to vg.Point) { stroke(c, clr, thinWidth, nil, from, to) }})
	}
	return l
}
