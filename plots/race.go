package plots

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"gonum.org/v1/plot/vg"
)

// RaceNetwork is one network in a race.
type RaceNetwork struct {
	// Name stands in the legend, "L40M2".
	Name string
	// Accuracies in percent, one for each seed, in the order in which the race ran the seeds.
	Accuracies []float64
	// Dropped is set for a network that got no more seeds while others did.
	Dropped bool
}

// RaceHistory is the figure of a race: after each seed the mean of every network that was still in the race, with its
// interval. The line of a network that was dropped is light and ends in a cross. Intervals of two seeds, which are
// wider than all others, are cut off at the frame and do not set its scale.
type RaceHistory struct {
	Networks []RaceNetwork
	// Bar says what the intervals are; "" is Std.
	Bar Bar
}

// lane is a network to draw, with a summary after each seed.
type lane struct {
	RaceNetwork
	look look
	summaries
}

func (f RaceHistory) lanes() (list []lane) {
	for i, a := range f.Networks {
		l := lane{RaceNetwork: a, look: lookOf(i)}
		if a.Dropped {
			l.look.line.Color = blend(l.look.line.Color, 0.5)
			l.look.glyph.Color = l.look.line.Color
		}
		for k := range a.Accuracies {
			l.summaries = append(l.summaries, summarize(float64(k+1), a.Accuracies[:k+1], f.Bar, 100))
		}
		if len(a.Accuracies) > 0 {
			list = append(list, l)
		}
	}
	return list
}

func (f RaceHistory) names() (names []string) {
	for _, a := range f.Networks {
		names = append(names, a.Name)
	}
	return names
}

func (f RaceHistory) validate() error {
	for _, a := range f.Networks {
		if err := checkValues(a.Accuracies, 0, 100); err != nil {
			return fmt.Errorf("network %q: accuracy %w", a.Name, err)
		}
	}
	if err := cmp.Or(f.Bar.validate(), checkNames("network", f.names())); err != nil {
		return err
	}
	if len(f.lanes()) == 0 {
		return errors.New("nothing to draw: no network has an accuracy yet")
	}
	return nil
}

// table has a row for each network and number of seeds that it had. alive is 0 in the last row of a network that was
// dropped.
func (f RaceHistory) table() [][]string {
	rows := [][]string{{"network", "seeds", "mean", "low", "high", "bar", "alive"}}
	for _, l := range f.lanes() {
		for k, s := range l.summaries {
			alive := !l.Dropped || k+1 < len(l.summaries)
			row := slices.Concat([]string{l.Name}, integers(s.n), s.fields(f.Bar))
			rows = append(rows, append(row, zeroOrOne(alive)))
		}
	}
	return rows
}

func (f RaceHistory) size() (width, height float64) { return columnWidth, higher(2.4, f.names()) }

func (f RaceHistory) layout(size vg.Point, o Options) layout {
	lanes := f.lanes()
	var values []float64
	var all summaries
	most := 0
	l := legend{above: true}
	var dropped, alive layers
	p := newPanel(o.typeface(), "seeds", accuracyLabel(o))
	for i, lane := range lanes {
		for k, s := range lane.summaries {
			values = append(values, s.mean)
			if s.n > 2 {
				values = append(values, s.low, s.high)
			}
			all = append(all, s)
			// Networks stand beside one another within 7/10 of a seed.
			lane.summaries[k].x += 0.7 / float64(len(lanes)) * (float64(i) - float64(len(lanes)-1)/2)
		}
		most = max(most, len(lane.summaries))
		end := lane.look
		end.glyph.Shape, end.mark = crossGlyph{}, "mark=x"
		last := len(lane.summaries) - 1
		if lane.Dropped {
			dropped.add(p, lane.Name, lane.look, lane.means(), lane.summaries[:last])
			dropped.add(p, "", end, nil, lane.summaries[last:])
			lane.look = end
		} else {
			alive.add(p, lane.Name, lane.look, lane.means(), lane.summaries)
		}
		l.entries = append(l.entries, entry{lane.Name, lane.look.sample()})
	}
	l.note = all.note(f.Bar)
	l.foldNote()
	dropped.addTo(p)
	alive.addTo(p) // above those that were dropped
	p.setRanges(o.X.of(span{0.5, float64(most) + 0.5}, nil), o.Y.of(spanOf(values, 0.06), nil))
	p.X.Tick.Marker = niceTicks{limit: int((size.X - 30) / 20), whole: true}
	p.Y.Tick.Marker = heightTicks(size.Y)
	return one(l, p)
}
