package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

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
		Long: `trace trains a few steps of one trial and writes what another framework needs to
replay them, as arrays of an npz file:

  init/NAME, final/NAME    parameters and running statistics before and after
  step/k/images            the pictures (N, 3, H, W) of step k as they are trained on
  step/k/labels, logits, loss, lr
  step/k/grad/NAME         gradients of the mean loss, without weight decay
  step/k/average           with weight_average: the share of the step's weights
                           in their average
  evaluated/NAME           what an evaluation after the last step uses, if it is
                           averages or precise statistics
  statistics/images        the batches that precise statistics are computed from

Names and shapes are PyTorch's, and a batch norm's eps is 2e-5. The network may be
one that the study does not have. Its depth is the study's, unless its name says one.`,
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
	if err := checkOutput("--output", o.output); err != nil {
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
		return t.Trace(ctx, job(study, key), int(o.steps), w)
	})
}
