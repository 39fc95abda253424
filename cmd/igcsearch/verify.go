package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
)

type verifyOptions struct {
	study, db, data string
	device          device
	cell            cell
}

func newVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify STUDY --pair LxM",
		Short: "Train one network again and compare every bit with what is stored",
		Long: `verify trains one trial of a stored study again, from the start, and compares
learning rate, loss and counts of every epoch that is stored, bit by bit, and the
weights where a checkpoint is. It writes nothing into the database.

Other arithmetic has other bits, so it wants the instruction set or the kind of
GPU that the trial ran on, which --device auto chooses where it is there. Exit
code 0: all agree; 1: something differs.`,
		Example:           `  igcsearch verify quickstart --pair 9x2 --seed 0`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runVerify(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addDevice(cmd, &o.device)
	addCell(cmd, &o.cell, "to train")
	return cmd
}

func runVerify(ctx context.Context, o verifyOptions, stdout, stderr io.Writer) error {
	if err := o.cell.check("verified"); err != nil {
		return err
	}
	v, err := readCell(ctx, o)
	if err != nil {
		return err
	}
	gpus, err := o.device.gpus(stderr)
	if err != nil {
		return err
	}
	if able := v.able(gpus); len(able) > 0 || o.device.String() == "auto" {
		gpus = able
	}
	_, ours, err := arithmetic(gpus)
	if err != nil {
		return err
	}
	if len(v.isas) > 0 && !slices.ContainsFunc(strings.Split(ours, ", "), func(isa string) bool { return slices.Contains(v.isas, isa) }) {
		if !slices.ContainsFunc(v.isas, func(isa string) bool { return isa != "" }) {
			return fmt.Errorf("%s: it was imported, and an export does not say whose bits its results are: verify it where it was trained", v)
		}
		return fmt.Errorf("%s: it ran on %s, this would be %s, which has other bits: choose by --device, or by IGC_ISA", v, strings.Join(v.isas, ", "), ours)
	}
	// One training has all cores: their number changes no bit.
	train := trainer.New(trainer.Options{DataDir: o.data, Threads: runtime.GOMAXPROCS(0), Devices: gpu.On(gpus)})
	data, err := train.Load(ctx, v.job.Study)
	if err != nil {
		return err
	}
	if data.Sum != v.job.Study.DataSum && v.job.Study.DataSum != "" {
		return fmt.Errorf("%s: the pictures are others than those it was trained on: give their folder by --data", v)
	}
	fmt.Fprintf(stderr, "verify    %v: %s on %s\n", v.job.Key, count(len(v.epochs), "epoch"), ours)
	err = train.Train(ctx, v.job, v)
	switch {
	case errors.Is(err, errCompared):
	case errors.Is(err, search.ErrDiverged) && v.trial.Status == search.Diverged && v.at == len(v.epochs):
	case errors.Is(err, search.ErrDiverged):
		return fmt.Errorf("%s: it diverges, what is stored did not: %w", v, err)
	case err != nil:
		return err
	case v.trial.Status == search.Diverged:
		return fmt.Errorf("%s: stored as diverged (%s), it does not now", v, v.trial.Error)
	}
	if v.difference != "" {
		return fmt.Errorf("%s: first difference: %s", v, v.difference)
	}
	what := count(len(v.epochs), "epoch")
	if v.trial.Status == search.Diverged {
		what += ", then it diverges"
	}
	if v.weights {
		what += " and the weights"
	}
	_, err = fmt.Fprintf(stdout, "%v: %s: every bit agrees (%s)\n", v.job.Key, what, ours)
	return err
}

// recorded is what is stored of a trial. As a Reporter it compares a training
// with it and ends that at the first difference.
type recorded struct {
	job        search.Job
	trial      search.Trial
	epochs     []search.Epoch
	isas       []string // of the attempts that trained it
	checkpoint *search.Checkpoint

	at         int // epochs compared
	weights    bool
	difference string
}

// errCompared ends a training of which enough is known.
var errCompared = errors.New("compared")

func readCell(ctx context.Context, o verifyOptions) (*recorded, error) {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, store.Histories, store.Attempts)
	if err != nil {
		return nil, err
	}
	system, err := o.cell.of(r.study)
	if err != nil {
		return nil, err
	}
	v := &recorded{job: search.Job{Study: r.study, Key: search.Key{System: system, Seed: o.cell.seed}}}
	i := slices.IndexFunc(r.trials, func(t search.TrialState) bool { return t.System == system && t.Seed == o.cell.seed })
	if i < 0 {
		return nil, fmt.Errorf("%s: the study has no such trial: look at: igcsearch status %s", v, quote(r.study.Name))
	}
	v.trial, v.epochs = r.trials[i].Trial, r.trials[i].History
	if len(v.epochs) == 0 && v.trial.Status != search.Diverged {
		return nil, fmt.Errorf("%s: no epoch of it is stored: run the study first", v)
	}
	for _, a := range r.attempts {
		if a.System == system && a.Seed == o.cell.seed {
			v.isas = slices.Compact(append(v.isas, strings.Split(a.ISA, ", ")...))
		}
	}
	v.checkpoint, err = db.Checkpoint(ctx, r.study.Name, v.job.Key)
	return v, err
}

// able are the GPUs with the bits that are stored.
func (v *recorded) able(gpus []gpu.Info) (list []gpu.Info) {
	for _, g := range gpus {
		if slices.Contains(v.isas, g.Arithmetic()) {
			list = append(list, g)
		}
	}
	return list
}

func (v *recorded) String() string {
	return fmt.Sprintf("verify %s: %v", v.job.Study.Name, v.job.Key)
}

// Step implements search.Reporter.
func (v *recorded) Step(_, _, _ int) {}

// Epoch implements search.Reporter.
func (v *recorded) Epoch(e search.Epoch, c search.Checkpoint) error {
	if v.at == len(v.epochs) {
		return errCompared // a diverged trial that goes on now
	}
	v.difference = cmp.Or(epochDifference(v.epochs[v.at], e), v.compareWeights(c))
	v.at++
	if v.difference != "" || v.at == len(v.epochs) && v.trial.Status != search.Diverged {
		return errCompared
	}
	return nil
}

func (v *recorded) compareWeights(c search.Checkpoint) string {
	if v.checkpoint == nil || v.checkpoint.Epoch != c.Epoch {
		return ""
	}
	v.weights = true
	if bytes.Equal(v.checkpoint.State, c.State) {
		return ""
	}
	return fmt.Sprintf("epoch %d: its metrics agree, the weights in its checkpoint do not", c.Epoch)
}

// epochDifference is "" if all but the times agree in every bit; what an older
// igcsearch did not store of an evaluation, a loss of 0, agrees with any.
func epochDifference(stored, now search.Epoch) string {
	if stored.ValidationLoss == 0 {
		now.ValidationLoss = 0
	}
	if stored.TestLoss == 0 {
		now.TestLoss = 0
	}
	for _, f := range []struct {
		name   string
		a, b   float64
		digits string
	}{
		{"number", float64(stored.Number), float64(now.Number), "%.0f"},
		{"learning_rate", stored.LearningRate, now.LearningRate, "%.17g"},
		{"train_loss", stored.TrainLoss, now.TrainLoss, "%.17g"},
		{"train_correct", float64(stored.TrainCorrect), float64(now.TrainCorrect), "%.0f"},
		{"train_total", float64(stored.TrainTotal), float64(now.TrainTotal), "%.0f"},
		{"validation_correct", float64(stored.ValidationCorrect), float64(now.ValidationCorrect), "%.0f"},
		{"validation_total", float64(stored.ValidationTotal), float64(now.ValidationTotal), "%.0f"},
		{"test_correct", float64(stored.TestCorrect), float64(now.TestCorrect), "%.0f"},
		{"test_total", float64(stored.TestTotal), float64(now.TestTotal), "%.0f"},
		{"validation_loss", stored.ValidationLoss, now.ValidationLoss, "%.17g"},
		{"test_loss", stored.TestLoss, now.TestLoss, "%.17g"},
	} {
		if math.Float64bits(f.a) != math.Float64bits(f.b) && !(math.IsNaN(f.a) && math.IsNaN(f.b)) {
			return fmt.Sprintf("epoch %d: %s is "+f.digits+", stored is "+f.digits, stored.Number, f.name, f.b, f.a)
		}
	}
	return ""
}
