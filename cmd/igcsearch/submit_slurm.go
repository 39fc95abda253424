package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/cluster"
)

type slurmOptions struct {
	cluster.Slurm
	workers         positive // 0: not given
	atMost          positive // 0: as many as Slurm starts
	trialsPerWorker positive // 0: the worker decides
	device          device
	coordinatorArgs string
	dryRun          bool
}

func newSubmitSlurmCommand() *cobra.Command {
	var o slurmOptions
	cmd := &cobra.Command{
		Use:   "slurm STUDY --workers W (--coordinator | --access FILE | --spool DIR) [-- SBATCH ARGS]",
		Short: "Submit a study to Slurm as an array of workers",
		Long: `slurm submits one job array with a worker of the study in each task, prints the
numbers of the jobs and returns at once. sbatch gets the arguments after -- as they
are, and they take precedence: the partition, the GPUs, the time limit of a worker.

The workers get their trials from one place, on a file system that all nodes see:
  --coordinator   a small job of its own, submitted before the array; it keeps the
                  database, and ends with the study
  --access FILE   the coordinator that runs already: igcsearch serve --access FILE
  --spool DIR     no server, only a folder; igcsearch collect DIR brings the results
                  into a database

A worker gives its trials back when Slurm preempts, requeues or cancels its job,
and --notice before the time limit; another goes on from their last epoch. A
requeued job starts its worker again. A job that reached its time limit is not
started again, so let --workers be more than run at once, and limit those that run
at once with --at-most. STUDY and --set are checked now and read again by the jobs.`,
		Example: `  # four workers, each with a GPU for four hours, and their coordinator
  igcsearch submit slurm fig3a --workers 4 --coordinator --data pictures -- --gres=gpu:1 --time=4:00:00

  # what would be submitted? (also where there is no Slurm)
  igcsearch submit slurm quickstart --workers 2 --coordinator --dry-run

  # a hundred tasks one after another, ten at once, where nodes reach no server
  igcsearch submit slurm quickstart --workers 100 --at-most 10 --spool spool --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return oneStudy(cmd, args)
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Source, o.WorkerArgs = args[0], args[1:]
			return runSubmitSlurm(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addSlurmFlags(cmd, &o)
	return cmd
}

func addSlurmFlags(cmd *cobra.Command, o *slurmOptions) {
	addDB(cmd, &o.DB)
	addData(cmd, &o.Data)
	addDevice(cmd, &o.device)
	addSet(cmd, &o.Set, "override one setting of the study")
	flags := cmd.Flags()
	flags.Var(&o.workers, "workers", "tasks of the array, a worker in each")
	flags.Var(&o.atMost, "at-most", "workers at once (default all)")
	flags.Var(&o.trialsPerWorker, "trials-per-worker", "trials that a worker trains at once (default what is fastest)")
	hideDefaults(cmd, "workers", "at-most", "trials-per-worker")
	flags.BoolVar(&o.Coordinator, "coordinator", false, "also submit the coordinator, for the database of --db")
	flags.StringVar(&o.Access, "access", "", "the `FILE` by which workers find the coordinator "+
		"(default with --coordinator STUDY.access beside the database)")
	flags.StringVar(&o.Spool, "spool", "", "the `DIR` by which workers share the trials without a coordinator")
	flags.DurationVar(&o.Notice, "notice", 2*time.Minute, "how long before its time limit a worker is told "+
		"to give its trials back; an epoch that ends meanwhile is kept")
	flags.StringVar(&o.coordinatorArgs, "coordinator-args", "", "`ARGS` of sbatch for the coordinator's job, "+
		"separated by blanks, like \"--partition=cpu --time=7-0\"")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print what would be submitted, as a shell script, and submit nothing")
}

func runSubmitSlurm(ctx context.Context, o slurmOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	stored := "" // a database that may have the study
	switch {
	case o.Coordinator:
		stored = o.DB
	case !o.dryRun:
		stored = o.Access
	}
	study, err := studyToTrain(ctx, o.Source, o.Set, stored, stderr)
	if err != nil {
		return err
	}
	if err := o.complete(study.Name); err != nil {
		return err
	}
	if o.dryRun {
		_, err := io.WriteString(stdout, o.Script())
		return err
	}
	if _, err := exec.LookPath("sbatch"); err != nil {
		return fmt.Errorf("submit: %w", cluster.ErrNoSlurm)
	}
	switch {
	case o.Coordinator:
		err = removeOver(o.Access)
	case o.Spool == "":
		err = planAt(ctx, o.Access, o.Data, study, stderr)
	}
	if err != nil {
		return err
	}
	jobs, err := o.Submit(ctx)
	for _, w := range jobs.Warnings {
		fmt.Fprintf(stderr, "igcsearch: warning: %s\n", w)
	}
	if jobs.Coordinator != "" {
		fmt.Fprintf(stdout, "coordinator %s\n", jobs.Coordinator)
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "workers %s\n", jobs.Workers); err != nil {
		return err
	}
	// Workers stop before the coordinator, so that they can give their trials back.
	watch, stop := "--jobs="+jobs.Workers, jobs.Workers
	if jobs.Coordinator != "" {
		watch, stop = "--jobs="+jobs.Coordinator+","+jobs.Workers, stop+" "+jobs.Coordinator
	}
	for _, where := range jobs.ClusterArgs() {
		watch, stop = where+" "+watch, where+" "+stop
	}
	next := fmt.Sprintf("status    %s status %s --db %s", program(), quote(study.Name), quote(o.Access))
	if o.Spool != "" {
		next = fmt.Sprintf("collect   %s collect %s --db %s", program(), quote(o.Spool), quote(o.DB))
	}
	fmt.Fprintf(stderr, "watch     squeue %s\n%s\nstop      scancel %s\nlogs      %s\n",
		watch, next, stop, o.Logs())
	return nil
}
