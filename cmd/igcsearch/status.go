package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/store"
)

type statusOptions struct {
	study  string
	db     string
	format string
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status STUDY",
		Short: "Show where the trials of a study stand",
		Long: `status shows every trial of a study: pending, running, done, diverged (its loss
was not finite), failed (igcsearch retry tries it again), or interrupted (it was
running when its process was killed; any run takes it up again). It can be asked while the study runs.
Workers on other machines are shown with their job, node and device, and what they
train. --db also takes the access file of a coordinator.`,
		Example: `  igcsearch status quickstart

  # for other programs
  igcsearch status quickstart --format json`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runStatus(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.format, "format", "how to print the trials", "table", "json")
	return cmd
}

// trialJSON is one trial as status and export print it.
type trialJSON struct {
	System            string        `json:"system,omitempty"` // in place of L and M, if the study is not of pairs
	L                 int           `json:"L"`
	M                 int           `json:"M"`
	Seed              int           `json:"seed"`
	Status            search.Status `json:"status"`
	Epoch             int           `json:"epoch"`
	Epochs            int           `json:"epochs"`
	TrainLoss         *float64      `json:"train_loss"` // null before the first epoch, or if not finite
	TrainCorrect      int           `json:"train_correct"`
	TrainTotal        int           `json:"train_total"`
	ValidationCorrect int           `json:"validation_correct"`
	ValidationTotal   int           `json:"validation_total"` // 0: not evaluated
	TestCorrect       int           `json:"test_correct"`
	TestTotal         int           `json:"test_total"` // 0: not evaluated
	ValidationLoss    lossJSON      `json:"validation_loss"`
	TestLoss          lossJSON      `json:"test_loss"`
	Error             string        `json:"error"`
	// Failure is the kind of Error; absent if there is none.
	Failure search.Failure `json:"failure,omitempty"`
}

func (r results) toJSON(t search.Trial) trialJSON {
	j := trialJSON{
		L: t.System.Pair().L, M: t.System.Pair().M, Seed: t.Seed, Status: t.Status, Epoch: t.Epoch, Epochs: t.Epochs,
		TrainLoss: finite(t.Last), TrainCorrect: t.Last.TrainCorrect, TrainTotal: t.Last.TrainTotal,
		ValidationCorrect: t.Last.ValidationCorrect, ValidationTotal: t.Last.ValidationTotal,
		TestCorrect: t.Last.TestCorrect, TestTotal: t.Last.TestTotal,
		ValidationLoss: lossJSON(t.Last.ValidationLoss), TestLoss: lossJSON(t.Last.TestLoss), Error: t.Error, Failure: t.Failure,
	}
	if !r.study.OfPairs() {
		j.System = t.System.String()
	}
	return j
}

// finite is the training loss of an epoch as JSON can have it.
func finite(e search.Epoch) *float64 {
	if e.Number == 0 || math.IsNaN(e.TrainLoss) || math.IsInf(e.TrainLoss, 0) {
		return nil
	}
	return &e.TrainLoss
}

// lossJSON is the loss of an evaluation in JSON: null if there is none, and in
// quotes if it is infinite, for which JSON has no number.
type lossJSON float64

const infinity = `"Infinity"`

func (l lossJSON) MarshalJSON() ([]byte, error) {
	switch {
	case l == 0:
		return []byte("null"), nil
	case math.IsInf(float64(l), 1):
		return []byte(infinity), nil
	}
	return json.Marshal(float64(l))
}

func (l *lossJSON) UnmarshalJSON(text []byte) error {
	if string(text) == infinity {
		*l = lossJSON(math.Inf(1))
		return nil
	}
	return json.Unmarshal(text, (*float64)(l)) // null leaves it 0
}

func runStatus(ctx context.Context, o statusOptions, stdout io.Writer) error {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, store.Histories)
	if err != nil {
		return err
	}
	workers, err := elsewhere(ctx, db, o.study)
	if err != nil {
		return err
	}
	if o.format == "json" {
		trials := []trialJSON{}
		for _, t := range r.trials {
			trials = append(trials, r.toJSON(t.Trial))
		}
		return printJSON(stdout, struct {
			Study   string      `json:"study"`
			Title   string      `json:"title"`
			Dataset string      `json:"dataset"`
			Curve   string      `json:"curve"`
			Trials  []trialJSON `json:"trials"`
			// Workers on other machines; absent if there are none.
			Workers []workerJSON `json:"workers,omitempty"`
		}{r.study.Name, r.study.Title, r.study.Dataset, r.study.Split, trials, workers})
	}

	which := []string{"L", "M"}
	if !r.study.OfPairs() {
		which = []string{"<network"}
	}
	t := newTable(append(which, "seed", "<status", "epoch", "train loss", "validation (%)", "test (%)", "<error")...)
	for _, trial := range r.trials {
		loss := ""
		if trial.Epoch > 0 {
			loss = fmt.Sprintf("%.4f", trial.Last.TrainLoss)
		}
		name := []string{trial.System.Label()}
		if p := trial.System.Pair(); r.study.OfPairs() {
			name = []string{strconv.Itoa(p.L), strconv.Itoa(p.M)}
		}
		t.add(append(name, strconv.Itoa(trial.Seed), string(trial.Status),
			fmt.Sprintf("%d/%d", trial.Epoch, trial.Epochs), loss,
			percent(trial.Last.ValidationCorrect, trial.Last.ValidationTotal), percent(trial.Last.TestCorrect, trial.Last.TestTotal), trial.Error)...)
	}
	strategy := ""
	if r.study.Strategy != "" {
		strategy = fmt.Sprintf("strategy %s: %s\n", r.study.Strategy, r.wanted())
	}
	counts := r.counts()
	if slices.ContainsFunc(r.trials, func(t search.TrialState) bool { return t.Status == search.Running }) {
		counts += "; " + progress.TimeLeft(r.forecast(), r.study)
	}
	if _, err = fmt.Fprintf(stdout, "%s on %s: %s: %s\n%s\n%s", r.study.Name, datasetLabel(r.study.Dataset),
		count(len(r.trials), "trial"), counts, strategy, t); err != nil || len(workers) == 0 {
		return err
	}
	t = newTable("<job", "<node", "process", "<device", "<trial")
	for _, w := range workers {
		trial := ""
		if w.Trial != "" {
			trial = fmt.Sprintf("%s seed %d", w.Trial, w.Seed)
		}
		t.add(w.Job, w.Node, strconv.Itoa(w.PID), w.Device, trial)
	}
	_, err = fmt.Fprintf(stdout, "\n%s", t)
	return err
}

// workerJSON is a worker on another machine as status prints it, once for each
// trial that it has.
type workerJSON struct {
	Job    string `json:"job"` // of the scheduler, "" outside one
	Node   string `json:"node"`
	PID    int    `json:"pid"`
	Device string `json:"device"` // "" between two trials
	Trial  string `json:"trial"`  // name of the network, "" between two trials
	Seed   int    `json:"seed"`
}

// elsewhere lists the workers on other machines that have a trial of a study, or
// none at all.
func elsewhere(ctx context.Context, db *store.DB, study string) (list []workerJSON, err error) {
	workers, err := db.Workers(ctx)
	for _, w := range workers {
		if !w.Remote || w.Study != "" && w.Study != study {
			continue
		}
		row := workerJSON{Job: w.Job, Node: w.Host, PID: w.PID, Device: w.Device, Seed: w.Seed}
		if w.Study != "" {
			row.Trial = w.System.Label()
		}
		list = append(list, row)
	}
	return list, err
}

// decide asks the study's strategy what it wants next.
func (r results) decide() search.Decision {
	decides, err := strategy.New(r.study)
	if err != nil { // a newer program's: Normalize knows all others
		return search.Decision{Reason: err.Error()}
	}
	states := slices.Clone(r.trials)
	for i := range states {
		if states[i].Status == interrupted {
			states[i].Status = search.Pending
		}
	}
	return decides.Decide(r.study, states)
}

// wanted is what the strategy says, in words.
func (r results) wanted() string {
	d := r.decide()
	switch {
	case len(d.Next) > 0:
		return fmt.Sprintf("%s to be trained on now; others may follow, or never", count(len(d.Next), "trial"))
	case d.Reason == "":
		return "it waits for what is running"
	}
	return d.Reason
}

// percent is empty for what was not evaluated.
func percent(correct, total int) string {
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", 100*float64(correct)/float64(total))
}
