package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/store"
)

// watched is a database as the live page reads it. It is opened for reading at each look, as status does, because it
// may not be there yet, or be replaced.
type watched struct {
	path  string
	split string // that is shown; "": what each study says
	// resting has the studies of the last Read of which no trial runs, by name.
	resting map[string]rested
}

// rested is a study as the page shows it, and the revision that this is of.
type rested struct {
	revision string
	live.Study
}

var _ live.Source = (*watched)(nil)

func (w *watched) look(ctx context.Context, f func(*store.DB) error) error {
	db, err := store.OpenReadOnly(ctx, w.path)
	if err != nil {
		return advised(err)
	}
	defer db.Close()
	return advised(f(db))
}

func (w *watched) Mark(ctx context.Context) (mark string, err error) {
	err = w.look(ctx, func(db *store.DB) (err error) {
		mark, err = db.Mark(ctx)
		return err
	})
	return mark, err
}

func (w *watched) Snapshot(ctx context.Context, path string) error {
	return w.look(ctx, func(db *store.DB) error { return db.Snapshot(ctx, path) })
}

// Export writes what the command export writes.
func (w *watched) Export(ctx context.Context, out io.Writer, study string, epochs bool) error {
	return w.look(ctx, func(db *store.DB) error {
		found, err := db.Read(ctx, study, partsFor(epochs)...) // only by its name, because it comes from outside
		if err != nil {
			return err
		}
		return report.From(found).Export(out, report.ExportOptions{Format: "csv", Epochs: epochs})
	})
}

func (w *watched) Read(ctx context.Context) (live.State, error) {
	state, resting := live.State{Database: w.path}, map[string]rested{}
	err := w.look(ctx, func(db *store.DB) error {
		infos, err := db.Studies(ctx)
		if err != nil {
			return err
		}
		// The study that changed last comes first, because people look for it.
		slices.SortStableFunc(infos, func(a, b store.StudyInfo) int { return b.Updated.Compare(a.Updated) })
		for _, info := range infos {
			one := w.resting[info.Name]
			if one.revision != info.Revision {
				found, err := db.Read(ctx, info.Name, store.Histories, store.Attempts)
				if err != nil {
					return err
				}
				one.revision = found.Revision // not that of info: the study may have changed since
				r, without := report.From(found).Showing(w.split)
				if without != nil {
					r = report.From(found)
				}
				one.Study = live.StudyOf(r)
				if without != nil {
					one.Warnings = append(one.Warnings, without.Error())
				}
				if one.Figures, err = watchedFigures(r); err != nil {
					return err
				}
			}
			if one.Status != "running" {
				resting[one.Name] = one
			}
			state.Studies = append(state.Studies, one.Study)
		}
		return nil
	})
	w.resting = resting
	if errors.Is(err, fs.ErrNotExist) {
		state.Missing = fmt.Sprintf("There is no database %s: igcsearch run STUDY --db %s creates it.",
			w.path, quote(w.path))
		err = nil
	}
	return state, err
}

// watchedFigures returns the figures of a study that have numbers: accuracy against M, as plot draws it, and the
// learning curves, also of trials that run.
func watchedFigures(r report.Results) ([]live.Figure, error) {
	options, err := figureOptions([]report.Results{r})
	if err != nil {
		return nil, err
	}
	var list []live.Figure
	add := func(name, title, note string, f plots.Figure) { // the name is that of the kind
		var numbers bytes.Buffer
		if plots.Encode(&numbers, "csv", f, options) != nil {
			return // it has no number yet
		}
		list = append(list, live.Figure{
			Name: name, Title: title, Note: note, Numbers: numbers.String(),
			Draw: func(w io.Writer, format string, outlines bool) error {
				o := options
				o.Outlines, o.Description = outlines, kindNamed(name).describe(r.Slices())
				return plots.Encode(w, format, f, o)
			},
		})
	}
	if r.Study.OfPairs() {
		note := fmt.Sprintf("%d of %s done", r.Done(), report.Count(len(r.Trials), "trial"))
		add("accuracy", "Accuracy against M", note, plots.AccuracyVsM{Series: series(r.Slices())})
	}
	note := ""
	if r.Done() < len(r.Trials) {
		note = "also of trials that are not done"
	}
	curves := curvesOfSlices(r.Slices(), search.Done, search.Running, report.Interrupted, search.Pending)
	add("curves", "Learning curves", note, plots.LearningCurves{Curves: curves})
	return list, nil
}
