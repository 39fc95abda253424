package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

type runOptions struct {
	study    string
	db       string
	data     string
	device   device
	workers  automatic // not given: as the study says
	set      []string
	figure   string // "": STUDY.pdf beside the database
	noFigure bool
	dryRun   bool
	again    string // the command line that goes on with this run
}

func newRunCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run STUDY",
		Short: "Train the networks of a study; go on where it was stopped",
		Long: `run trains the network of every pair of a study from every seed, several at
once, and stores each epoch. STUDY is the name of a shipped study (igcsearch
studies) or of one in the database, or a file. A study that is in the database goes
on with its stored settings; --set changes them, and a file replaces them. When all
are trained it prints the accuracies and draws them against M.

Ctrl-C or SIGTERM stops at the next batch and keeps all finished epochs; a
second Ctrl-C ends at once. The same command goes on, also after a crash, and
ends with the same results as an uninterrupted run. A complete study prints its
table at once.

More seeds or networks (--set seeds=10) are added to a study, and all that is trained
stays. With fewer, the others are left out but kept, until they are asked for again.
What changes the result of a training, like epochs, is another study and needs another
name.

Any number of processes on one machine may run the same study: each trial is
trained by one of them, and those of a process that dies are taken over. max_wall_time,
max_trials, max_epochs and max_device_hours of the study stop a run at the end of
an epoch; the same command with a larger one goes on. A trial that failed as often
as the study tolerates is left alone until igcsearch retry.

run begins with a line that says how much there is to train, roughly how long it
takes, by a second's steps of some networks or by the epochs that are recorded, and
how large the database gets. --dry-run prints more of that, by steps of every network
measured for some ten seconds, as many at once as a run trains, and trains and
stores nothing. A strategy or a budget may make it less.

Off a terminal there is a line for each epoch: the trials that are done, network,
seed, epoch, training loss, accuracy, seconds, time left. run warns before the start
of trainings with too few steps for their running statistics, and of a precision of
bfloat16 where another is faster, and in the end of trainings that are no better than
guessing.`,
		Example: `  igcsearch run quickstart

  # how long would it take?
  igcsearch run quickstart --dry-run

  # on CIFAR-100, a tenth of the paper's epochs
  igcsearch data get cifar100 --data pictures
  igcsearch run fig3a-short --data pictures --db cifar.db

  # for half an hour; the same command goes on
  igcsearch run quickstart --set max_wall_time=30m

  # ten more seeds; what is trained is not trained again
  igcsearch run quickstart --set seeds=20

  # other settings are another study, so give it another name
  igcsearch run quickstart --set name=long --set epochs=20

  # each pair at three learning rates
  igcsearch run quickstart-tuned`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study, o.again = args[0], commandLine()
			return runRun(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addDevice(cmd, &o.device)
	addWorkers(cmd, &o.workers)
	addSet(cmd, &o.set, "override one setting of the study")
	cmd.Flags().StringVar(&o.figure, "figure", "", "the figure's `FILE`: pdf, svg, png, eps, tex, "+
		"or csv for its numbers; an existing file is replaced (default STUDY.pdf beside the database)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false,
		"only say what is to train, how long it takes and how large the database gets")
	cmd.Flags().BoolVar(&o.noFigure, "no-figure", false, "draw no figure")
	return cmd
}

func runRun(ctx context.Context, o runOptions, stdout, stderr io.Writer) error {
	study, err := studyToTrain(ctx, o.study, o.set, o.db, stderr)
	if err != nil {
		return err
	}
	if err := o.chooseFigure(study); err != nil {
		return err
	}
	m, err := openMachine(o.data, o.device, stderr)
	if err != nil {
		return err
	}
	p, err := m.prepare(ctx, study, stderr)
	if err != nil {
		return err
	}
	if o.dryRun {
		return dryRun(ctx, o, p, stdout, stderr)
	}
	db, err := openRunner(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	stand, err := p.standing(ctx, db, o.db)
	if err != nil {
		return err
	}
	workers, err := p.workers(ctx, o.workers, func() ([]search.Trial, error) { return stand, nil })
	if err != nil {
		return err
	}
	show := progress.New(p.study, stderr)
	db.SetGone(new(cluster.Jobs).Gone, show.Note)
	show.Note(p.headline(workers))
	if n := p.study.Peak.Round(len(p.study.SystemList())); p.study.Strategy == search.StrategyPeak && workers > n {
		show.Note(fmt.Sprintf("%s: peak chooses %d trials at once, so that of %d workers %d wait after the first seed: "+
			"--set peak.at_once=%d uses all, for a few more trials in all", p.study.Name, n, workers, workers-n, workers))
	}
	if p.change != "" {
		show.Note(p.study.Name + ": " + p.change)
	}
	p.noteEstimate(ctx, show, stand, workers)
	sum, err := p.run(ctx, ctx, search.Runner{Store: db, Workers: workers}, show)
	o.tellEnd(stderr, p, sum, ctx.Err() != nil)
	if errors.Is(err, search.ErrAlike) {
		return fmt.Errorf("%w: %s retry %s", err, program(), o.named(p.study.Name))
	}
	if err != nil {
		return err
	}
	r, err := readResults(ctx, db, study.Name, store.Histories, store.Attempts)
	if err != nil {
		return err
	}
	if again := r.TakenUp(); again != "" {
		fmt.Fprintf(stderr, "%s: %s\n", study.Name, again)
	}
	r.Warn(stderr)
	report.Warn(stderr, study.Name, r.AtChance(len(p.data.Classes)))
	if _, err := fmt.Fprintf(stdout, "%s\n\n%s", r.Caption(), r.SummaryTable()); err != nil {
		return err
	}
	if err := finish(ctx, o, db, r, stderr); err != nil {
		return err
	}
	return o.failed(r, sum)
}
