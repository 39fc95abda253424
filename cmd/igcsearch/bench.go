package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"igcsearch/space"
	"igcsearch/trainer"
)

type benchOptions struct {
	pairs                 pairs
	batch, threads, steps positive
	format                string
}

func newBenchCommand() *cobra.Command {
	o := benchOptions{
		// Table 1 (i) of the paper.
		pairs: space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.024}.Nearest(),
		batch: 64, threads: positive(runtime.GOMAXPROCS(0)), steps: 5,
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this machine trains",
		Long: `bench trains the network of each pair on random pictures for a few steps and
shows the median time of a step: forward pass, gradients and update of one
batch. GFLOP/s counts two operations for each multiply–add, three times those
of the forward pass; the peak is what as many threads reach without memory.`,
		Example: `  igcsearch bench --pairs 40x2,64x1

  # json lines, one per pair
  igcsearch bench --pairs 40x2 --batch 16 --threads 1 --steps 3 --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runBench(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().Var(&o.pairs, "pairs", "the pairs to measure")
	cmd.Flags().Var(&o.batch, "batch", "pictures of one step")
	cmd.Flags().Var(&o.threads, "threads", "threads of one training")
	cmd.Flags().Var(&o.steps, "steps", "steps to measure")
	addChoice(cmd, &o.format, "format", "how to print the measurements", "table", "json")
	cmd.Flag("threads").DefValue = "one for each core"
	return cmd
}

// benchJSON is one measurement as json prints it.
type benchJSON struct {
	L          int     `json:"L"`
	M          int     `json:"M"`
	Params     int     `json:"params"` // of one block
	Batch      int     `json:"batch"`
	StepS      float64 `json:"step_s"`
	ImagesPerS float64 `json:"images_per_s"`
	GFLOPS     float64 `json:"gflops"`
	PeakGFLOPS float64 `json:"peak_gflops"` // measured just before
	ISA        string  `json:"isa"`
	Threads    int     `json:"threads"`
}

func runBench(ctx context.Context, o benchOptions, stdout, stderr io.Writer) error {
	t := newTable("L", "M", "params", "step (ms)", "images/s", "GFLOP/s", "% of peak", "<isa", "threads")
	for _, p := range o.pairs {
		if o.format == "table" && isTerminal(stderr) {
			fmt.Fprintf(stderr, "\r%v …\033[K", p)
		}
		r, err := trainer.Bench(ctx, trainer.BenchOptions{Pair: p, Batch: int(o.batch), Threads: int(o.threads), Steps: int(o.steps)})
		if err != nil {
			return err
		}
		if o.format == "json" {
			// One line as soon as it is measured.
			err := json.NewEncoder(stdout).Encode(benchJSON{
				r.L, r.M, r.Params, int(o.batch), r.Step.Seconds(), r.ImagesPerSecond, r.GFLOPS, r.PeakGFLOPS, r.ISA, r.Threads,
			})
			if err != nil {
				return err
			}
			continue
		}
		t.add(strconv.Itoa(r.L), strconv.Itoa(r.M), strconv.Itoa(r.Params), fmt.Sprintf("%.1f", 1e3*r.Step.Seconds()),
			fmt.Sprintf("%.0f", r.ImagesPerSecond), fmt.Sprintf("%.1f", r.GFLOPS), fmt.Sprintf("%.0f", 100*r.GFLOPS/r.PeakGFLOPS), r.ISA, strconv.Itoa(r.Threads))
	}
	if o.format == "json" {
		return nil
	}
	if isTerminal(stderr) {
		fmt.Fprint(stderr, "\r\033[K")
	}
	_, err := fmt.Fprintf(stdout, "batch %d, %s, median of %s\n\n%s", int(o.batch), trainer.CPU(), count(int(o.steps), "step"), t)
	return err
}
