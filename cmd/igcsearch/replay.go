package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/studies"
)

type replayOptions struct {
	study, db, strategy, format string
	at                          point
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
		Long: `replay runs a strategy over the recorded results of a study, without training. It
prints how many trials and epochs the strategy would have needed, which network it
would have chosen, and whether that is the best network, which has the highest mean
over all recorded trials. STUDY is a study of the database whose trials have all
ended, or a csv or json file that export wrote (halving needs its --epochs).

--repeat replays several orders, each with other numbers for the seeds and another
order of the networks, and prints means. With --seeds each order has other seeds,
so that grid too may miss the best network. random trains the networks in random
order, each from all seeds, until --epochs are spent. Beside another strategy it
spends as many epochs as that one.

wilcoxon-pruner (Optuna), irace and smac3 are the rules by which these tools give
more seeds to some networks, with the tools' defaults and rewritten here. They are
only to compare with: no study can be trained by them.`,
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
	cmd.Flags().Var(&o.at, "at", "of a study with lists of settings the trials with these values, like learning_rate=0.05")
	addChoice(cmd, &o.strategy, "strategy", "what to replay",
		slices.Concat([]string{"all", search.StrategyGrid, strategyRandom, search.StrategyHalving, search.StrategyRace,
			search.StrategyPeak}, strategy.Peers)...)
	cmd.Flags().StringArrayVar(&o.set, "set", nil,
		"override one setting of a strategy, as `key=value`, like race.alpha=0.1; may be repeated")
	cmd.Flags().Var(&o.repeat, "repeat", "how many orders of the seeds and networks to replay")
	cmd.Flags().Var(&o.seeds, "seeds", "replay a study of so many seeds, others in each order (default all)")
	cmd.Flag("seeds").DefValue = ""
	cmd.Flags().Var(&o.epochs, "epochs", "stop after so many epochs (default no bound)")
	cmd.Flag("epochs").DefValue = ""
	cmd.Flags().Var(&o.workers, "workers", "trials at once")
	addChoice(cmd, &o.format, "format", "how to print", "table", "json")
	return cmd
}

// atPoint returns the trials at one point of a study with lists of settings: strategies compare networks with one recipe.
func (o replayOptions) atPoint(
	study search.Study, recorded []search.TrialState,
) (search.Study, []search.TrialState, error) {
	p, err := o.at.of(study)
	if err != nil {
		return study, nil, err
	}
	r := report.Results{Study: study, Planned: recorded}.At(p)
	return r.Study, r.Planned, nil
}

// strategyRandom is what strategies are compared with.
const strategyRandom = "random"

func runReplay(ctx context.Context, o replayOptions, stdout io.Writer) error {
	study, recorded, err := readRecorded(ctx, o.study, o.db)
	if err != nil {
		return err
	}
	if study, recorded, err = o.atPoint(study, recorded); err != nil {
		return err
	}
	if err := o.check(study); err != nil {
		return err
	}
	out := report.Replay{Trials: len(recorded), Best: strategy.FindAnswer(study, recorded), Orders: int(o.repeat)}
	if out.Best.Trials == 0 {
		return fmt.Errorf("replay %s: all its trainings diverged, so there is no best network to find", study.Name)
	}
	if o.seeds > 0 {
		study.Seeds = study.Seeds[:o.seeds]
	}
	out.Study = study
	grid, err := strategy.Replay(strategy.Grid(), study, recorded, strategy.ReplayOptions{Workers: len(recorded)})
	if err != nil {
		return fmt.Errorf("replay %s: %w", study.Name, err)
	}
	out.Epochs = grid.Epochs
	replay := func(name string, s search.Study, decides search.Strategy, bound int) error {
		row := report.ReplayRow{Strategy: name}
		options := strategy.ReplayOptions{Workers: int(o.workers), Epochs: bound}
		row.Spent, err = strategy.ReplayOrders(ctx, decides, s, recorded, options, out.Orders)
		if err != nil {
			return fmt.Errorf("replay %s: %s: %w", study.Name, name, err)
		}
		out.Rows = append(out.Rows, row)
		return nil
	}
	names := []string{o.strategy}
	if o.strategy == "all" {
		names = slices.Concat(search.Strategies, strategy.Peers)
	}
	for _, name := range names {
		s, decides, err := o.strategyOf(study, name)
		allowed, all := err == nil, o.strategy == "all"
		if allowed {
			err = replay(name, s, decides, int(o.epochs))
		}
		var unrecorded *strategy.UnrecordedError
		switch {
		case all && errors.As(err, &unrecorded):
			err = unrecorded
			fallthrough
		case all && !allowed && len(o.set) == 0: // this study does not allow it
			out.Rows = append(out.Rows, report.ReplayRow{Strategy: name, Spent: strategy.Spent{Reason: message(err)}})
			continue
		case !allowed:
			return usageError{err}
		case err != nil:
			return err
		}
		if all && name != search.StrategyGrid && strategy.Peer(name) == nil {
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
		name, _, _ := strings.Cut(strings.TrimSpace(assignment), ".")
		isStrategy := name != search.StrategyGrid && slices.Contains(search.Strategies, name)
		if !isStrategy || o.strategy != "all" && o.strategy != name {
			return usageError{fmt.Errorf("--set %q: want a setting of the replayed strategy, like race.alpha=0.1:"+
				" what was recorded cannot be set", assignment)}
		}
	}
	if o.strategy == strategyRandom && o.epochs == 0 {
		return usageError{errors.New("--strategy random does not end by itself: give --epochs N")}
	}
	if n := len(study.Seeds); int(o.seeds) > n {
		return usageError{fmt.Errorf("--seeds %d: %s has %d", o.seeds, study.Name, n)}
	}
	return nil
}

// strategyOf is a recorded study as if it had had a strategy, with those of the settings that are the strategy's.
func (o replayOptions) strategyOf(study search.Study, name string) (search.Study, search.Strategy, error) {
	if name == strategyRandom {
		return study, strategy.Random(), nil
	}
	if peer := strategy.Peer(name); peer != nil {
		return study, peer, nil
	}
	var own []string
	for _, assignment := range o.set {
		if strings.HasPrefix(strings.TrimSpace(assignment), name+".") {
			own = append(own, assignment)
		}
	}
	s, err := studies.Change(study.WithStrategy(name), own)
	if err != nil {
		return s, nil, namingSet(err)
	}
	decides, err := strategy.New(s)
	return s, decides, err
}
