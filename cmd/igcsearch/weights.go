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

	"igcsearch/search"
	"igcsearch/trainer"
)

type weightsOptions struct {
	study, db, output string
	cell              cell
	best              bool
}

func newWeightsCommand() *cobra.Command {
	var o weightsOptions
	cmd := &cobra.Command{
		Use:   "weights STUDY --pair LxM -o FILE",
		Short: "Write a trained network, for PyTorch and others",
		Long: `weights writes the parameters and statistics that the accuracy of one trial was
measured with, as of its last checkpoint, by the names and shapes that PyTorch has
for them: averages where the study has weight_average, and as running_mean and
running_var the precise statistics where it has those. The extension says
the format: npz for numpy.load, or safetensors, whose header also says study,
network, seed and epoch. A batch norm's eps is 2e-5. A study has checkpoints of
finished trials with keep_checkpoints = true, the best of each with keep_best.`,
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
	addCell(cmd, &o.cell, "to write")
	cmd.Flags().BoolVar(&o.best, "best", false, "the weights of the epoch with the best validation accuracy, not the last")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the `FILE` to write: npz or safetensors")
	return cmd
}

func runWeights(ctx context.Context, o weightsOptions, stderr io.Writer) error {
	if err := o.cell.check("written"); err != nil {
		return err
	}
	format := strings.ToLower(filepath.Ext(o.output))
	switch {
	case o.output == "":
		return usageError{errors.New("--output is missing: where shall the weights go? like -o model.safetensors")}
	case format != ".npz" && format != ".safetensors":
		return usageError{fmt.Errorf("--output %q: the extension says the format, want .npz or .safetensors", o.output)}
	}
	if err := notFolder("--output", o.output); err != nil {
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
	system, err := o.cell.of(study)
	if err != nil {
		return err
	}
	stored := db.Checkpoint
	if o.best {
		stored = db.BestCheckpoint
	}
	from, err := stored(ctx, study.Name, search.Key{System: system, Seed: o.cell.seed})
	if err != nil {
		return err
	}
	if from == nil && o.best {
		return fmt.Errorf("weights %s: no best checkpoint of %v seed %d is stored: run the study under another name with --set keep_best=true", study.Name, system.Label(), o.cell.seed)
	}
	if from == nil {
		return fmt.Errorf("weights %s: no checkpoint of %v seed %d is stored: it did not start, or it was removed when the trial was done: run the study under another name with --set keep_checkpoints=true",
			study.Name, system.Label(), o.cell.seed)
	}
	job := search.Job{Study: study, Key: search.Key{System: system, Seed: o.cell.seed}, From: from}
	tensors, err := trainer.Weights(job)
	if err != nil {
		return fmt.Errorf("weights %s: %w", study.Name, err)
	}
	if from.Epoch < study.Epochs {
		fmt.Fprintf(stderr, "igcsearch: warning: %s: %v seed %d is trained for %d of %s\n", study.Name, system.Label(), job.Seed, from.Epoch, count(study.Epochs, "epoch"))
	}
	about := map[string]string{
		"study": study.Name, "fingerprint": study.Fingerprint(), "network": system.String(),
		"seed": strconv.Itoa(job.Seed), "epoch": strconv.Itoa(from.Epoch), "batch_norm_eps": "2e-5",
	}
	return writeFile(o.output, func(w io.Writer) error {
		if format == ".npz" {
			return trainer.WriteNPZ(w, tensors)
		}
		return trainer.WriteSafetensors(w, tensors, about)
	})
}
