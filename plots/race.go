package plots

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// RaceArm is one pair in a race.
type RaceArm struct {
	// Name stands in the legend, "L40M2".
	Name string
	// Accuracies in percent, in the order of the blocks of seeds that gave
	// them, one each.
	Accuracies []float64
	// Dropped is set for an arm that got no more seeds while others did.
	Dropped bool
}

// RaceHistory is the figure of a race: after each block of seeds the mean of
// every arm that was still alive, with its interval. The line of an arm that was
// dropped is light and ends in a cross. Intervals of two seeds, wider than all
// others, are cut off at the frame and do not set its scale.
type RaceHistory struct {
	Options
	Arms []RaceArm
	// Bar says what the intervals are; "" is Std.
	Bar Bar
}

// Save writes the figure to path in the format that its extension says, one
// of Formats; see AccuracyVsM.Save.
func (f RaceHistory) Save(path string) error { return save(path, f) }

// Encode writes the figure to w in one of Formats.
func (f RaceHistory) Encode(w io.Writer, format string) error { return encode(w, format, f) }

// CSV writes the numbers that are drawn, a row for each arm and number of seeds
// that it had. The columns low and high are empty if that is one; alive is 0
// after the last block of an arm that was dropped.
func (f RaceHistory) CSV(w io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.Write([]string{"arm", "seeds", "mean", "low", "high", "bar", "alive"})
	for _, a := range f.Arms {
		for k, s := range f.blocks(a) {
			low, high := ends(s)
			alive := "1"
			if a.Dropped && k+1 == len(a.Accuracies) {
				alive = "0"
			}
			out.Write([]string{a.Name, strconv.Itoa(s.n), number(s.mean), low, high, string(cmp.Or(f.Bar, Std)), alive})
		}
	}
	out.Flush()
	return out.Error()
}

func (f RaceHistory) options() Options       { return f.Options }
func (f RaceHistory) defaultHeight() float64 { return 2.6 }

// blocks are the summaries after each block.
func (f RaceHistory) blocks(a RaceArm) []summary {
	var out []summary
	for k := range a.Accuracies {
		out = append(out, summarize(a.Accuracies[:k+1], f.Bar, 100))
	}
	return out
}

func (f RaceHistory) validate() error {
	if err := f.Bar.validate(); err != nil {
		return err
	}
	names, drawn := map[string]bool{}, 0
	for _, a := range f.Arms {
		if a.Name == "" || names[a.Name] {
			return fmt.Errorf("arm %q: want a name for each, of its own", a.Name)
		}
		names[a.Name] = true
		if err := checkValues(a.Accuracies, 0, 100); err != nil {
			return fmt.Errorf("arm %q: accuracy %w", a.Name, err)
		}
		drawn += len(a.Accuracies)
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no arm has an accuracy yet")
	}
	return nil
}

func (f RaceHistory) draw(c draw.Canvas) error {
	type lane struct {
		RaceArm
		look   look
		blocks []summary
	}
	var lanes []lane
	var values []float64
	var sums []summary
	most := 0
	for i, a := range f.Arms {
		if len(a.Accuracies) == 0 {
			continue
		}
		l := lane{a, lookOf(i), f.blocks(a)}
		if a.Dropped {
			l.look.color = blend(l.look.color, 0.5)
		}
		for _, s := range l.blocks {
			values = append(values, s.mean)
			if s.n > 2 {
				values = append(values, s.low, s.high)
			}
			sums = append(sums, s)
		}
		most = max(most, len(l.blocks))
		lanes = append(lanes, l)
	}
	p := panel{Canvas: c, x: span{0.5, float64(most) + 0.5}, y: spanOf(values, 0.06)}
	ticks := niceTicks(p.y, heightLimit(0.7*c.Size().Y))
	bottom := c.Min.Y + smallMargin + 1.25*labelFont.Font.Size + 2 + capHeight(smallFont) + 2 + tickLength
	p.frame = vg.Rectangle{
		Min: vg.Point{X: c.Min.X + verticalAxisWidth(ticks), Y: bottom},
		Max: vg.Point{X: c.Max.X - 2*smallMargin, Y: c.Max.Y - topMargin - titleHeight(f.Title)},
	}
	// Arms stand beside one another within 7/10 of a block.
	place := func(i, seeds int) vg.Length {
		step := 0.7 / float64(len(lanes))
		return p.atX(float64(seeds) + step*(float64(i)-float64(len(lanes)-1)/2))
	}
	cross := func(at vg.Point, l look) {
		const r = 2.2
		stroke(c, l.color, lineWidth, nil, vg.Point{X: at.X - r, Y: at.Y - r}, vg.Point{X: at.X + r, Y: at.Y + r})
		stroke(c, l.color, lineWidth, nil, vg.Point{X: at.X - r, Y: at.Y + r}, vg.Point{X: at.X + r, Y: at.Y - r})
	}
	sign := func(l lane, last bool, at vg.Point) {
		if last && l.Dropped {
			cross(at, l.look)
			return
		}
		halo(c, l.look, at, markerSize)
		mark(c, l.look, at, markerSize)
	}
	legend := legend{note: note(sums, f.Bar)}
	for _, l := range lanes {
		legend.entries = append(legend.entries, entry{l.Name, func(from, to vg.Point) {
			stroke(c, l.look.color, lineWidth, l.look.dashes, from, to)
			sign(l, true, vg.Point{X: (from.X + to.X) / 2, Y: from.Y})
		}})
	}
	g, err := legend.above(c.Max.X - smallMargin - p.frame.Min.X)
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

	for _, dropped := range []bool{true, false} { // who is left lies above
		for i, l := range lanes {
			if l.Dropped != dropped {
				continue
			}
			var line []vg.Point
			for _, s := range l.blocks {
				line = append(line, vg.Point{X: place(i, s.n), Y: p.at(0, s.mean).Y})
			}
			stroke(c, l.look.color, lineWidth, l.look.dashes, line...)
			for k, s := range l.blocks {
				if s.n > 1 {
					x := place(i, s.n)
					for _, end := range []float64{s.low, s.high} {
						inside := max(p.y.low, min(p.y.high, end))
						y := p.at(0, inside).Y
						stroke(c, l.look.color, 0.6*lineWidth, nil, line[k], vg.Point{X: x, Y: y})
						if inside == end {
							stroke(c, l.look.color, 0.6*lineWidth, nil, vg.Point{X: x - 1, Y: y}, vg.Point{X: x + 1, Y: y})
						}
					}
				}
			}
			for k := range l.blocks {
				sign(l, k+1 == len(l.blocks), line[k])
			}
		}
	}
	p.leftAxis(ticks, cmp.Or(f.AccuracyLabel, "accuracy (%)"))
	p.bottomLine()
	for _, t := range niceTicks(p.x, int(p.frame.Size().X/20)) {
		if t.value != math.Round(t.value) {
			continue // half a seed
		}
		x := p.atX(t.value)
		stroke(c, black, axisWidth, nil, vg.Point{X: x, Y: bottom}, vg.Point{X: x, Y: bottom - tickLength})
		text(c, smallFont, black, vg.Point{X: x, Y: bottom - tickLength - 2 - capHeight(smallFont)}, centre, strconv.Itoa(int(t.value)))
	}
	text(c, labelFont, black, vg.Point{X: (p.frame.Min.X + p.frame.Max.X) / 2, Y: c.Min.Y + smallMargin + 0.25*labelFont.Font.Size}, centre, "seeds")
	return nil
}
