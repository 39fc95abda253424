package report

import (
	"fmt"
	"slices"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/space"
)

// At returns the results of the trials at the points that have all values of part. The settings of part are no axes of
// these results, so that those at one point are like the results of a study without axes. "" leaves the results as they
// are.
func (r Results) At(part search.Point) Results {
	if part == "" {
		return r
	}
	within := func(trials []search.TrialState) (list []search.TrialState) {
		for _, t := range trials {
			if !t.At.In(part) {
				continue
			}
			for _, axis := range r.Study.Axes {
				if _, fixed := part.Value(axis.Key); fixed {
					t.At = t.At.Without(axis.Key)
				}
			}
			list = append(list, t)
		}
		return list
	}
	axes := slices.DeleteFunc(slices.Clone(r.Study.Axes), func(a search.Axis) bool {
		_, fixed := part.Value(a.Key)
		return fixed
	})
	r.Trials, r.Planned = within(r.Trials), within(r.Planned)
	r.Study = r.Study.At(part)
	r.Study.Axes = axes
	r.Slice = joinWords(r.Slice, part.String())
	r.decides = nil // it remembers other trials
	return r
}

// Slices returns the results at each point of the axes. A study without axes, or with one point, has one slice.
func (r Results) Slices() (list []Results) {
	for _, p := range r.Study.Axes.Points() {
		list = append(list, r.At(p))
	}
	return list
}

// AtOwn returns the results of each network at its own best point, chosen by the split choose, and those of all networks
// at the common point. See Tune.
func (r Results) AtOwn(choose string) (own, common Results, err error) {
	choice, choosing, err := r.choosePoints(choose)
	if err != nil {
		return r, r, err
	}
	points := r.Study.Axes.Points()
	if choice.Common < 0 {
		return r, r, fmt.Errorf("none of its trials has an accuracy on the %s pictures", choosing.Study.Split)
	}
	at := map[space.System]search.Point{}
	for i, system := range r.Study.SystemList() {
		if choice.Own[i] >= 0 {
			at[system] = points[choice.Own[i]]
		}
	}
	own = r
	mine := func(trials []search.TrialState) (list []search.TrialState) {
		for _, t := range trials {
			if p, chosen := at[t.System]; chosen && t.At == p {
				t.At = ""
				list = append(list, t)
			}
		}
		return list
	}
	own.Trials, own.Planned = mine(r.Trials), mine(r.Planned)
	own.Study.Axes, own.decides = nil, nil
	own.Slice = joinWords(r.Slice, "each network at its best")
	common = r.At(points[choice.Common])
	common.Slice += ", the best on average"
	return own, common, nil
}

// choosePoints chooses the best point of each network and the common one, by the accuracies on the split choose; "" is
// the validation pictures, which the study must hold out then: the accuracy of a point that the test pictures choose is
// too high on these.
func (r Results) choosePoints(choose string) (analysis.Choice, Results, error) {
	if choose == "" && r.Study.Validation == 0 {
		return analysis.Choice{}, r, fmt.Errorf("%s holds out no validation pictures that could choose the best values: "+
			"test pictures that choose make the accuracy on them too high", r.Study.Name)
	}
	if choose == "" {
		choose = search.SplitValidation
	}
	choosing, err := r.Showing(choose)
	if err != nil {
		return analysis.Choice{}, choosing, err
	}
	return analysis.Choose(choosing.cells()), choosing, nil
}

// cells are the samples of the study, indexed by network and point.
func (r Results) cells() [][]analysis.Sample {
	systems, points := r.Study.SystemList(), r.Study.Axes.Points()
	at := map[search.Key]analysis.Sample{}
	samples := r.Samples()
	for i, n := range r.Networks() {
		at[search.Key{System: n.System, At: n.At}] = samples[i]
	}
	cells := make([][]analysis.Sample, len(systems))
	for i, system := range systems {
		for _, p := range points {
			cells[i] = append(cells[i], at[search.Key{System: system, At: p}])
		}
	}
	return cells
}

// joinWords joins two texts with a comma, unless one is empty.
func joinWords(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}
