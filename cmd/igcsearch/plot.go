package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/plots"
)

type plotOptions struct {
	kindAsked  bool // --kind was given; without it, a study of networks gets its learning curves
	studies    []string
	db         string
	split      string // "": what each study says
	output     string
	csv        string // "": none
	kind       string
	bars       string
	band       string
	points     bool
	widthCurve bool
	loss       bool
	cost       string
	pairs      pairs // none: all
	against    string
	panels     bool // a panel for each study
	sameY      bool
	labels     labels
	x, y       limits
	axes       axisFlags
	best       string // "": no figure of the best values; else the split that chooses them
	size       size
	style      string // "none"
	wide       bool
	font       string // "": that of the style
	title      string
}

func newPlotCommand() *cobra.Command {
	var o plotOptions
	var names []string
	about := ""
	for _, k := range kinds {
		names = append(names, k.name)
		about += fmt.Sprintf("  %-10s %s\n", k.name, k.about)
	}
	cmd := &cobra.Command{
		Use:   "plot STUDY... -o FIGURE",
		Short: "Draw a figure of stored results: accuracy against M, learning curves and others",
		Long: `plot draws the trials that are done of one or more studies of a database. --kind
says what:

` + about + `
The extension says the format: pdf, svg, png or eps; tex for a document of its own in
LaTeX, pgf for the same picture to \input, with the package pgf; tikz for code of
pgfplots, which you can change, with a table of the same name that ends in .dat; or csv
for the numbers that are drawn.

--style sets the width and the text as a venue wants them: the column, or with --panels
and --wide the page.

The same results give the same bytes: the date inside a figure is
$SOURCE_DATE_EPOCH, or else when the results last changed.`,
		Example: `  igcsearch plot quickstart -o quickstart.pdf

  # with each seed and the width of the networks, and the numbers as a table
  igcsearch plot quickstart -o quickstart.svg --points --width-curve --csv quickstart.csv

  # what the model of igcsearch analyze expects of the true means, with 95 % bands
  igcsearch plot quickstart -o quickstart.pdf --band posterior

  # learning curves of two pairs
  igcsearch plot quickstart -o curves.png --kind curves --pairs 9x2,1x7 --loss

  # what accuracy costs, in multiply–adds
  igcsearch plot quickstart -o pareto.pdf --kind pareto

  # which pairs a race dropped, and when
  igcsearch plot quickstart -o race.pdf --kind race

  # a curve for each learning rate, and one with each pair at its best beside the common one
  igcsearch plot quickstart-tuned -o rates.pdf --by learning_rate
  igcsearch plot quickstart-tuned -o tuned.pdf --best

  # two budgets
  igcsearch plot fig3a fig3b -o budgets.pdf --kind heatmap

  # Figure 3 of the paper: two panels over the page, named as in the paper
  igcsearch plot fig3a fig3b -o figure3.pdf --panels --style cvpr --label fig3a="Budget (i)" --label fig3b="Budget (ii)"

  # accuracy against the width, which networks of every family have
  igcsearch plot quickstart -o width.pdf --kind size --points`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("plot: want at least one STUDY")
			}
			return nil
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.studies, o.kindAsked = args, cmd.Flags().Changed("kind")
			for _, k := range kinds {
				if o.kind == k.name && k.bars != "" && !cmd.Flags().Changed("bars") {
					o.bars = string(k.bars)
				}
			}
			if err := o.checkFlags(cmd); err != nil {
				return usageError{err}
			}
			return runPlot(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addShown(cmd, &o.split)
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", "",
		"the figure's `FILE`: pdf, svg, png, eps, tex, pgf, tikz, or csv for its numbers; an existing file is replaced")
	flags.StringVar(&o.csv, "csv", "", "also write the drawn numbers to this `FILE`")
	addChoice(cmd, &o.kind, "kind", "what to draw", names...)
	addChoice(cmd, &o.cost, "cost", "the cost to draw accuracy against (pareto)",
		costMultiplyAdds, costParams)
	addChoice(cmd, &o.bars, "bars", "what error bars and bands are; a race has ci95 unless told",
		string(plots.Std), string(plots.SEM), string(plots.CI95), string(plots.MinMax))
	addChoice(cmd, &o.band, "band", "draw the model of analyze, with a 95 % band for each mean (posterior) or for all"+
		" means at once (simultaneous) (accuracy)", bandNone, bandPosterior, bandSimultaneous)
	flags.BoolVar(&o.points, "points", false, "draw a dot for each seed (accuracy, size)")
	flags.BoolVar(&o.widthCurve, "width-curve", false, "draw the width L·M too (accuracy)")
	flags.BoolVar(&o.loss, "loss", false, "draw the losses below (curves)")
	addChoice(cmd, &o.against, "against", "what of the networks to draw accuracy against (size)",
		againstWidth, costParams, costMultiplyAdds)
	flags.BoolVar(&o.panels, "panels", false, "a panel for each STUDY, side by side")
	flags.BoolVar(&o.sameY, "same-y", false, "one range of the vertical axis for all panels")
	addLabels(cmd, &o.labels)
	flags.Var(&o.x, "xlim", "the range of the horizontal axis, like 1:32 or 1:")
	flags.Var(&o.y, "ylim", "the range of the vertical axis, of a heat map that of the colours, like 40:60 or 40:")
	styles := []string{"none"}
	for _, s := range plots.Styles() {
		styles = append(styles, s.Name)
	}
	addChoice(cmd, &o.style, "style", "the width, the text size and the font of a venue", styles...)
	flags.BoolVar(&o.wide, "wide", false, "the width of the page of --style, not of a column")
	var fonts []string
	for _, f := range plots.Fonts() {
		fonts = append(fonts, string(f))
	}
	addChoice(cmd, &o.font, "font", "the family of the font (default serif, or that of --style)", fonts...)
	o.font = ""
	hideDefaults(cmd, "font")
	flags.Var(&o.pairs, "pairs", "only these pairs (default all)")
	addAxes(cmd, &o.axes)
	addBest(cmd, &o.best)
	flags.Var(&o.size, "size", "width and height, like 3.25x2.2in or 8x6cm")
	flags.StringVar(&o.title, "title", "", "a `TEXT` above the figure")
	return cmd
}

// checkFlags refuses flags that the kind of figure does not have. A flag asks for the kind that it is for.
func (o *plotOptions) checkFlags(cmd *cobra.Command) error {
	of := map[string][]string{} // the kinds that have a flag
	for _, k := range kinds {
		for _, flag := range k.flags {
			of[flag] = append(of[flag], k.name)
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(of)) {
		switch {
		case !cmd.Flags().Changed(flag):
		case !slices.Contains(of[flag], o.kind):
			return fmt.Errorf("--%s is for --kind %s: leave it out, or change --kind", flag, strings.Join(of[flag], " and "))
		default:
			o.kindAsked = true
		}
	}
	switch {
	case o.sameY && !o.panels:
		return errors.New("--same-y is for --panels: leave it out, or add --panels")
	case o.wide && o.style == "none":
		return errors.New("--wide is for --style: leave it out, or say which style")
	case o.kind == kindHeatMap && o.x != (limits{}):
		return errors.New("--xlim: the columns of a heat map are the M that were trained: leave it out, or choose them by --pairs")
	}
	return nil
}

func runPlot(ctx context.Context, o plotOptions, stderr io.Writer) error {
	if o.output == "" {
		return usageError{errors.New("--output is missing: which file to write the figure to? like -o figure.pdf")}
	}
	if _, err := figureFormat(o.output); err != nil {
		return usageError{err}
	}
	if o.kind == kindRace && len(o.studies) > 1 && !o.panels {
		return usageError{fmt.Errorf("--kind race draws one STUDY, got %d; add --panels for a panel of each", len(o.studies))}
	}
	data := figureData(o.output)
	if filepath.Clean(o.output) == filepath.Clean(o.csv) || data != "" && filepath.Clean(data) == filepath.Clean(o.csv) {
		return usageError{errors.New("--output and --csv are the same file: give another --csv, or leave it out")}
	}
	if err := cmp.Or(checkOutput("--output", o.output, o.db), checkOutput("--output", data, o.db),
		checkOutput("--csv", o.csv, o.db)); err != nil {
		return err
	}
	if _, _, err := sourceDate(); err != nil {
		return err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	list, err := o.read(ctx, db)
	if err != nil {
		return err
	}
	for _, r := range list {
		r.Warn(stderr) // not earlier: where there is an error too, that says enough
	}
	if list, err = o.sliced(list); err != nil {
		return err
	}
	figure, options, err := o.figure(list)
	if err != nil {
		return err
	}
	if err := writeFigure(o.output, figure, options); err != nil || o.csv == "" {
		return err
	}
	return writeFile(o.csv, func(w io.Writer) error { return plots.Encode(w, "csv", figure, options) })
}
