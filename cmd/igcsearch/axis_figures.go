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
	cmd.Flags().StringVar(best, "best", "", "of a study with lists of settings draw each pair at its best values, and all at"+
		" those\nthat are the best on average; chosen on the `SPLIT` validation, or test")
	cmd.Flag("best").NoOptDefVal = search.SplitValidation
}

// sliced replaces each study with lists of settings by one slice for each point that --at and --by leave, or by two for
// --best.
func (o plotOptions) sliced(list []report.Results) (all []report.Results, err error) {
	if !slices.Contains([]string{"", search.SplitValidation, search.SplitTest}, o.best) {
		return nil, usageError{fmt.Errorf("--best %q: want validation or test", o.best)}
	}
	for _, r := range list {
		name := r.Study.Name
		if r, err = o.axes.of(r); err != nil {
			return nil, fmt.Errorf("plot %s: %w", name, err)
		}
		if len(r.Study.Axes) > 0 {
			r.Slice = "" // the values of --at are those of all curves, so the legend leaves them out
		}
		if o.best == "" {
			all = append(all, withResults(r.Slices())...)
			continue
		}
		if len(r.Study.Axes) == 0 {
			return nil, usageError{fmt.Errorf("--best: %s has no list of settings of which one value could be the best", name)}
		}
		choose := o.best
		if choose == search.SplitValidation && r.Study.Validation == 0 {
			choose = "" // the error says why nothing is chosen
		}
		own, common, err := r.AtOwn(choose)
		if err != nil {
			return nil, fmt.Errorf("plot --best: %w; --best=test does it all the same", err)
		}
		all = append(all, own, common)
	}
	if one := o.kind == kindRace || o.kind == "heatmap"; one && len(all) > len(list) && !o.panels {
		return nil, usageError{fmt.Errorf("--kind %s draws one value of each setting: give it by --at", o.kind)}
	}
	return all, nil
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
