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
	"igcsearch/trainer"
	"igcsearch/trainer/interchange"
)

type weightsOptions struct {
	study, db, data, output string
	trial                   trialFlags
	seedAsked               bool // by --seed
	best                    bool
}

func newWeightsCommand() *cobra.Command {
	var o weightsOptions
	cmd := &cobra.Command{
		Use:   "weights STUDY --pair LxM -o FILE",
		Short: "Write a trained network, for PyTorch and others",
		Long: `weights writes the parameters and statistics of the last checkpoint of one trial,
of seed 0 without --seed, those that its accuracy was measured with. Names and shapes are PyTorch's. Where
the study has weight_average the parameters are averages, and where it has precise
statistics these are written as running_mean and running_var.

The extension of the file says its format: npz for numpy.load, safetensors, or onnx
for ONNX runtimes. Each also says which network it is and how to print it as a
PyTorch module, its study, seed and epoch, the eps of its batch norms, and, from the
pictures, the mean and std of their channels and the names of the classes. Pictures
in files need --data; without it the last three are left out. docs/elsewhere.md has
all keys, and goes from a training to PyTorch and ONNX.

A study keeps the last checkpoints of finished trials, as many as fit into its
checkpoint_quota of 1 GiB, and the best one of each trial with keep_best = true.`,
		Example: `  igcsearch weights quickstart --pair 9x2 --seed 0 -o L9M2.safetensors
  igcsearch weights quickstart --pair 9x2 --seed 0 -o L9M2.npz
  igcsearch weights quickstart --pair 9x2 --seed 0 -o L9M2.onnx`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study, o.seedAsked = args[0], cmd.Flags().Changed("seed")
			return runWeights(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addTrial(cmd, &o.trial, "to write")
	cmd.Flags().BoolVar(&o.best, "best", false,
		"the weights of the epoch with the best validation accuracy, not of the last one")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the `FILE` to write: npz, safetensors or onnx")
	return cmd
}

func runWeights(ctx context.Context, o weightsOptions, stderr io.Writer) error {
	if err := o.trial.check("write"); err != nil {
		return err
	}
	format, known := map[string]func(interchange.Model, io.Writer) error{
		".npz": interchange.Model.WriteNPZ, ".safetensors": interchange.Model.WriteSafetensors,
		".onnx": interchange.Model.WriteONNX,
	}[strings.ToLower(filepath.Ext(o.output))]
	switch {
	case o.output == "":
		return usageError{errors.New("--output is missing: give a file for the weights, like -o model.safetensors")}
	case !known:
		return usageError{fmt.Errorf("--output %q: want a file that ends in .npz, .safetensors or .onnx, which says its format",
			o.output)}
	}
	if err := checkOutput("--output", o.output, o.db); err != nil {
		return err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	found, err := findStudy(ctx, db, o.study)
	if err != nil {
		return err
	}
	study := found.Study
	key, err := o.trial.key(study)
	if err != nil {
		return err
	}
	read, setting := db.Checkpoint, "keep_checkpoints"
	missing := "no checkpoint of %v is stored: the trial did not start, or its checkpoint was removed when it was done " +
		"or to keep checkpoint_quota"
	if o.best {
		read, missing, setting = db.BestCheckpoint, "no best checkpoint of %v is stored", "keep_best"
	}
	from, err := read(ctx, study.Name, key)
	if err != nil {
		return err
	}
	if from == nil {
		return fmt.Errorf("weights %s: "+missing+": run the study under another name with --set %s=true",
			study.Name, key, setting)
	}
	trained := job(study, key)
	trained.From = from
	model, err := trainer.Weights(trained)
	if err != nil {
		return fmt.Errorf("weights %s: %w", study.Name, err)
	}
	var warnings []string
	if epochs := trained.Study.Epochs; from.Epoch < epochs {
		warnings = append(warnings, fmt.Sprintf("%v is trained for %d of %s", key, from.Epoch,
			report.Count(epochs, "epoch")))
	}
	this := build()
	model.Origin = interchange.Origin{Study: study.Name, At: string(key.At),
		Fingerprint: study.Fingerprint(), Seed: key.Seed,
		Epoch: from.Epoch, Dataset: study.Dataset, Precision: study.Precision, Version: this.version, Commit: this.commit}
	if study.NeedsFiles() && o.data == "" {
		warnings = append(warnings, fmt.Sprintf("%s says no mean and std of the pictures and no names of classes: "+
			"give the folder of the pictures by --data DIR", o.output))
	} else {
		set, err := trainer.New(trainer.Options{DataDir: o.data}).Pictures(ctx, study, key.Seed)
		if err != nil {
			return err
		}
		if study.DataSum != "" && set.Sum != study.DataSum {
			return fmt.Errorf("weights %s: it was trained on other pictures", study.Name)
		}
		model.Origin.Classes, model.Origin.Mean, model.Origin.Std = set.Classes, set.Mean[:], set.Std[:]
	}
	report.Warn(stderr, study.Name, warnings)
	if err := writeFile(o.output, func(w io.Writer) error { return format(model, w) }); err != nil {
		return err
	}
	if n := len(study.Seeds); n > 1 && !o.seedAsked {
		fmt.Fprintf(stderr, "%s: %s has the weights of %v, one of %d seeds: --seed says which\n", study.Name, o.output, key, n)
	}
	return nil
}
