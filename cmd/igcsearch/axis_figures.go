package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/plots"
	"igcsearch/search"
)

func addBest(cmd *cobra.Command, best *string) {
	cmd.Flags().StringVar(best, "best", "", "of a study with lists of settings each pair at its best values, and all at those\n"+
		"that are the best on average; chosen on the `SPLIT` validation, or test")
	cmd.Flag("best").NoOptDefVal = search.SplitValidation
}

// sliced replaces each study with lists of settings by one slice for each point that --at and --by leave, or by two for
// --best.
func (o plotOptions) sliced(list []report.Results) (all []report.Results, err error) {
	for _, r := range list {
		part, err := partOf(r, o.axes, o.best)
		if err != nil {
			return nil, fmt.Errorf("plot %w", err)
		}
		for _, r := range part {
			if len(r.Study.Axes) > 0 {
				r.Slice = "" // the values of --at are those of all curves, so the legend leaves them out
			}
			all = append(all, withResults(r.Slices())...)
		}
	}
	if one := o.kind == kindRace || o.kind == kindHeatMap; one && len(all) > len(list) && !o.panels {
		return nil, usageError{fmt.Errorf("--kind %s draws one value of each setting: give it by --at", o.kind)}
	}
	return all, nil
}

// partOf returns the part of a study that the flags --at and --by leave. With --best these are two: each network at its
// own best values, and all at the common ones. Errors begin with the study.
func partOf(r report.Results, axes axisFlags, best string) ([]report.Results, error) {
	name := r.Study.Name
	r, err := axes.of(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case best == "":
		return []report.Results{r}, nil
	case best != search.SplitValidation && best != search.SplitTest:
		return nil, usageError{fmt.Errorf("%s: --best %q: want validation or test", name, best)}
	case len(r.Study.Axes) == 0:
		return nil, usageError{fmt.Errorf("%s: --best: it has no list of settings of which one value could be the best", name)}
	case best == search.SplitValidation && r.Study.Validation == 0:
		best = "" // the error says why nothing is chosen
	}
	own, common, err := r.AtOwn(best)
	if err != nil {
		return nil, fmt.Errorf("%s: --best: %w; --best=test does it all the same", name, err)
	}
	return []report.Results{own, common}, nil
}

// withResults leaves out slices without a result, unless none has one.
func withResults(list []report.Results) []report.Results {
	some := slices.DeleteFunc(slices.Clone(list), func(r report.Results) bool { return r.Done() == 0 })
	if len(some) == 0 {
		return list
	}
	return some
}

// sliceName names a study in front of one of its networks, or its slice.
func sliceName(r report.Results, list []report.Results) string {
	if r.Slice == "" {
		return r.Title()
	}
	return sliceLabel(r, list)
}

// sliceLabel names a slice of a study in a legend, with the study if there are several.
func sliceLabel(r report.Results, list []report.Results) string {
	if slices.ContainsFunc(list, func(other report.Results) bool { return other.Study.Name != r.Study.Name }) {
		return r.Title()
	}
	return r.Slice
}

// curvesOfSlices returns the curves of curvesOf of several results, with the names of these if there are several.
func curvesOfSlices(list []report.Results, of ...search.Status) (all []plots.LearningCurve) {
	for _, r := range list {
		curves := curvesOf(r, of...)
		for i := range curves {
			if len(list) > 1 {
				curves[i].Name = label(r, list) + " " + curves[i].Name
			}
		}
		all = append(all, curves...)
	}
	return all
}
