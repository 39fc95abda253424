package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/studies"
)

type replayOptions struct {
	study    string
	db       string
	strategy string
	set      []string
	repeat   positive
	seeds    positive // 0: all
	epochs   positive // 0: no bound
	workers  positive
	format   string
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

const strategyRandom = "random"

// replayRow is what one strategy did, as JSON; means over the repeats.
type replayRow struct {
	Strategy string  `json:"strategy"`
	Trials   float64 `json:"trials"`
	Epochs   float64 `json:"epochs"`
	Share    float64 `json:"share"`    // of the epochs of grid
	Answer   string  `json:"answer"`   // the most frequent; "" if none
	Accuracy float64 `json:"accuracy"` // mean over all recorded trials of the answer, a fraction
	Best     float64 `json:"best"`     // share of the repeats whose answer is the best of all that is recorded
	Regret   float64 `json:"regret"`   // how far the answer lies below that, a fraction
	Reason   string  `json:"reason"`   // of the last repeat
}

func runReplay(ctx context.Context, o replayOptions, stdout io.Writer) error {
	study, recorded, err := readRecorded(ctx, o)
	if err != nil {
		return err
	}
	for _, assignment := range o.set {
		table, _, _ := strings.Cut(strings.TrimSpace(assignment), ".")
		if table != search.StrategyHalving && table != search.StrategyRace || o.strategy != "all" && o.strategy != table {
			return usageError{fmt.Errorf("--set %q: want a setting of the strategy that is replayed, like race.alpha=0.1: what was recorded cannot be set", assignment)}
		}
	}
	if o.strategy == strategyRandom && o.epochs == 0 {
		return usageError{errors.New("--strategy random: it stops when told to: give --epochs N")}
	}
	best := strategy.FindAnswer(study, recorded)
	if n := int(o.seeds); n > 0 {
		if n > study.Seeds {
			return usageError{fmt.Errorf("--seeds %d: %s has %d", n, study.Name, study.Seeds)}
		}
		study.Seeds = n
	}
	grid, err := strategy.Replay(gridOf(study), study, recorded, strategy.ReplayOptions{Workers: len(recorded)})
	if err != nil {
		return fmt.Errorf("replay %s: %w; export the study (csv, --epochs --times), "+
			"import it with --set strategy=grid --set name=NEW, and run that to its end", study.Name, err)
	}

	var rows []replayRow
	replay := func(name string, s search.Study, strategy search.Strategy, bound int) error {
		row, err := replayStrategy(ctx, o, s, strategy, recorded, bound)
		if err != nil {
			return fmt.Errorf("replay %s: %s: %w", study.Name, name, err)
		}
		row.Strategy = name
		rows = append(rows, row)
		return nil
	}
	names := []string{o.strategy}
	if o.strategy == "all" {
		names = search.Strategies
	}
	for _, name := range names {
		if name == strategyRandom {
			if err := replay(name, study, strategy.Random(), int(o.epochs)); err != nil {
				return err
			}
			continue
		}
		s, err := withStrategy(study, name, o.set)
		if err != nil {
			if o.strategy == "all" && len(o.set) == 0 {
				rows = append(rows, replayRow{Strategy: name, Reason: message(err)})
				continue
			}
			return usageError{err}
		}
		decides, err := strategy.New(s)
		if err != nil {
			return err
		}
		if err := replay(name, s, decides, int(o.epochs)); err != nil {
			return err
		}
		if o.strategy == "all" && name != search.StrategyGrid {
			if err := replay("random, as "+name, study, strategy.Random(), int(rows[len(rows)-1].Epochs+0.5)); err != nil {
				return err
			}
		}
	}
	if o.format == "json" {
		return printJSON(stdout, struct {
			Study   string      `json:"study"`
			Split   string      `json:"split"` // whose accuracies decide
			Trials  int         `json:"trials"`
			Epochs  int         `json:"epochs"` // of grid
			Answer  string      `json:"answer"` // of all that is recorded
			Repeats int         `json:"repeats"`
			Rows    []replayRow `json:"strategies"`
		}{study.Name, study.DecidingSplit(), len(recorded), grid.Epochs, best.System.Label(), int(o.repeat), rows})
	}
	fmt.Fprintf(stdout, "%s: %s recorded; the %s pictures decide: best is %s at %.2f %%; grid takes %s\n\n", study.Name, count(len(recorded), "trial"),
		study.DecidingSplit(), best.System.Label(), 100*best.Accuracy, count(grid.Epochs, "epoch"))
	number := func(v float64) string { // of a mean one decimal
		if o.repeat > 1 {
			return fmt.Sprintf("%.1f", v)
		}
		return fmt.Sprintf("%.0f", v)
	}
	t := newTable("<strategy", "trials", "epochs", "of grid (%)", "<answer", "accuracy (%)", "best (%)", "regret (points)")
	for _, r := range rows {
		if r.Epochs == 0 {
			t.add(r.Strategy, "–", "–", "–", "–", "–", "–", "–")
			continue
		}
		t.add(r.Strategy, number(r.Trials), number(r.Epochs), fmt.Sprintf("%.1f", 100*r.Share),
			r.Answer, fmt.Sprintf("%.2f", 100*r.Accuracy), fmt.Sprintf("%.0f", 100*r.Best), fmt.Sprintf("%.2f", 100*r.Regret))
	}
	fmt.Fprint(stdout, t)
	ends := "\n"
	for _, r := range rows {
		if r.Reason != "" && (o.repeat == 1 || r.Epochs == 0) {
			ends += fmt.Sprintf("%s: %s\n", r.Strategy, r.Reason)
		}
	}
	if ends == "\n" {
		return nil
	}
	_, err = fmt.Fprint(stdout, ends)
	return err
}

func gridOf(s search.Study) search.Strategy {
	s.Strategy = search.StrategyGrid
	decides, err := strategy.New(s)
	if err != nil {
		panic(err) // the name is ours
	}
	return decides
}

// withStrategy is a recorded study as if it had had a strategy, with those of the
// settings that are the strategy's.
func withStrategy(s search.Study, name string, set []string) (search.Study, error) {
	var own []string
	for _, assignment := range set {
		if strings.HasPrefix(strings.TrimSpace(assignment), name+".") {
			own = append(own, assignment)
		}
	}
	return studies.Change(s.WithStrategy(name), own)
}

// replayStrategy replays one strategy as often as asked.
func replayStrategy(ctx context.Context, o replayOptions, s search.Study, decides search.Strategy, recorded []search.TrialState, bound int) (replayRow, error) {
	var row replayRow
	answers := map[string]int{}
	for i := range int(o.repeat) {
		if err := ctx.Err(); err != nil {
			return row, err
		}
		trials := recorded
		if o.repeat > 1 || decides == strategy.Random() {
			trials = strategy.Shuffle(recorded, rand.New(rand.NewPCG(uint64(i), 0)))
		}
		r, err := strategy.Replay(decides, s, trials, strategy.ReplayOptions{Workers: int(o.workers), Epochs: bound})
		if err != nil {
			return row, err
		}
		whole, err := strategy.Replay(gridOf(s), s, trials, strategy.ReplayOptions{Workers: len(trials)})
		if err != nil {
			return row, err
		}
		row.Share += float64(r.Epochs) / float64(whole.Epochs)
		row.Trials += float64(r.Begun)
		row.Epochs += float64(r.Epochs)
		row.Accuracy += r.Truth
		row.Regret += r.Regret
		row.Reason = r.Reason
		if r.Answer.Trials == 0 {
			continue
		}
		if r.Regret == 0 {
			row.Best++
		}
		name := r.System.Label()
		if answers[name]++; answers[name] > answers[row.Answer] || answers[name] == answers[row.Answer] && name < row.Answer {
			row.Answer = name
		}
	}
	for _, sum := range []*float64{&row.Trials, &row.Epochs, &row.Share, &row.Accuracy, &row.Regret, &row.Best} {
		*sum /= float64(o.repeat)
	}
	return row, nil
}

// readRecorded reads a study with all its epochs, from the database or from an
// exported file.
func readRecorded(ctx context.Context, o replayOptions) (search.Study, []search.TrialState, error) {
	switch filepath.Ext(o.study) {
	case ".csv", ".json":
		f, err := os.Open(o.study)
		if err != nil {
			return search.Study{}, nil, err
		}
		defer f.Close()
		var s search.Study
		var trials []search.TrialState
		if filepath.Ext(o.study) == ".csv" {
			s, trials, err = readExportedCSV(f, o.study)
		} else {
			s, trials, err = readExportedJSON(f)
		}
		if err != nil {
			return s, nil, fmt.Errorf("%s: %w", o.study, err)
		}
		return s, trials, nil
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return search.Study{}, nil, err
	}
	defer db.Close()
	found, err := findStudy(ctx, db, o.study, store.Histories)
	return found.Study, found.Trials, err
}

// collect adds one exported row, an epoch of a trial, to the trials.
func collect(trials []search.TrialState, t search.Trial) []search.TrialState {
	if n := len(trials); n == 0 || trials[n-1].System != t.System || trials[n-1].Seed != t.Seed {
		trials = append(trials, search.TrialState{Trial: t})
	}
	last := &trials[len(trials)-1]
	last.Trial = t
	if t.Epoch > 0 {
		last.History = append(last.History, t.Last)
	}
	return trials
}

func readExportedJSON(r io.Reader) (s search.Study, trials []search.TrialState, err error) {
	var file struct {
		Settings search.Study `json:"settings"`
		Trials   []struct {
			trialJSON
			Params int `json:"params"`
		} `json:"trials"`
	}
	if err := json.NewDecoder(r).Decode(&file); err != nil {
		return s, nil, fmt.Errorf("want what export --format json writes: %w", err)
	}
	s = file.Settings
	for _, x := range file.Trials {
		system := space.PairSystem(space.Pair{L: x.L, M: x.M})
		system.Variant = s.Variant
		if x.System != "" {
			if system, err = space.ParseSystem(x.System); err != nil {
				return s, nil, err
			}
		}
		trials = collect(trials, search.Trial{Key: search.Key{System: system, Seed: x.Seed}, Status: x.Status, Epoch: x.Epoch, Epochs: x.Epochs, Params: x.Params,
			Last: search.Epoch{Number: x.Epoch, ValidationCorrect: x.ValidationCorrect, ValidationTotal: x.ValidationTotal, TestCorrect: x.TestCorrect, TestTotal: x.TestTotal}})
	}
	return s, trials, complete(s, trials)
}

// readExportedCSV takes the settings that strategies ask for from the rows.
func readExportedCSV(r io.Reader, file string) (s search.Study, trials []search.TrialState, err error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return s, nil, err
	}
	column := map[string]int{}
	if len(rows) > 0 {
		for i, name := range rows[0] {
			column[name] = i
		}
	}
	which := []string{"L", "M"}
	if _, ok := column["network"]; ok {
		which = []string{"network", "depth"}
	}
	for _, name := range append(which, "params", "seed", "status", "epoch", "epochs", "validation_correct", "validation_total", "test_correct", "test_total") {
		if _, ok := column[name]; !ok {
			return s, nil, fmt.Errorf("no column %q: want what export --format csv writes", name)
		}
	}
	s = search.Default()
	s.Name = strings.TrimSuffix(filepath.Base(file), ".csv")
	s.Dataset, s.Seeds, s.Epochs, s.EvaluateEvery = "synthetic", 0, 0, 0
	s.Pairs = []string{"1x1"} // no strategy asks which networks the study lists
	deep := false             // networks differ in depth
	if at, ok := column["depth"]; ok {
		deep = slices.ContainsFunc(rows[1:], func(row []string) bool { return row[at] != rows[1][at] })
	}
	before := 0 // epoch of the trial's last evaluation
	for i, row := range rows[1:] {
		number := func(name string) int {
			n, e := strconv.Atoi(row[column[name]])
			if e != nil && err == nil {
				err = fmt.Errorf("line %d: %s %q: want a whole number", i+2, name, row[column[name]])
			}
			return n
		}
		t := search.Trial{Key: search.Key{Seed: number("seed")}, Status: search.Status(row[column["status"]]), Epoch: number("epoch"), Epochs: number("epochs"), Params: number("params")}
		t.Last = search.Epoch{Number: t.Epoch, ValidationCorrect: number("validation_correct"), ValidationTotal: number("validation_total"),
			TestCorrect: number("test_correct"), TestTotal: number("test_total")}
		if at, ok := column["network"]; ok {
			system, e := space.ParseSystem(row[at])
			if e != nil {
				return s, nil, fmt.Errorf("line %d: %w", i+2, e)
			}
			if t.System = system; deep {
				t.System.Depth = number("depth")
			}
		} else {
			t.System = space.PairSystem(space.Pair{L: number("L"), M: number("M")})
		}
		if err != nil {
			return s, nil, err
		}
		s.Seeds, s.Epochs, s.Validation = max(s.Seeds, t.Seed+1), max(s.Epochs, t.Epochs), max(s.Validation, t.Last.ValidationTotal)
		known := len(trials)
		if trials = collect(trials, t); len(trials) > known {
			before = 0
		}
		if t.Last.ValidationTotal+t.Last.TestTotal > 0 {
			// The last evaluation may come early: the longest gap is the rule.
			s.EvaluateEvery, before = max(s.EvaluateEvery, t.Epoch-before), t.Epoch
		}
	}
	if err := complete(s, trials); err != nil {
		return s, nil, err
	}
	s, err = s.Normalize()
	return s, trials, err
}

// complete reports a trial that is not in the file, or is there twice.
func complete(s search.Study, trials []search.TrialState) error {
	seen := map[space.System]map[int]bool{}
	for _, t := range trials {
		if seen[t.System] == nil {
			seen[t.System] = map[int]bool{}
		}
		if t.Seed < 0 || t.Seed >= s.Seeds || seen[t.System][t.Seed] {
			return fmt.Errorf("%v is there twice or is no seed of the study", t.Key)
		}
		seen[t.System][t.Seed] = true
	}
	for _, t := range trials {
		if n := len(seen[t.System]); n != s.Seeds {
			return fmt.Errorf("%s has %d of %s: want every trial of the study", t.System.Label(), n, count(s.Seeds, "seed"))
		}
	}
	if len(trials) == 0 {
		return errors.New("it has no trials")
	}
	return nil
}
