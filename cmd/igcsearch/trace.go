package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
)

type traceOptions struct {
	trial  trialFlags
	device device
	study  string
	data   string
	set    []string
	steps  positive
	output string
}

func newTraceCommand() *cobra.Command {
	o := traceOptions{steps: 5}
	cmd := &cobra.Command{
		Use:   "trace STUDY --pair LxM -o FILE.npz",
		Short: "Write the first steps of a training, to replay them elsewhere",
		Long: `trace trains a few steps of one trial and writes all that another framework
needs to replay them, as arrays of an npz file: init/NAME and final/NAME for all
parameters and running statistics, and for each step k step/k/images (N, 3, H,
W) as fed, step/k/labels, step/k/logits, step/k/loss, step/k/lr and
step/k/grad/NAME, of the mean loss without weight decay. Of a study with averaged
weights or precise statistics also step/k/average, the share of the step's weights
in their average, evaluated/NAME, what an evaluation after the last step uses, and
statistics/images, the batches that the statistics are of. Names and shapes are
PyTorch's; a batch norm's eps is 2e-5. The network need not be one of the study's;
its depth is the study's, unless its name says one.`,
		Example:           `  igcsearch trace quickstart --pair 9x2 --seed 0 --steps 2 -o trace.npz`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runTrace(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addData(cmd, &o.data)
	addDevice(cmd, &o.device)
	addTrial(cmd, &o.trial, "to train")
	cmd.Flags().Var(&o.steps, "steps", "how many steps to train")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the npz `FILE` to write")
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "override one setting of the study, as `key=value`; may be repeated")
	return cmd
}

func runTrace(ctx context.Context, o traceOptions, stderr io.Writer) error {
	if err := o.trial.check("trace"); err != nil {
		return err
	}
	if o.output == "" {
		return usageError{errors.New("--output is missing: give a file for the trace, like -o trace.npz")}
	}
	if err := notFolder("--output", o.output); err != nil {
		return err
	}
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	key, err := o.trial.key(study)
	if err != nil {
		return err
	}
	gpus, err := o.device.gpus(stderr)
	if err != nil {
		return err
	}
	t := trainer.New(trainer.Options{DataDir: o.data, Threads: 1, Devices: gpu.On(gpus)})
	data, err := t.Load(ctx, study)
	if err != nil {
		return err
	}
	identify(&study, data, stderr)
	return writeFile(o.output, func(w io.Writer) error {
		return t.Trace(ctx, search.Job{Study: study, Key: key}, int(o.steps), w)
	})
}

// writeFile writes a file by way of a temporary one beside it: an error leaves
// the old file or none, never half a one.
func writeFile(path string, write func(io.Writer) error) (err error) {
	defer func() { err = namingFile("write", path, err) }()
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	if err := write(tmp); err != nil {
		tmp.Close()
		return err
	}
	if err := cmp.Or(tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// namingFile makes an error of the file system name the file that was to be
// written, and not the temporary one beside it; it leaves others as they are.
func namingFile(act, path string, err error) error {
	var one *fs.PathError
	var two *os.LinkError
	switch {
	case errors.As(err, &two):
		return fmt.Errorf("%s %s: %w", act, path, two.Err)
	case errors.As(err, &one) && strings.HasPrefix(filepath.Base(one.Path), "."+filepath.Base(path)+"."):
		return fmt.Errorf("%s %s: %w", act, path, one.Err)
	}
	return err
}

// notFolder refuses to write a file where a folder is.
func notFolder(flag, path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder: give another file by %s", path, flag)
	}
	return nil
}
