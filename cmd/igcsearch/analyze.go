package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
)

type analyzeOptions struct {
	study, db, format string
	against           string // "": no other study
	split, choose     string // "": what the study says
	axes              axisFlags
}

func newAnalyzeCommand() *cobra.Command {
	var o analyzeOptions
	cmd := &cobra.Command{
		Use:   "analyze STUDY",
		Short: "Say which pairs are best, how certain that is, and what they cost",
		Long: `analyze answers what a study asks: the mean of each pair with its 95 % interval,
the best pair, which pairs are significantly worse, which are not separated from
it, and of which the study tells too little; the probability of each that it is the
best, P(best), under a model of the curve over log2 M; M = 2 against M = 1 and against
L = 1, and the Pareto front of accuracy and multiply–adds.

If a check of the spreads allows it, pairs are compared with one spread for all,
the residual of an additive model, pair + seed. Otherwise they are compared by
paired t tests over common seeds. Holm's method corrects for the number of
comparisons. analyze prints which method it used, and why.

Where the study holds out validation pictures, they choose the best pair, and its
accuracy on the test pictures is compared with that of all others there, which had no
part in the choice. --choose and --split say otherwise. The same results give the same
text.

Of a study with lists of settings, like learning_rate = [0.05, 0.1], it shows the
accuracy of each pair at each value, which value is the best of each pair, chosen on the
validation pictures, what each pair gains by it over the value that is the best on
average, and whether the differences between the pairs, and their order, depend on the
setting. --at learning_rate=0.1 gives the answers above at one value.

--against OTHER compares two studies of the same pictures, like one in float32 and one
in bfloat16, by the networks and seeds that both have: the difference of each network
and of all together, whether the spreads differ, who changes places, and how large a
difference must be to be found. A value of --at is for each of the two studies that has
a list of this setting.`,
		Example: `  igcsearch analyze quickstart

  # whether each pair was tuned
  igcsearch analyze quickstart-tuned

  # for a paper
  igcsearch analyze quickstart --format latex > analysis.tex`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			if cmd.Flags().Changed("against") && o.against == "" {
				return usageError{errors.New("--against is empty: give it the name of the other study, or leave it out")}
			}
			return runAnalyze(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addShown(cmd, &o.split)
	addAxes(cmd, &o.axes)
	addSplit(cmd, &o.choose, "choose",
		"the pictures that choose the best (default validation where the study holds some out, else test)")
	cmd.Flags().StringVar(&o.against, "against", "", "compare this `OTHER` study with STUDY, by the networks and seeds of both")
	addChoice(cmd, &o.format, "format", "how to print the answers", "table", "json", "markdown", "latex")
	return cmd
}

func runAnalyze(ctx context.Context, o analyzeOptions, stdout, stderr io.Writer) error {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	if o.against != "" {
		return analyzeAgainst(ctx, db, o, stdout, stderr)
	}
	r, err := readShown(ctx, db, o.study, o.split, store.Histories)
	if err != nil {
		return err
	}
	if text := r.AllDiverged(); text != "" {
		return fmt.Errorf("analyze %s: %s", r.Study.Name, text)
	}
	if r, err = o.axes.of(r); err != nil {
		return fmt.Errorf("analyze %s: %w", r.Study.Name, err)
	}
	if len(r.Study.Axes) > 0 {
		return analyzeTuning(o, r, stdout, stderr)
	}
	a, err := report.Analyze(r, o.choose)
	if err != nil {
		return fmt.Errorf("analyze --choose %s: %w", cmp.Or(o.choose, r.Study.DecidingSplit()), err)
	}
	if a.Best < 0 {
		return fmt.Errorf("analyze %s: none of its trials is done: run it first, or look at: igcsearch status %s",
			r.Study.Name, quote(r.Study.Name))
	}
	if o.format != "json" { // which holds the warnings
		report.Warn(stderr, r.Study.Name, a.Warnings)
	}
	return a.Print(stdout, o.format)
}

// analyzeAgainst compares two studies.
func analyzeAgainst(ctx context.Context, db *store.DB, o analyzeOptions, stdout, stderr io.Writer) error {
	if o.choose != "" || o.axes.by != "" {
		return usageError{errors.New("--against compares every network with itself: give it no --choose and no --by")}
	}
	var both []report.Results
	for _, name := range []string{o.study, o.against} {
		r, err := readShown(ctx, db, name, o.split, store.Histories)
		if err != nil {
			return err
		}
		o.split = r.Study.Split
		both = append(both, r)
	}
	if both[0].Study.Name == both[1].Study.Name {
		return usageError{fmt.Errorf("study %s is given twice", both[0].Study.Name)}
	}
	parts, err := o.axes.at.ofLists(both[0].Study, both[1].Study)
	if err != nil {
		return err
	}
	for i, r := range both {
		if r, err = (axisFlags{at: parts[i]}).of(r); err != nil {
			return fmt.Errorf("analyze %s: %w", r.Study.Name, err)
		}
		if len(r.Study.Axes) > 0 {
			return fmt.Errorf("analyze --against: %s has lists of settings, %s: give the value of each by --at", r.Study.Name,
				lists(r.Study.Axes))
		}
		both[i] = r
	}
	c, err := report.CompareStudies(both[0], both[1])
	if err != nil {
		return fmt.Errorf("analyze %s --against %s: %w", both[0].Study.Name, both[1].Study.Name, err)
	}
	if o.format != "json" { // which holds the warnings
		report.Warn(stderr, both[0].Study.Name+" against "+both[1].Study.Name, c.Warnings)
	}
	return c.Print(stdout, o.format)
}
