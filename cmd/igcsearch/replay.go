package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/studies"
)

type replayOptions struct {
	study, db, strategy, format string
	set                         []string
	repeat, workers             positive
	seeds                       positive // 0: all
	epochs                      positive // 0: no bound
}

func newReplayCommand() *cobra.Command {
	o := replayOptions{repeat: 1, workers: 1}
	cmd := &cobra.Command{
		Use:   "replay STUDY",
		Short: "Ask what a strategy would have spent on a complete study, and found",
		Long: `replay runs a strategy over the recorded results of a study in place of training.
It prints how many trials and epochs the strategy would have needed, which
network it would have answered, and whether that is the best: the one of the
highest mean over all recorded trials. STUDY is a study of the database of which
every trial has ended, or a file that export wrote (csv or json; halving needs
its --epochs).

--repeat numbers the seeds and orders the networks anew each time, and prints
means. With --seeds each of these orders gives other seeds, and grid too may miss
the best. random trains networks in random order, each from all seeds, until
--epochs are spent; beside others it gets what they spent.`,
		Example: `  igcsearch replay fig3a-short --strategy race --set race.alpha=0.1

  # all strategies, over a hundred orders of the seeds, from a file
  igcsearch export quickstart --format csv --epochs > epochs.csv
  igcsearch replay epochs.csv --repeat 100

  # as if the study had had fewer seeds
  igcsearch replay epochs.csv --repeat 100 --seeds 1`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runReplay(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.strategy, "strategy", "what to replay", "all", search.StrategyGrid, strategyRandom, search.StrategyHalving, search.StrategyRace)
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "override one setting of a strategy, as `key=value`, like race.alpha=0.1; may be repeated")
	cmd.Flags().Var(&o.repeat, "repeat", "how many orders of the seeds and networks to replay")
	cmd.Flags().Var(&o.seeds, "seeds", "replay a study of so many seeds, other ones in each order (default all)")
	cmd.Flag("seeds").DefValue = ""
	cmd.Flags().Var(&o.epochs, "epochs", "stop after so many epochs (default no bound)")
	cmd.Flag("epochs").DefValue = ""
	cmd.Flags().Var(&o.workers, "workers", "trials at once")
	addChoice(cmd, &o.format, "format", "how to print", "table", "json")
	return cmd
}

// strategyRandom is what strategies are compared with.
const strategyRandom = "random"

func runReplay(ctx context.Context, o replayOptions, stdout io.Writer) error {
	study, recorded, err := o.read(ctx)
	if err != nil {
		return err
	}
	if err := o.check(study); err != nil {
		return err
	}
	out := report.Replay{Trials: len(recorded), Best: strategy.FindAnswer(study, recorded), Orders: int(o.repeat)}
	if o.seeds > 0 {
		study.Seeds = int(o.seeds)
	}
	out.Study = study
	grid, err := strategy.Replay(strategy.Grid(), study, recorded, strategy.ReplayOptions{Workers: len(recorded)})
	if err != nil {
		return fmt.Errorf("replay %s: %w; export the study (csv, --epochs --times), "+
			"import it with --set strategy=grid --set name=NEW, and run that to its end", study.Name, err)
	}
	out.Epochs = grid.Epochs
	replay := func(name string, s search.Study, decides search.Strategy, bound int) error {
		row := report.ReplayRow{Strategy: name}
		row.Spent, err = strategy.ReplayOrders(ctx, decides, s, recorded, strategy.ReplayOptions{Workers: int(o.workers), Epochs: bound}, out.Orders)
		if err != nil {
			return fmt.Errorf("replay %s: %s: %w", study.Name, name, err)
		}
		out.Rows = append(out.Rows, row)
		return nil
	}
	names := []string{o.strategy}
	if o.strategy == "all" {
		names = search.Strategies
	}
	for _, name := range names {
		s, decides, err := o.strategyOf(study, name)
		if err != nil && o.strategy == "all" && len(o.set) == 0 { // this study does not allow it
			out.Rows = append(out.Rows, report.ReplayRow{Strategy: name, Spent: strategy.Spent{Reason: message(err)}})
			continue
		}
		if err != nil {
			return usageError{err}
		}
		if err := replay(name, s, decides, int(o.epochs)); err != nil {
			return err
		}
		if o.strategy == "all" && name != search.StrategyGrid {
			spent := int(out.Rows[len(out.Rows)-1].Epochs + 0.5)
			if err := replay("random, as "+name, study, strategy.Random(), spent); err != nil {
				return err
			}
		}
	}
	return out.Print(stdout, o.format)
}

// check refuses flags that do not fit the study.
func (o replayOptions) check(study search.Study) error {
	for _, assignment := range o.set {
		table, _, _ := strings.Cut(strings.TrimSpace(assignment), ".")
		if table != search.StrategyHalving && table != search.StrategyRace || o.strategy != "all" && o.strategy != table {
			return usageError{fmt.Errorf("--set %q: want a setting of the strategy that is replayed, like race.alpha=0.1: what was recorded cannot be set", assignment)}
		}
	}
	if o.strategy == strategyRandom && o.epochs == 0 {
		return usageError{errors.New("--strategy random does not end by itself: give --epochs N")}
	}
	if int(o.seeds) > study.Seeds {
		return usageError{fmt.Errorf("--seeds %d: %s has %d", o.seeds, study.Name, study.Seeds)}
	}
	return nil
}

// strategyOf is a recorded study as if it had had a strategy, with those of the settings that are the strategy's.
func (o replayOptions) strategyOf(study search.Study, name string) (search.Study, search.Strategy, error) {
	if name == strategyRandom {
		return study, strategy.Random(), nil
	}
	var own []string
	for _, assignment := range o.set {
		if strings.HasPrefix(strings.TrimSpace(assignment), name+".") {
			own = append(own, assignment)
		}
	}
	s, err := studies.Change(study.WithStrategy(name), own)
	if err != nil {
		return s, nil, err
	}
	decides, err := strategy.New(s)
	return s, decides, err
}

// read reads a study with all its epochs, from the database or from an exported file.
func (o replayOptions) read(ctx context.Context) (search.Study, []search.TrialState, error) {
	if ext := filepath.Ext(o.study); ext == ".csv" || ext == ".json" {
		file, err := readExported(o.study)
		if err != nil {
			return search.Study{}, nil, fmt.Errorf("replay %w", err)
		}
		s, trials, err := file.Recorded(strings.TrimSuffix(filepath.Base(o.study), ext))
		if err != nil {
			err = fmt.Errorf("replay %s: %w", o.study, err)
		}
		return s, trials, err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return search.Study{}, nil, err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, store.Histories)
	return r.Study, r.Planned, err
}
