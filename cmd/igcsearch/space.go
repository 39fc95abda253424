package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/space"
)

type spaceOptions struct {
	budget, kernel positive
	tolerance      fraction
	all            bool
	variant        string
	format         string

	// For --stages and --family:
	stages               bool
	family               string // "": pairs
	whole, ident         bool
	multiplyAdds         bool
	layout               string
	depth, classes, size int
	top                  int
}

func newSpaceCommand() *cobra.Command {
	o := spaceOptions{kernel: 9, tolerance: 0.024, classes: 10, size: 32, top: 20}
	cmd := &cobra.Command{
		Use:   "space --budget T",
		Short: "List the pairs (L, M), or the networks of a family, that a budget allows",
		Long: `space lists the pairs (L, M) whose blocks have about T parameters. A block has
S·L·M² + M·L² of them, where S is the number of positions of the primary kernel.
For each M it shows the L nearest to the budget, if that is within the tolerance.

A table also shows the upper bound of the width, (T/(2√S))^(2/3), and the point
L = M·S that reaches it.

--variant lists pairs of the blocks of Section 4, which have other parameters:
  Swap  L·M² + S·M·L²      primary 1×1, secondary 3×3
  Proj  S·L·M² + (L·M)²    secondary over all channels
  1x3   2·3·L·M² + M·L²    1×3 and 3×1 in place of 3×3
  5x5   25·L·M² + M·L²
  ReLU  S·L·M² + M·L²      a ReLU between primary and secondary
  B2    S·L·M·M/2 + M·L²   half the channels between them; B3, B4, … likewise

--stages lists networks of three stages with partitions for each stage. The budget
is then that of the whole network, in parameters or, with --multiply-adds, in
multiply–adds. Each stage is twice as wide as the one before.

--family lists the networks of a family whose blocks have about T parameters, the
widest first, and the bound of the width. --multiply-adds makes it a budget of
multiply–adds, and --whole one of the whole network:
  IGCV2       C·(M·S + K₂ + … + K_N)   C = M·K₂·…·K_N channels
  IGCV3       R·W·(W/G₁ + S + W/G₂)    --family IGCV3: every R, G₁ and G₂
  Monarch     2·M³                     M² channels
  RegNetX     2·W² + S·W·G
  ShuffleNet  2·W·(W/4)/G + S·W/4
Networks are left out in whose blocks an output does not depend on all inputs.`,
		Example: `  # the nine pairs of the paper's Table 1 (i)
  igcsearch space --budget 4672

  # every pair within 1 %, for other programs
  igcsearch space --budget 17536 --tolerance 1% --all --format csv

  # products of three or more convolutions, up to twice as wide as these pairs
  igcsearch space --family IGCV2 --budget 4672

  # whole networks of 30 million multiply–adds, in the layout of Figure 3
  igcsearch space --family RegNetX --budget 30000000 --whole --multiply-adds

  # partitions for each stage, as many parameters as IGC-L24M2 at depth 20
  igcsearch space --stages --depth 20 --budget 151834`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return usageError{err}
			}
			switch {
			case o.stages:
				return runStages(cmd.Context(), o, cmd.OutOrStdout())
			case o.family != "":
				return runFamily(cmd.Context(), o, cmd.OutOrStdout())
			}
			return runSpace(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().Var(&o.budget, "budget", "parameters of one block, T")
	cmd.Flags().Var(&o.kernel, "kernel", "positions of the primary kernel, S; 9 is 3×3")
	cmd.Flags().Var(&o.tolerance, "tolerance", "largest deviation from the budget, like 2.4% or 0.024")
	cmd.Flags().BoolVar(&o.all, "all", false, "show every L within the tolerance, not only the nearest")
	cmd.Flags().StringVar(&o.variant, "variant", "", "the `VARIANT` of the block, like 5x5")
	cmd.Flags().BoolVar(&o.stages, "stages", false, "partitions for each of three stages, for a budget of the whole"+
		" network")
	var families []string
	for _, f := range space.Families() {
		families = append(families, string(f))
	}
	addChoice(cmd, &o.family, "family", "the networks of a family", families...)
	o.family = ""
	hideDefaults(cmd, "family")
	cmd.Flags().BoolVar(&o.whole, "whole", false, "the budget is that of the whole network (--family)")
	cmd.Flags().BoolVar(&o.multiplyAdds, "multiply-adds", false, "the budget counts multiply–adds (--stages, --family)")
	cmd.Flags().BoolVar(&o.ident, "ident", false, "with identity mappings (--stages, --whole)")
	addChoice(cmd, &o.layout, "layout", "how the stages follow each other (--whole)", string(space.Flat),
		string(space.Stages), string(space.ImageNet))
	cmd.Flags().IntVar(&o.depth, "depth", 0, "the depth of the networks (--stages, --whole; default that of the layout)")
	cmd.Flags().IntVar(&o.classes, "classes", o.classes, "the number of classes (--stages, --whole)")
	cmd.Flags().IntVar(&o.size, "size", o.size, "the side of the pictures (--stages, --family)")
	cmd.Flags().IntVar(&o.top, "top", o.top, "how many networks to list (--stages: the nearest, --family: the widest)")
	addChoice(cmd, &o.format, "format", "how to print the pairs", "table", "csv", "json")
	cmd.Flag("budget").DefValue = ""
	return cmd
}

// check returns an error if a flag that changed has no effect beside the others.
func (o spaceOptions) check(changed func(string) bool) error {
	type rule struct {
		ok    bool
		where string
		flags []string
	}
	networks := o.stages || o.family != ""
	for _, r := range []rule{
		{!o.stages || o.family == "", "not for --stages", []string{"family"}},
		{!networks, "for pairs only", []string{"all", "kernel"}},
		{o.family == "", "not for --family", []string{"variant"}},
		{o.family != "", "for --family", []string{"whole"}},
		{o.whole, "for --whole", []string{"layout"}},
		{o.stages || o.whole, "for --stages and --whole", []string{"ident", "depth", "classes"}},
		{networks, "for --stages and --family", []string{"multiply-adds", "size", "top"}},
	} {
		for _, name := range r.flags {
			if changed(name) && !r.ok {
				return fmt.Errorf("--%s is %s", name, r.where)
			}
		}
	}
	if o.top < 1 {
		return fmt.Errorf("--top %d: want 1 or more", o.top)
	}
	if o.size < 1 {
		return fmt.Errorf("--size %d: want 1 or more rows and columns", o.size)
	}
	return nil
}

func runSpace(_ context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters may a block have?")}
	}
	b := space.Budget{Params: int(o.budget), Kernel: int(o.kernel), Tolerance: float64(o.tolerance),
		Variant: space.Variant(o.variant)}
	if err := b.Validate(); err != nil {
		return usageError{err}
	}
	pairs := b.Nearest()
	if o.all {
		pairs = b.All()
	}
	return report.Pairs{Budget: b, List: pairs, Within: o.tolerance.String()}.Print(stdout, o.format)
}

func runStages(ctx context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters, or multiply–adds, may the network" +
			" have?")}
	}
	b := space.StageBudget{Params: int(o.budget), Tolerance: float64(o.tolerance),
		Ident: o.ident, Variant: space.Variant(o.variant),
		Plan: space.Plan{Layout: space.Stages, Depth: o.depth, In: space.Shape{C: 3, H: o.size, W: o.size},
			Classes: o.classes}}
	if o.multiplyAdds {
		b.Params, b.MultiplyAdds = 0, int64(o.budget)
	}
	return o.printNetworks(ctx, b, report.Networks{Budget: b}, stdout)
}

func runFamily(ctx context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters, or multiply–adds, may a block or" +
			" a network have?")}
	}
	b := space.SystemBudget{Family: space.Family(o.family), Params: int(o.budget), Tolerance: float64(o.tolerance),
		Whole: o.whole, Ident: o.ident, Plan: space.Plan{Layout: space.Layout(o.layout), Depth: o.depth,
			In: space.Shape{C: 3, H: o.size, W: o.size}, Classes: o.classes}}
	if o.multiplyAdds {
		b.Params, b.MultiplyAdds = 0, int64(o.budget)
	}
	list := report.Networks{Budget: b}
	if !o.whole && b.Validate() == nil {
		list.Bound = b.WidthBound()
	}
	return o.printNetworks(ctx, b, list, stdout)
}

// printNetworks fills in the networks of a budget and prints them.
func (o spaceOptions) printNetworks(ctx context.Context, b interface {
	Validate() error
	Systems(context.Context) []space.System
}, list report.Networks, stdout io.Writer) error {
	if err := b.Validate(); err != nil {
		return usageError{err}
	}
	list.List, list.Top, list.Within = b.Systems(ctx), o.top, o.tolerance.String()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return list.Print(stdout, o.format)
}
