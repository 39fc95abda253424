package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/search"
	"igcsearch/store/spool"
)

// runSpoolWorker trains beside the workers that meet in a folder.
func runSpoolWorker(parent context.Context, o workerOptions, stderr io.Writer) error {
	ctx := parent
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	p, err := prepare(ctx, study, o.data, o.device, stderr)
	if err != nil {
		return err
	}
	folder, err := spool.Open(o.spool, spool.Options{Attempt: p.attempt, Gone: new(cluster.Jobs).Gone})
	if err != nil {
		return err
	}
	defer folder.Close()
	workers, err := p.workers(ctx, o.workers, func() ([]search.Trial, error) { return folder.Plan(ctx, p.study, p.trials) })
	if err != nil {
		return err
	}
	show := newProgress(p.study, stderr)
	show.note(p.headline(workers))
	if p.study.CheckpointQuota > 0 {
		show.note(p.study.Name + ": checkpoint_quota is of databases: the spool keeps two states of each trial that is not finished")
	}
	ctx, soft, stop := handBack(parent, o.grace, show.note)
	defer stop()
	unhook := context.AfterFunc(parent, func() {
		show.note("stopping at the next batch; interrupt again to end at once")
	})
	trained, failed := 0, ""
	runner := search.Runner{Store: folder, Trainer: p.train, Workers: workers, Attempt: p.attempt, Drain: soft.Done(), Deadline: o.deadline(ctx), Notify: func(e search.Event) {
		show.event(e)
		switch {
		case e.Kind == search.Ended && e.Trial.Status.Finished():
			trained++
		case e.Kind != search.Planned && e.Trial.Status == search.Failed:
			failed = fmt.Sprintf("%v: %s", e.Trial.Key, e.Trial.Error)
		}
		for _, t := range e.Trials {
			if t.Status == search.Failed {
				failed = fmt.Sprintf("%v: %s", t.Key, t.Error)
			}
		}
	}}
	sum, err := runner.Run(ctx, p.study, p.decides, p.trials)
	unhook()
	show.close()
	finished := fmt.Sprintf("%s trained here, %d of %d finished in %s", count(trained, "trial"), sum.Done+sum.Diverged, len(p.trials), o.spool)
	if errors.Is(err, context.Canceled) && parent.Err() == nil {
		err = nil // the grace after SIGUSR1 was over
	}
	if parent.Err() != nil {
		fmt.Fprintf(stderr, "igcsearch: stopped: %s; all finished epochs are there. Go on with:\n  %s\n", finished, commandLine())
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
		fmt.Fprintf(stderr, "igcsearch: warning: %s failed, like %s: mend that, then: %s retry %s --spool %s, and start workers again\n",
			count(sum.Failed, "trial"), failed, program(), quote(p.study.Name), quote(o.spool))
	}
	fmt.Fprintf(stderr, "next      %s collect %s\n", program(), quote(o.spool))
	return nil
}
