package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/cluster"
)

type workerOptions struct {
	study     string // "": any, of a coordinator
	set       []string
	access    string
	outbox    string
	spool     string
	data      string
	device    device
	workers   automatic // not given: as the study says
	grace     time.Duration
	timeLimit time.Duration // 0: as the scheduler says
}

func newWorkerCommand() *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use:   "worker [STUDY] (--access FILE | --spool DIR)",
		Short: "Train trials of a study beside workers on other machines",
		Long: `With --access, worker asks the coordinator of an access file (igcsearch serve
--access FILE) for trials, trains them and reports every epoch, until there is
nothing more to train. With STUDY it takes trials of that study only. It waits until
the file and the coordinator are there. If it cannot reach the coordinator later, it
trains on and keeps its reports in a folder beside the access file, from which the
worker or the coordinator delivers them. It must be the same program as the
coordinator and have the same pictures.

With --spool there is no server. The workers of one STUDY meet in a folder that all
machines see; the first worker makes it. If a worker dies, others take its trials
over within minutes. igcsearch collect brings the results into a database.

SIGUSR1 gives the trials back at the end of their epochs, or at the next batch when
--grace is over. SIGTERM and Ctrl-C give them back at the next batch. Other workers go
on with them from their last epoch, and none of it counts as a failure. Under Slurm
the worker knows the job's time limit, and begins no trial whose next epoch would end
after it.`,
		Example: `  # on each machine, with the file that igcsearch serve wrote
  igcsearch worker --access sweep.access

  # on each machine, with a folder that all of them see
  igcsearch worker quickstart --spool quickstart.spool

  # one GPU, two hours
  igcsearch worker --access sweep.access --device cuda:0 --time-limit 2h`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("want at most one STUDY, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.study = args[0]
			}
			return runWorker(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addData(cmd, &o.data)
	addDevice(cmd, &o.device)
	addWorkers(cmd, &o.workers)
	addSet(cmd, &o.set, "with --spool, override one setting of the study")
	flags := cmd.Flags()
	flags.StringVar(&o.access, "access", os.Getenv("IGCSEARCH_ACCESS"),
		"the `FILE` that the coordinator wrote (default $IGCSEARCH_ACCESS)")
	flags.StringVar(&o.outbox, "outbox", "",
		"the `DIR` for what cannot be delivered (default FILE.outbox, where the coordinator looks too)")
	flags.StringVar(&o.spool, "spool", "",
		"the `DIR` where the workers of the study meet, on a file system that all machines share")
	flags.DurationVar(&o.grace, "grace", time.Minute,
		"how long epochs may go on after SIGUSR1, and reports be delivered at the end")
	flags.DurationVar(&o.timeLimit, "time-limit", 0, "how long the worker may run (default what the scheduler says)")
	hideDefaults(cmd, "access")
	return cmd
}

func runWorker(ctx context.Context, o workerOptions, stderr io.Writer) error {
	switch {
	case o.spool != "" && o.study == "":
		return usageError{errors.New("STUDY is missing: a spool holds the trials of one study")}
	case o.spool == "" && o.access == "":
		return usageError{errors.New("where do the trials come from? " +
			"want --access FILE of a coordinator, or --spool DIR")}
	case o.spool == "" && len(o.set) > 0:
		return usageError{errors.New("--set is for --spool: a coordinator sends the settings")}
	case o.grace < 0:
		return usageError{fmt.Errorf("--grace %v: want 0 or more", o.grace)}
	case o.timeLimit < 0:
		return usageError{fmt.Errorf("--time-limit %v: want more than 0", o.timeLimit)}
	}
	if o.spool != "" {
		return runSpoolWorker(ctx, o, stderr)
	}
	return runAccessWorker(ctx, o, stderr)
}

// deadline returns when this process has to end, zero if nobody says when. Some
// of the time before the end is left for delivering. note hears if the scheduler
// cannot be asked.
func (o workerOptions) deadline(ctx context.Context, note func(string)) time.Time {
	end, ok := time.Now().Add(o.timeLimit), o.timeLimit > 0
	if !ok {
		var err error
		if end, ok, err = cluster.JobEnd(ctx, os.Getenv); err != nil {
			note(fmt.Sprintf("squeue does not tell the time limit of this job: %v: give it by --time-limit", err))
		}
		if !ok {
			return time.Time{}
		}
	}
	return end.Add(-min(15*time.Second, time.Until(end)/20))
}
