package plots

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"igcsearch/search/analysis"
)

// DesignSpace are networks that were trained under one rule, such as those of a study.
type DesignSpace struct {
	// Name stands in the legend; it may be empty if there is one space.
	Name     string
	Networks []SpaceNetwork
}

// SpaceNetwork is a network of a DesignSpace.
type SpaceNetwork struct {
	Name string
	// Accuracies in percent, one for each seed. A network without any is left out.
	Accuracies []float64
}

// EDF is the figure of the empirical distribution functions of errors, by which Radosavovic et al., "Designing Network
// Design Spaces", CVPR 2020 (arXiv:2003.13678), compare design spaces: the share of the networks of a space whose error
// is less than e, against e. The curve of the better space is further left and higher.
//
// The error of a network is 100 % less its mean accuracy over its seeds. Radosavovic et al. train each network from one
// seed, whose error then is that of the network.
type EDF struct {
	Spaces []DesignSpace
}

// rankedNetwork is a network with its error and the share of the networks whose error is not larger.
type rankedNetwork struct {
	name         string
	seeds        int
	error, share float64
}

// ranked returns the networks of a space that have an accuracy, by rising error.
func (s DesignSpace) ranked() (list []rankedNetwork) {
	for _, n := range s.Networks {
		if len(n.Accuracies) > 0 {
			list = append(list, rankedNetwork{name: n.Name, seeds: len(n.Accuracies),
				error: 100 - analysis.Summarize(n.Accuracies).Mean})
		}
	}
	slices.SortStableFunc(list, func(a, b rankedNetwork) int { return cmp.Compare(a.error, b.error) })
	for i := len(list) - 1; i >= 0; i-- {
		list[i].share = float64(i+1) / float64(len(list))
		if i+1 < len(list) && list[i].error == list[i+1].error {
			list[i].share = list[i+1].share
		}
	}
	return list
}

func (f EDF) validate() error {
	var names []string
	drawn := 0
	for _, s := range f.Spaces {
		names = append(names, s.Name)
		for _, n := range s.Networks {
			if err := checkValues(n.Accuracies, 0, 100); err != nil {
				return fmt.Errorf("network %q of %q: accuracy %w", n.Name, s.Name, err)
			}
		}
		drawn += len(s.ranked())
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no network has an accuracy yet")
	}
	return checkNames("design space", names)
}

// table has a row for each network by rising error, which is in percent. share is that of the networks of its space
// whose error is not larger, from 0 to 1.
func (f EDF) table() [][]string {
	rows := [][]string{{"space", "network", "n", "error", "share"}}
	for _, s := range f.Spaces {
		for _, n := range s.ranked() {
			rows = append(rows, []string{s.Name, n.name, strconv.Itoa(n.seeds), number(n.error), number(n.share)})
		}
	}
	return rows
}

func (f EDF) size() (width, height float64) { return columnWidth, 2.2 }

func (f EDF) layout(size vg.Point, o Options) layout {
	p := newPanel(o.typeface(), strings.Replace(accuracyLabel(o), "accuracy", "error", 1),
		"share of networks with a smaller error")
	var errors []float64
	for _, s := range f.Spaces {
		for _, n := range s.ranked() {
			errors = append(errors, n.error)
		}
	}
	x := o.X.of(spanOf(errors, 0.05), nil)
	var l legend
	for i, s := range f.Spaces {
		list := s.ranked()
		if len(list) == 0 {
			continue
		}
		look := lookOf(i)
		way := plotter.XYs{{X: min(x.low, list[0].error), Y: 0}}
		for _, n := range list {
			way = append(way, plotter.XY{X: n.error, Y: n.share})
		}
		way = append(way, plotter.XY{X: max(x.high, list[len(list)-1].error), Y: 1})
		stairs := line(look.line, way)
		stairs.StepStyle = plotter.PostStep
		p.Add(stairs)
		text := fmt.Sprintf("n = %d networks", len(list))
		if s.Name != "" {
			text = fmt.Sprintf("%s, n = %d", s.Name, len(list))
		}
		p.add(series{name: text, look: look, way: way, steps: true})
		l.entries = append(l.entries, entry{text, look.sample()[:1]})
	}
	p.outside = x.high < slices.Min(errors) || x.low > slices.Max(errors) // where all curves are flat
	p.setRanges(x, o.Y.of(span{0, 1.02}, nil))
	p.X.Tick.Marker = niceTicks{limit: int(size.X / 35)}
	p.Y.Tick.Marker = heightTicks(size.Y)
	return one(l, p)
}
