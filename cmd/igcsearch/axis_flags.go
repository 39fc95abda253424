package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
)

// axisFlags say which part of a study with lists of settings a command shows.
type axisFlags struct {
	at point
	by string // "": all lists
}

func addAxes(cmd *cobra.Command, a *axisFlags) {
	cmd.Flags().Var(&a.at, "at", "of a study with lists of settings only the trials with these values, like learning_rate=0.05")
	cmd.Flags().StringVar(&a.by, "by", "", "compare the values of this `SETTING`, of which the study has a list")
}

// of returns the part of the results that the flags mean. If only one point is left, it has no axes.
func (a axisFlags) of(r report.Results) (report.Results, error) {
	if _, err := pointsAt(r.Study, a.at.Point); err != nil {
		return r, err
	}
	axes := r.Study.Axes
	r = r.At(a.at.Point)
	if a.by != "" {
		if !r.Study.Axes.Has(a.by) {
			return r, usageError{fmt.Errorf("--by %s: %s has no list of it to compare%s", a.by, r.Study.Name, alsoHas(axes))}
		}
		var others []string
		for _, axis := range r.Study.Axes {
			if axis.Key != a.by && len(axis.Values) > 1 {
				others = append(others, axis.String())
			}
		}
		if len(others) > 0 {
			return r, usageError{fmt.Errorf("--by %s: %s has lists of other settings too, %s: give the value of each by --at",
				a.by, r.Study.Name, strings.Join(others, ", "))}
		}
	}
	for _, axis := range slices.Clone(r.Study.Axes) { // a list of one value is nothing to compare
		if len(axis.Values) == 1 && axis.Key != a.by {
			r = r.At(search.Point("").With(axis.Key, axis.Values[0]))
		}
	}
	return r, nil
}

func alsoHas(axes search.Axes) string {
	if len(axes) == 0 {
		return ""
	}
	return "; it has " + lists(axes)
}

// analyzeTuning prints what a study with lists of settings tells about them.
func analyzeTuning(o analyzeOptions, r report.Results, stdout, stderr io.Writer) error {
	t, err := report.Tune(r, o.choose)
	if err != nil {
		return fmt.Errorf("analyze --choose %s: %w", o.choose, err)
	}
	if t.Cells.Best < 0 {
		return fmt.Errorf("analyze %s: none of its trials is done: run it first, or look at: igcsearch status %s",
			r.Study.Name, quote(r.Study.Name))
	}
	if o.format != "json" { // which holds the warnings
		report.Warn(stderr, r.Study.Name, t.Warnings)
	}
	return t.Print(stdout, o.format)
}
