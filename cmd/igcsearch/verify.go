package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/kernel"
)

type verifyOptions struct {
	study, db, data string
	device          device
	trial           trialFlags
}

func newVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify STUDY --pair LxM",
		Short: "Train one network again and compare every bit with what is stored",
		Long: `verify trains one trial of a stored study again, from the start, and compares
learning rate, losses and counts of every stored epoch, bit by bit, and the weights
where there is a checkpoint. It writes nothing into the database.

Other arithmetic has other bits, so verify needs the instruction set or the kind
of GPU that the trial ran on; --device auto chooses it where it exists. One in bfloat16
can be verified on any processor. Exit code 0: everything agrees; 1: something differs.`,
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
	addTrial(cmd, &o.trial, "to train")
	return cmd
}

func runVerify(ctx context.Context, o verifyOptions, stdout, stderr io.Writer) error {
	if err := o.trial.check("verify"); err != nil {
		return err
	}
	v, err := readStored(ctx, o)
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
	ours = v.job.Study.Arithmetic(ours)
	if err := v.checkArithmetic(ours); err != nil {
		return err
	}
	// One training has all cores: their number changes no bit.
	train := trainer.New(trainer.Options{DataDir: o.data, Threads: runtime.GOMAXPROCS(0), Devices: gpu.On(gpus)})
	data, err := train.Load(ctx, v.job.Study)
	if err != nil {
		return err
	}
	if data.Sum != v.job.Study.DataSum && v.job.Study.DataSum != "" {
		return fmt.Errorf("%s: it was trained on other pictures: give their folder by --data", v)
	}
	slow := ""
	if isa, err := kernel.Detect(); err == nil && len(gpus) == 0 && emulates(isa, v.job.Study.Precision) {
		slow = fmt.Sprintf(", emulated with %v, which is slow", isa)
	}
	fmt.Fprintf(stderr, "verify    %v: %s on %s%s\n", v.job.Key, v.epochs(), ours, slow)
	if err := v.judge(train.Train(ctx, v.job, v)); err != nil {
		return err
	}
	what := v.epochs()
	if v.trial.Status == search.Diverged {
		what += ", then it diverges"
	}
	if v.weights {
		what += " and the weights"
	}
	_, err = fmt.Fprintf(stdout, "%v: %s: every bit agrees (%s)\n", v.job.Key, what, ours)
	return err
}
