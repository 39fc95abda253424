package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store/spool"
)

// runSpoolWorker trains beside the workers that meet in a folder.
func runSpoolWorker(parent context.Context, o workerOptions, stderr io.Writer) error {
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	m, err := openMachine(o.data, o.device, stderr)
	if err != nil {
		return err
	}
	p, err := m.prepare(parent, study, stderr)
	if err != nil {
		return err
	}
	note := noteOf(study.Name, stderr) // until there is a display
	folder, err := spool.Open(o.spool, spool.Options{Attempt: p.attempt, Gone: new(cluster.Jobs).Gone,
		Note: func(line string) { note(line) }})
	if err != nil {
		return err
	}
	defer folder.Close()
	workers, err := p.workers(parent, o.workers, func() ([]search.Trial, error) {
		return folder.Plan(parent, p.study, p.trials)
	})
	if err != nil {
		return err
	}
	show := progress.New(p.study, stderr)
	note = func(line string) { show.Note(study.Name + ": " + line) }
	show.Note(p.headline(workers))
	ctx, soft, stop := listen(parent, o.grace, show.Note)
	defer stop()
	var seen spoolCount
	sum, err := p.run(parent, ctx, search.Runner{
		Store: folder, Workers: workers, Drain: soft.Done(), Deadline: o.deadline(ctx, show.Note), Notify: seen.event,
	}, show)
	finished := fmt.Sprintf("%s trained here, %d of %d finished in %s",
		report.Count(seen.trained, "trial"), sum.Done+sum.Diverged, len(p.trials), o.spool)
	if parent.Err() != nil {
		fmt.Fprintf(stderr, "igcsearch: stopped: %s; all finished epochs are there. Go on with:\n  %s\n",
			finished, commandLine())
	} else if errors.Is(err, context.Canceled) {
		err = nil // the grace after SIGUSR1 was over
	}
	if errors.Is(err, search.ErrAlike) {
		return fmt.Errorf("%w: %s retry %s --spool %s", err, program(), quote(p.study.Name), quote(o.spool))
	}
	if err != nil {
		return err
	}
	if sum.Reason != "" && sum.Left > 0 {
		finished += ": " + sum.Reason
	}
	fmt.Fprintf(stderr, "%s: %s\n", p.study.Name, finished)
	if sum.Failed > 0 {
		fmt.Fprintln(stderr, "igcsearch: warning: "+fmt.Sprintf(
			"%s failed, like %s: fix the cause, then run: %s retry %s --spool %s, and start workers again",
			report.Count(sum.Failed, "trial"), seen.failed, program(), quote(p.study.Name), quote(o.spool)))
	}
	fmt.Fprintf(stderr, "next      %s collect %s\n", program(), quote(o.spool))
	return nil
}

// noteOf returns a function that writes lines about a study or a folder.
func noteOf(about string, stderr io.Writer) func(string) {
	return func(line string) { fmt.Fprintf(stderr, "%s: %s\n", about, line) }
}

// spoolCount counts what a worker trained and remembers a trial that failed.
type spoolCount struct {
	trained int
	failed  string // with its error
}

func (c *spoolCount) event(e search.Event) {
	if e.Kind == search.Ended && e.Trial.Status.Finished() {
		c.trained++
	}
	for _, t := range slices.Concat(e.Trials, []search.Trial{e.Trial}) {
		if t.Status == search.Failed {
			c.failed = fmt.Sprintf("%v: %s", t.Key, t.Error)
		}
	}
}
