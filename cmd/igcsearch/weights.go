package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/trainer"
)

type weightsOptions struct {
	study, db, output string
	trial             trialFlags
	best              bool
}

func newWeightsCommand() *cobra.Command {
	var o weightsOptions
	cmd := &cobra.Command{
		Use:   "weights STUDY --pair LxM -o FILE",
		Short: "Write a trained network, for PyTorch and others",
		Long: `weights writes the parameters and statistics of the last checkpoint of one trial,
those that its accuracy was measured with. Names and shapes are PyTorch's. Where
the study has weight_average the parameters are averages, and where it has precise
statistics these are written as running_mean and running_var. The extension of the
file says its format: npz for numpy.load, or safetensors, whose header also names
study, network, seed and epoch. A batch norm's eps is 2e-5. A study keeps the last
checkpoints of finished trials, as many as fit into its checkpoint_quota of 1 GiB, and
the best one of each trial with keep_best = true.`,
		Example: `  igcsearch weights quickstart --pair 9x2 --seed 0 -o L9M2.safetensors
  igcsearch weights quickstart --pair 9x2 --seed 0 -o L9M2.npz`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runWeights(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addTrial(cmd, &o.trial, "to write")
	cmd.Flags().BoolVar(&o.best, "best", false,
		"the weights of the epoch with the best validation accuracy, not of the last one")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the `FILE` to write: npz or safetensors")
	return cmd
}

func runWeights(ctx context.Context, o weightsOptions, stderr io.Writer) error {
	if err := o.trial.check("write"); err != nil {
		return err
	}
	format := strings.ToLower(filepath.Ext(o.output))
	switch {
	case o.output == "":
		return usageError{errors.New("--output is missing: give a file for the weights, like -o model.safetensors")}
	case format != ".npz" && format != ".safetensors":
		err := fmt.Errorf("--output %q: want a file that ends in .npz or .safetensors, which says its format", o.output)
		return usageError{err}
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
	tensors, err := trainer.Weights(trained)
	if err != nil {
		return fmt.Errorf("weights %s: %w", study.Name, err)
	}
	if epochs := trained.Study.Epochs; from.Epoch < epochs {
		text := fmt.Sprintf("%v is trained for %d of %s", key, from.Epoch, report.Count(epochs, "epoch"))
		report.Warn(stderr, study.Name, []string{text})
	}
	about := map[string]string{
		"study": study.Name, "fingerprint": study.Fingerprint(), "network": key.System.String(),
		"seed": strconv.Itoa(key.Seed), "epoch": strconv.Itoa(from.Epoch), "batch_norm_eps": "2e-5",
	}
	if key.At != "" {
		about["at"] = string(key.At)
	}
	return writeFile(o.output, func(w io.Writer) error {
		if format == ".npz" {
			return trainer.WriteNPZ(w, tensors)
		}
		return trainer.WriteSafetensors(w, tensors, about)
	})
}
