package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/trainer"
	"igcsearch/trainer/kernel"
)

// A measurement takes about this long. That of a run delays the run.
const (
	dryMeasure = 10 * time.Second
	runMeasure = time.Second
)

// standing returns the trials of a plan as a database has them. db is nil if
// there is none. A stored study of the same name with other settings is an error.
func (p *prepared) standing(ctx context.Context, db *store.DB, path string) ([]search.Trial, error) {
	trials := slices.Clone(p.trials)
	if db == nil {
		return trials, nil
	}
	stored, err := db.Read(ctx, p.study.Name)
	if errors.Is(err, store.ErrNoStudy) {
		return trials, nil
	}
	if err != nil {
		return nil, err
	}
	if err := stored.CheckChange(path, p.study, p.trials); err != nil {
		return nil, err
	}
	p.change = changeOf(stored, p.study, p.trials)
	at := map[search.Key]search.Trial{}
	for _, t := range slices.Concat(stored.Trials, stored.Outside) {
		t.Key = stored.Study.KeyAlong(t.Key, p.study.Axes)
		at[t.Key] = t.Trial
	}
	for i, t := range trials {
		if s, ok := at[t.Key]; ok {
			trials[i] = s
		}
	}
	return trials, nil
}

// plan describes the study for an estimate.
func (p *prepared) plan(trials []search.Trial, workers int) progress.Plan {
	return progress.Plan{Study: p.study, Data: p.data, Trials: trials, Workers: workers, GPUs: p.gpus}
}

// noteEstimate shows how long a run takes, and warns of what will not train well.
func (p *prepared) noteEstimate(ctx context.Context, show progress.Display, trials []search.Trial, workers int) {
	e, err := progress.NewEstimate(ctx, p.plan(trials, workers), p.train, runMeasure, true)
	if err != nil {
		// Trials may fail in the same way, and the run stores how.
		show.Note(fmt.Sprintf("%s: how long it takes could not be measured: %v", p.study.Name, err))
		return
	}
	line := e.Line()
	if line == "" {
		return
	}
	show.Note(line)
	for _, text := range p.cautions(e) {
		show.Note(report.Warning(p.study.Name, text))
	}
}

// cautions say of the trials that are left what will not train well, and what would be faster.
func (p *prepared) cautions(e *progress.Estimate) (list []string) {
	if e.Left == 0 {
		return nil
	}
	if text := e.FewSteps(); text != "" {
		list = append(list, text)
	}
	isa, err := kernel.Detect()
	if err != nil || p.gpus > 0 { // of which openMachine has told the error
		return list
	}
	here, err := trainer.Multipliers(isa)
	if err != nil { // the trainings will have it too
		return list
	}
	if text := fasterPrecision(p.study.Precision, isa, here); text != "" {
		list = append(list, text)
	}
	return list
}

// fasterPrecision says which precision is faster than a study's on a machine with these
// multipliers. It is "" if the study's is not one of bfloat16, or is the fastest: the last of
// them that is native.
func fasterPrecision(precision string, isa kernel.ISA, here []trainer.Multiplier) string {
	var fastest, ours trainer.Multiplier
	for _, m := range here {
		if m.Native {
			fastest = m
		}
		if m.Precision == precision {
			ours = m
		}
	}
	switch {
	case !search.Bfloat16(precision) || precision == fastest.Precision:
		return ""
	case ours.Native:
		return fmt.Sprintf("this machine mostly trains faster in precision %q than in %q, and the results are others",
			fastest.Precision, precision)
	}
	return fmt.Sprintf("precision %q is emulated with %v, which is slow and for checking results; here %q is fast, and "+
		"makes other results", precision, isa, fastest.Precision)
}

// emulates reports whether the kernels of an instruction set have no instruction for a
// precision, and so are slow in it.
func emulates(isa kernel.ISA, precision string) bool {
	here, err := trainer.Multipliers(isa)
	return err == nil && slices.ContainsFunc(here, func(m trainer.Multiplier) bool {
		return m.Precision == precision && !m.Native
	})
}

// dryRun prints what a run would do.
func dryRun(ctx context.Context, o runOptions, p *prepared, stdout, stderr io.Writer) error {
	db, err := openThere(ctx, o.db)
	if err != nil {
		return err
	}
	if db != nil {
		defer db.Close()
	}
	trials, err := p.standing(ctx, db, o.db)
	if err != nil {
		return err
	}
	workers, err := p.workers(ctx, o.workers, func() ([]search.Trial, error) { return trials, nil })
	if err != nil {
		return err
	}
	e, err := progress.NewEstimate(ctx, p.plan(trials, workers), p.train, dryMeasure, false)
	if err != nil {
		return err
	}
	report.Warn(stderr, p.study.Name, p.cautions(e))
	text := p.headline(workers) + "\n"
	if p.change != "" {
		text += fmt.Sprintf("it would change: %s\n", p.change)
	}
	text += "\n" + e.Report()
	if e.Left > 0 {
		text += fmt.Sprintf("\n%s", costTable(e))
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// openThere opens the database of a dry run, for reading. It returns nil if a
// run would make the database.
func openThere(ctx context.Context, path string) (*store.DB, error) {
	if err := notAccess(path); err != nil {
		return nil, err
	}
	db, err := store.OpenReadOnly(ctx, path)
	info, _ := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err != nil && info != nil && info.Size() == 0 {
		return nil, nil
	}
	return db, err
}

// costTable lists what was measured, in the order of the study.
func costTable(e *progress.Estimate) *report.Table {
	r := report.Results{Study: e.Study}
	r.Study.Axes = nil // a measurement is of a network, for all points
	t := report.NewTable(append(r.NameHeader(), "step (ms)", "evaluation (s)", "one training")...)
	order := e.Study.SystemList()
	slices.SortFunc(e.Measured, func(a, b trainer.Cost) int {
		return cmp.Compare(slices.Index(order, a.System), slices.Index(order, b.System))
	})
	steps, _ := e.Steps()
	for _, m := range e.Measured {
		i := slices.IndexFunc(e.Trials, func(t search.Trial) bool { return t.System == m.System })
		t.Add(append(r.Name(report.Network{System: m.System, Params: e.Trials[i].Params}), fmt.Sprintf("%.1f", 1e3*m.Epoch/float64(steps)),
			fmt.Sprintf("%.1f", m.Evaluation), progress.Rough(e.Training(m)))...)
	}
	return t
}
