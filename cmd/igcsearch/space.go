package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"igcsearch/space"
)

type spaceOptions struct {
	budget, kernel positive
	tolerance      fraction
	all            bool
	variant        string
	format         string

	// Of partitions for each stage.
	stages, ident, multiplyAdds bool
	depth, classes, size, top   int
}

func newSpaceCommand() *cobra.Command {
	o := spaceOptions{kernel: 9, tolerance: 0.024, classes: 10, size: 32, top: 20}
	cmd := &cobra.Command{
		Use:   "space --budget T",
		Short: "List the pairs (L, M) whose blocks have about T parameters",
		Long: `space lists the pairs (L, M) whose blocks have about T parameters:
S·L·M² + M·L² of them, for a primary kernel of S positions. Of each M it shows
the L nearest to the budget, if that is within the tolerance.

In a table it also shows the upper bound of the width, (T/(2√S))^(2/3), and the
point L = M·S where it is reached.

--variant lists pairs of the blocks of Section 4, whose parameters are other sums:
  Swap  L·M² + S·M·L²      primary 1×1, secondary 3×3
  Proj  S·L·M² + (L·M)²    secondary over all channels
  1x3   2·3·L·M² + M·L²    1×3 and 3×1 in place of 3×3
  5x5   25·L·M² + M·L²
  ReLU  as the block       a ReLU between primary and secondary
  B2    S·L·M·M/2 + M·L²   half the channels between them; B3, B4, … likewise

--stages lists networks of three stages by a budget of the whole network, of
parameters or, with --multiply-adds, of multiply–adds: partitions for each stage,
each twice as wide as the one before.`,
		Example: `  # the nine pairs of the paper's Table 1 (i)
  igcsearch space --budget 4672

  # every pair within 1 %, for other programs
  igcsearch space --budget 17536 --tolerance 1% --all --format csv

  # partitions for each stage, as many parameters as IGC-L24M2 at depth 20
  igcsearch space --stages --depth 20 --budget 151834`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.stages {
				return runStages(cmd.Context(), o, cmd.OutOrStdout())
			}
			for _, name := range []string{"ident", "multiply-adds", "depth", "classes", "size", "top"} {
				if cmd.Flags().Changed(name) {
					return usageError{fmt.Errorf("--%s is for --stages", name)}
				}
			}
			return runSpace(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().Var(&o.budget, "budget", "parameters of one block, T")
	cmd.Flags().Var(&o.kernel, "kernel", "positions of the primary kernel, S; 9 is 3×3")
	cmd.Flags().Var(&o.tolerance, "tolerance", "largest deviation from the budget, like 2.4% or 0.024")
	cmd.Flags().BoolVar(&o.all, "all", false, "show every L within the tolerance, not only the nearest")
	cmd.Flags().StringVar(&o.variant, "variant", "", "the `VARIANT` of the block, like 5x5")
	cmd.Flags().BoolVar(&o.stages, "stages", false, "partitions for each of three stages, by a budget of the whole network")
	cmd.Flags().BoolVar(&o.multiplyAdds, "multiply-adds", false, "the budget is one of multiply–adds (--stages)")
	cmd.Flags().BoolVar(&o.ident, "ident", false, "with identity mappings (--stages)")
	cmd.Flags().IntVar(&o.depth, "depth", 0, "the depth of the networks (--stages; default 20, with identity mappings 50)")
	cmd.Flags().IntVar(&o.classes, "classes", o.classes, "the number of classes (--stages)")
	cmd.Flags().IntVar(&o.size, "size", o.size, "the side of the pictures (--stages)")
	cmd.Flags().IntVar(&o.top, "top", o.top, "how many networks to list, the nearest first (--stages)")
	addChoice(cmd, &o.format, "format", "how to print the pairs", "table", "csv", "json")
	cmd.Flag("budget").DefValue = ""
	return cmd
}

// spaceRow is one pair as csv and json print it.
type spaceRow struct {
	L      int `json:"L"`
	M      int `json:"M"`
	Width  int `json:"width"`
	Params int `json:"params"`
	// ErrorPercent is 100·(params/T − 1), to three decimals.
	ErrorPercent float64 `json:"error_percent"`
}

func (r spaceRow) fields() []string {
	return []string{strconv.Itoa(r.L), strconv.Itoa(r.M), strconv.Itoa(r.Width), strconv.Itoa(r.Params), strconv.FormatFloat(r.ErrorPercent, 'f', 3, 64)}
}

func runSpace(_ context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters may a block have?")}
	}
	b := space.Budget{Params: int(o.budget), Kernel: int(o.kernel), Tolerance: float64(o.tolerance), Variant: space.Variant(o.variant)}
	if err := b.Validate(); err != nil {
		return usageError{err}
	}
	list := b.Nearest()
	if o.all {
		list = b.All()
	}
	rows := []spaceRow{}
	for _, p := range list {
		e := math.Round(1e5*b.Error(p)) / 1e3
		rows = append(rows, spaceRow{p.L, p.M, p.Width(), b.BlockParams(p), e + 0}) // + 0: no −0
	}
	if done, err := printRows(stdout, o.format, []string{"L", "M", "width", "params", "error_percent"}, rows); done {
		return err
	}
	t := newTable("L", "M", "width", "params", "error (%)")
	for _, r := range rows {
		t.Add(r.fields()...)
	}
	if b.Variant != "" {
		_, err := fmt.Fprintf(stdout, "%s\n%s within %v of %s.\n", t, count(len(rows), "pair"), &o.tolerance, count(b.Params, "parameter"))
		return err
	}
	l, m := space.WidestPoint(b.Params, b.Kernel)
	_, err := fmt.Fprintf(stdout, "%s\n%s within %v of %s.\nThe width is at most %.1f, near L = %.1f, M = %.1f.\n",
		t, count(len(rows), "pair"), &o.tolerance, count(b.Params, "parameter"), space.WidthBound(b.Params, b.Kernel), l, m)
	return err
}

// printRows prints rows as csv or json; it is not done for another format.
func printRows[Row interface{ fields() []string }](stdout io.Writer, format string, header []string, rows []Row) (done bool, err error) {
	switch format {
	case "csv":
		w := csv.NewWriter(stdout)
		w.Write(header)
		for _, r := range rows {
			w.Write(r.fields())
		}
		w.Flush()
		return true, w.Error()
	case "json":
		return true, printJSON(stdout, rows)
	}
	return false, nil
}

// stagesRow is one network as csv and json print it.
type stagesRow struct {
	Network      string  `json:"network"`
	Width        int     `json:"width"` // of the first stage
	Params       int     `json:"params"`
	MultiplyAdds int64   `json:"multiply_adds"`
	ErrorPercent float64 `json:"error_percent"` // 100·(count/budget − 1), to three decimals
}

func (r stagesRow) fields() []string {
	return []string{r.Network, strconv.Itoa(r.Width), strconv.Itoa(r.Params), strconv.FormatInt(r.MultiplyAdds, 10), strconv.FormatFloat(r.ErrorPercent, 'f', 3, 64)}
}

func runStages(ctx context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters, or multiply–adds, may the network have?")}
	}
	if o.all || o.kernel != 9 || o.top < 1 {
		return usageError{errors.New("--stages has no --all and no --kernel, and --top is 1 or more")}
	}
	b := space.StageBudget{Params: int(o.budget), Tolerance: float64(o.tolerance), Ident: o.ident, Variant: space.Variant(o.variant),
		Plan: space.Plan{Layout: space.Stages, Depth: o.depth, In: space.Shape{C: 3, H: o.size, W: o.size}, Classes: o.classes}}
	what := "parameter"
	if o.multiplyAdds {
		b.Params, b.MultiplyAdds, what = 0, int64(o.budget), "multiply–add"
	}
	if err := b.Validate(); err != nil {
		return usageError{err}
	}
	systems := b.Systems(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	rows := []stagesRow{}
	for _, s := range systems[:min(o.top, len(systems))] {
		n, err := s.Network(b.Plan)
		if err != nil {
			return err
		}
		e := math.Round(1e5*b.Error(n)) / 1e3
		rows = append(rows, stagesRow{s.String(), s.Pair().Width(), n.Params(), n.MultiplyAdds(), e + 0})
	}
	if done, err := printRows(stdout, o.format, []string{"network", "width", "params", "multiply_adds", "error_percent"}, rows); done {
		return err
	}
	t := newTable("<network", "width", "params", "multiply–adds", "error (%)")
	for _, r := range rows {
		t.Add(r.fields()...)
	}
	_, err := fmt.Fprintf(stdout, "%s\n%d of %s within %v of %s.\n", t, len(rows), count(len(systems), "network"), &o.tolerance, count(int(o.budget), what))
	return err
}
