package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/studies"
	"igcsearch/trainer"
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
studies) or a file. When all are trained it prints the accuracies and draws them
against M.

Ctrl-C or SIGTERM stops at the next batch and keeps all finished epochs; a
second Ctrl-C ends at once. The same command goes on, also after a crash, and
ends with the same results as an uninterrupted run. A complete study prints its
table at once.

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
of trainings with too few steps for their running statistics, and in the end of those
that are no better than guessing.`,
		Example: `  igcsearch run quickstart

  # how long would it take?
  igcsearch run quickstart --dry-run

  # on CIFAR-100, a tenth of the paper's epochs
  igcsearch data get cifar100 --data pictures
  igcsearch run fig3a-short --data pictures --db cifar.db

  # for half an hour; the same command goes on
  igcsearch run quickstart --set max_wall_time=30m

  # other settings are another study, so give it another name
  igcsearch run quickstart --set name=long --set epochs=20`,
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
	cmd.Flags().Var(&o.workers, "workers", "trials at once; auto is one for each core, of GPUs as many as they are fastest with (default what the study says, or auto)")
	cmd.Flag("workers").DefValue = ""
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "override one setting of the study, as `key=value`; may be repeated")
	cmd.Flags().StringVar(&o.figure, "figure", "", "the figure's `FILE`: pdf, svg, png, eps, tex, or csv for its numbers; an existing file is replaced (default STUDY.pdf beside the database)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what is to train, how long it takes and how large the database gets")
	cmd.Flags().BoolVar(&o.noFigure, "no-figure", false, "draw no figure")
	return cmd
}

func runRun(ctx context.Context, o runOptions, stdout, stderr io.Writer) error {
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	if o.figure != "" {
		if o.noFigure {
			return usageError{errors.New("--figure and --no-figure exclude each other: leave one out")}
		}
		if err := checkFigure(o.figure); err != nil {
			return usageError{err}
		}
	}
	if o.figure == "" {
		o.figure = filepath.Join(filepath.Dir(o.db), study.Name+".pdf")
	}
	if !o.noFigure {
		// Now, and not after hours of training.
		if err := notFolder("--figure", o.figure); err != nil {
			return err
		}
	}
	p, err := prepare(ctx, study, o.data, o.device, stderr)
	if err != nil {
		return err
	}
	if o.dryRun {
		return dryRun(ctx, o, p, stdout, stderr)
	}
	study, trials := p.study, p.trials
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
	show := newProgress(study, stderr)
	show.note(p.headline(workers))
	if what, err := newCost(ctx, p, stand, workers, runMeasure, true); err != nil {
		show.note(fmt.Sprintf("%s: how long it takes could not be measured: %v", study.Name, err)) // trials may fail in the same way, and be stored so
	} else if line := what.line(); line != "" {
		show.note(line)
		for _, text := range p.fewSteps() {
			show.note(report.Warning(study.Name, text))
		}
	}
	unhook := context.AfterFunc(ctx, func() {
		show.note("stopping at the next batch; interrupt again to end at once")
	})
	runner := search.Runner{Store: db, Trainer: p.train, Workers: workers, Notify: show.event, Attempt: p.attempt}
	sum, err := runner.Run(ctx, study, p.decides, trials)
	unhook()
	show.close()
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "igcsearch: stopped with %d of %s left; all finished epochs are in %s. Go on with:\n  %s\n",
			sum.Left, count(len(trials), "trial"), o.db, o.again)
	}
	if err != nil {
		return err
	}
	if sum.Stopped {
		fmt.Fprintf(stderr, "igcsearch: %s: %s, with %d of %s left; all finished epochs are in %s. Go on with a larger one (--set), or without:\n  %s\n",
			study.Name, sum.Reason, sum.Left, count(len(trials), "trial"), o.db, o.again)
	} else if sum.Reason != "" && (sum.Left > 0 || study.Strategy != "") {
		left := ""
		if sum.Left > 0 {
			left = fmt.Sprintf("; %d of %s not trained to the end", sum.Left, count(len(trials), "trial"))
		}
		fmt.Fprintf(stderr, "igcsearch: %s: by the %s pictures, %s%s\n", study.Name, study.DecidingSplit(), sum.Reason, left)
	}

	r, err := readResults(ctx, db, study.Name, curves)
	if err != nil {
		return err
	}
	r.Warn(stderr)
	report.Warn(stderr, study.Name, r.AtChance(len(p.data.Classes)))
	if _, err := fmt.Fprintf(stdout, "%s\n\n%s", r.Caption(), r.SummaryTable()); err != nil {
		return err
	}
	if err := finish(ctx, o, db, r, stderr); err != nil {
		return err
	}
	if sum.Failed > 0 {
		for _, t := range r.Trials {
			if t.Status == search.Failed {
				return fmt.Errorf("run %s: %s failed, first %v seed %d: %s: mend that, then: %s retry %s",
					study.Name, count(sum.Failed, "trial"), t.System.Label(), t.Seed, t.Error, program(), o.named(study.Name))
			}
		}
	}
	return nil
}

// devices are what to train on.
type devices struct {
	train   *trainer.Trainer
	gpus    int            // 0: the processor trains
	attempt search.Attempt // template
}

func openDevices(dataDir string, on device, stderr io.Writer) (*devices, error) {
	gpus, err := on.gpus(stderr)
	if err != nil {
		return nil, err
	}
	names, isa, err := arithmetic(gpus)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // "" is stored as unknown
	return &devices{
		train: trainer.New(trainer.Options{DataDir: dataDir, Threads: 1, GPUs: gpus}), gpus: len(gpus),
		attempt: search.Attempt{
			Commit: build().commit, GoVersion: runtime.Version(), CPU: trainer.CPU(), ISA: isa,
			Device: names, Host: host, PID: os.Getpid(), Args: os.Args, Job: jobName(os.Getenv),
		},
	}, nil
}

// prepared is what run and worker train with, and which study.
type prepared struct {
	*devices
	study   search.Study // of the pictures that are there
	decides search.Strategy
	trials  []search.Trial
	data    trainer.Data
}

// prepare opens the devices and loads the pictures of a study.
func prepare(ctx context.Context, study search.Study, dataDir string, on device, stderr io.Writer) (*prepared, error) {
	d, err := openDevices(dataDir, on, stderr)
	if err != nil {
		return nil, err
	}
	decides, err := strategy.New(study)
	if err != nil {
		return nil, err
	}
	study, trials, data, err := planned(ctx, d.train, study, stderr)
	if err != nil {
		return nil, err
	}
	return &prepared{d, study, decides, trials, data}, nil
}

// planned is a study with what its pictures say of it, and its trials.
func planned(ctx context.Context, train *trainer.Trainer, study search.Study, stderr io.Writer) (search.Study, []search.Trial, trainer.Data, error) {
	data, err := train.Load(ctx, study)
	if err != nil {
		return study, nil, data, err
	}
	identify(&study, data, stderr)
	return study, study.Trials(data.Shape, len(data.Classes)), data, nil
}

// headline says what is about to be trained, and on what.
func (p *prepared) headline(workers int) string {
	on := p.attempt.ISA
	if p.gpus > 0 {
		on = fmt.Sprintf("%s (%s)", count(p.gpus, "GPU"), p.attempt.Device)
	}
	return fmt.Sprintf("%s: %s × %s, %s each, on %s (%s); %s, %s",
		p.study.Name, networks(p.study), count(p.study.Seeds, "seed"), count(p.study.Epochs, "epoch"),
		report.DatasetLabel(p.study.Dataset), pictures(p.data), count(workers, "worker"), on)
}

// workers is how many trials to train at once: as the flag or the study says, or
// as many as the devices are fastest with. stored are the trials as they stand.
func (p *prepared) workers(ctx context.Context, flag automatic, stored func() ([]search.Trial, error)) (int, error) {
	if n := cmp.Or(flag.n, p.study.Workers); !flag.auto && n > 0 {
		return n, nil
	}
	if p.gpus == 0 {
		return p.train.Workers(ctx, p.study)
	}
	// More than have work would hold memory for nothing; and a GPU, which is
	// asked by measuring, is not asked for a study that is complete.
	there, err := stored()
	if err != nil {
		return 0, err
	}
	left := len(p.trials)
	for _, t := range there {
		if t.Status.Finished() {
			left--
		}
	}
	if left < 1 {
		return 1, nil
	}
	n, err := p.train.Workers(ctx, p.study)
	return min(n, left), err
}

// loadStudy is studies.Load; an error in a --set is one of usage.
func loadStudy(nameOrFile string, set []string) (search.Study, error) {
	study, err := studies.Load(nameOrFile, set)
	if errors.Is(err, studies.ErrSet) {
		err = usageError{err}
	}
	return study, err
}

// named is a study for a command line: with its database, unless that goes
// without saying.
func (o runOptions) named(study string) string {
	if o.db != defaultDB {
		return quote(study) + " --db " + quote(o.db)
	}
	return quote(study)
}

// finish draws the figure and says what lies where.
func finish(ctx context.Context, o runOptions, db *store.DB, r report.Results, stderr io.Writer) error {
	if r.Done() > 0 && !o.noFigure {
		if err := drawFigure(r, o.figure); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "figure    %s\n", o.figure)
	}
	name := o.named(r.Study.Name)
	fmt.Fprintf(stderr, "database  %s\nnext      %s analyze %s\n          %s plot %s -o figure.svg\n          %s export %s --format csv\n", o.db, program(), name, program(), name, program(), name)
	return nil
}

// identify notes in a study which pictures it is of, and says which are left
// out.
func identify(s *search.Study, d trainer.Data, stderr io.Writer) {
	const named = 3
	s.DataSum, s.Unreadable = d.Sum, len(d.Unreadable)
	if n := len(d.Unreadable); n > 0 {
		verb, names := "are", strings.Join(d.Unreadable[:min(n, named)], ", ")
		if n == 1 {
			verb = "is"
		}
		if n > named {
			names += ", …"
		}
		fmt.Fprintf(stderr, "igcsearch: warning: %s: %s cannot be read and %s left out: %s\n", s.Name, count(n, "picture"), verb, names)
	}
}

// pictures says how many pictures are used for what.
func pictures(d trainer.Data) string {
	parts := []string{fmt.Sprintf("%d training", d.Train)}
	if d.Validation > 0 {
		parts = append(parts, fmt.Sprintf("%d validation", d.Validation))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d test", d.Test)), ", ") + " pictures"
}

// commandLine is the command that started this process, for a shell.
func commandLine() string {
	words := []string{program()}
	for _, a := range os.Args[1:] {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// program is what to type to start this program again.
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok && byGoRun() && strings.HasPrefix(info.Path, info.Main.Path+"/") {
		return "go run ." + strings.TrimPrefix(info.Path, info.Main.Path) // which removes the file it runs
	}
	return quote(os.Args[0])
}

// byGoRun reports whether go run started this process.
func byGoRun() bool {
	path, err := os.Executable()
	return err == nil && strings.Contains(path, string(filepath.Separator)+"go-build") && !strings.HasSuffix(path, ".test")
}

// quote makes s one word of a shell.
func quote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,+@%", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// networks counts those of a study, as pairs if it is of pairs.
func networks(s search.Study) string {
	if s.OfPairs() {
		return count(len(s.Pairs), "pair")
	}
	return count(len(s.SystemList()), "network")
}
