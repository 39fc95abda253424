package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

// chooseFigure finds out now, not after hours of training, whether the figure can be drawn and written.
func (o *runOptions) chooseFigure(study search.Study) error {
	switch {
	case o.figure != "" && o.noFigure:
		return usageError{errors.New("--figure and --no-figure exclude each other: leave one out")}
	case o.noFigure:
		return nil
	case o.figure == "":
		o.figure = filepath.Join(filepath.Dir(o.db), study.Name+".pdf")
		if _, err := os.Stat(filepath.Dir(o.figure)); err != nil {
			return nil // the database, which is in the same folder, says that better
		}
	default:
		if _, err := figureFormat(o.figure); err != nil {
			return usageError{err}
		}
	}
	if err := checkOutput("--figure", o.figure, o.db); err != nil {
		return err
	}
	if err := rehearseFigure(study, o.figure); err != nil {
		return fmt.Errorf("draw %s: %w; or run with --no-figure", o.figure, err)
	}
	return nil
}

// tellEnd says why a run ended before all its trials were trained, and how to
// go on.
func (o runOptions) tellEnd(stderr io.Writer, p *prepared, sum search.Summary, interrupted bool) {
	name, all := p.study.Name, report.Count(len(p.trials), "trial")
	kept := fmt.Sprintf("with %d of %s left; all finished epochs are in %s. Go on", sum.Left, all, o.db)
	switch {
	case interrupted:
		fmt.Fprintf(stderr, "igcsearch: stopped %s with:\n  %s\n", kept, o.again)
	case sum.Stopped:
		fmt.Fprintf(stderr, "igcsearch: %s: %s, %s with a larger one (--set), or without:\n  %s\n",
			name, sum.Reason, kept, o.again)
	case sum.Reason != "" && (sum.Left > 0 || p.study.Strategy != ""):
		left := ""
		if sum.Left > 0 {
			left = fmt.Sprintf("; %d of %s not trained to the end", sum.Left, all)
		}
		fmt.Fprintf(stderr, "igcsearch: %s: by the %s pictures, %s%s\n",
			name, p.study.DecidingSplit(), sum.Reason, left)
	}
}

// named returns a study as an argument, with its database if that is not the
// default.
func (o runOptions) named(study string) string {
	if o.db != defaultDB {
		return quote(study) + " --db " + quote(o.db)
	}
	return quote(study)
}

// finish draws the figure and prints where the results are.
func finish(ctx context.Context, o runOptions, db *store.DB, r report.Results, stderr io.Writer) error {
	if r.Done() > 0 && !o.noFigure {
		if err := drawFigure(r, o.figure); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "figure    %s\n", o.figure)
	}
	name := o.named(r.Study.Name)
	fmt.Fprintf(stderr, "database  %s\nnext      %[2]s analyze %[3]s\n          %[2]s plot %[3]s -o figure.svg\n"+
		"          %[2]s export %[3]s --format csv\n", o.db, program(), name)
	return nil
}

// failed is the error of a run in which trials failed.
func (o runOptions) failed(r report.Results, sum search.Summary) error {
	for _, t := range r.Trials {
		if t.Status == search.Failed && sum.Failed > 0 {
			return fmt.Errorf("run %s: %s failed, first %v: %s: fix the cause, then run: %s retry %s", r.Study.Name,
				report.Count(sum.Failed, "trial"), t.Key, t.Error, program(), o.named(r.Study.Name))
		}
	}
	return nil
}
