package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

type plotOptions struct {
	kindAsked  bool // else a study of networks gets its learning curves
	studies    []string
	db         string
	output     string
	csv        string // "": none
	kind       string
	bars       string
	points     bool
	widthCurve bool
	loss       bool
	pairs      pairs // of curves; none: all
	size       size
	title      string
}

// The values of plotOptions.kind.
const (
	kindAccuracy = "accuracy"
	kindCurves   = "curves"
)

// size is a flag "3.25x2.2in" or "8x6cm"; zero is the default of the figure.
type size struct{ width, height float64 } // inches

func (s *size) String() string {
	if *s == (size{}) {
		return ""
	}
	return fmt.Sprintf("%gx%gin", s.width, s.height)
}
func (s *size) Type() string { return "WxH" }
func (s *size) Set(text string) error {
	number, inches := strings.CutSuffix(text, "in")
	unit := 1.
	if !inches {
		var cm bool
		if number, cm = strings.CutSuffix(text, "cm"); cm {
			unit = 1 / 2.54
		}
	}
	w, h, ok := strings.Cut(number, "x")
	width, err1 := strconv.ParseFloat(w, 64)
	height, err2 := strconv.ParseFloat(h, 64)
	width, height = width*unit, height*unit
	if !ok || err1 != nil || err2 != nil || !(width >= 1 && width <= 40 && height >= 1 && height <= 40) {
		return errors.New("want 1 to 40 in each way, like 3.25x2.2in or 8x6cm")
	}
	*s = size{width, height}
	return nil
}

func newPlotCommand() *cobra.Command {
	var o plotOptions
	cmd := &cobra.Command{
		Use:   "plot STUDY... -o FIGURE",
		Short: "Draw accuracy against M, or learning curves",
		Long: `plot draws the accuracies of one or more studies of a database against M, mean
and error bars over the seeds, or their learning curves. The extension says the
format: pdf, svg, png, eps or tex, or csv for the numbers that are drawn. Only
trials that are done are drawn.

The same results give the same bytes: the date inside a figure is
$SOURCE_DATE_EPOCH, or else when the results last changed.`,
		Example: `  igcsearch plot quickstart -o quickstart.pdf

  # with each seed and the width of the networks, and the numbers as a table
  igcsearch plot quickstart -o quickstart.svg --points --width-curve --csv quickstart.csv

  # learning curves of two pairs
  igcsearch plot quickstart -o curves.png --kind curves --pairs 40x2,1x23 --loss`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("plot: want at least one STUDY")
			}
			return nil
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.studies = args
			o.kindAsked = cmd.Flags().Changed("kind")
			return runPlot(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the figure's `FILE`: pdf, svg, png, eps, tex, or csv for its numbers; an existing file is replaced")
	cmd.Flags().StringVar(&o.csv, "csv", "", "also write the drawn numbers to this `FILE`")
	addChoice(cmd, &o.kind, "kind", "what to draw: accuracy against M, or learning curves", kindAccuracy, kindCurves)
	addChoice(cmd, &o.bars, "bars", "what error bars and bands are",
		string(plots.Std), string(plots.SEM), string(plots.CI95), string(plots.MinMax))
	cmd.Flags().BoolVar(&o.points, "points", false, "draw a dot for each seed (accuracy)")
	cmd.Flags().BoolVar(&o.widthCurve, "width-curve", false, "draw the width L·M too (accuracy)")
	cmd.Flags().BoolVar(&o.loss, "loss", false, "draw the training loss below (curves)")
	cmd.Flags().Var(&o.pairs, "pairs", "only these pairs (default all)")
	cmd.Flags().Var(&o.size, "size", "width and height, like 3.25x2.2in or 8x6cm")
	cmd.Flags().StringVar(&o.title, "title", "", "a `TEXT` above the figure")
	return cmd
}

func runPlot(ctx context.Context, o plotOptions, stderr io.Writer) error {
	if o.output == "" {
		return usageError{errors.New("--output is missing: where shall the figure go? like -o figure.pdf")}
	}
	if err := checkFigure(o.output); err != nil {
		return usageError{err}
	}
	if o.kind == kindCurves && (o.points || o.widthCurve) {
		return usageError{errors.New("--points and --width-curve are for --kind accuracy: leave them out")}
	}
	if o.kind == kindAccuracy && o.loss {
		return usageError{errors.New("--loss is for --kind curves: leave it out, or change --kind")}
	}
	if err := cmp.Or(notFolder("--output", o.output), notFolder("--csv", o.csv)); err != nil {
		return err
	}
	db, err := store.OpenReadOnly(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	var list []results
	missing := slices.Clone(o.pairs) // which no study has
	for _, name := range o.studies {
		r, err := readResults(ctx, db, name)
		if err != nil {
			return err
		}
		if !o.kindAsked && len(list) == 0 && !r.study.OfPairs() {
			o.kind = kindCurves
		}
		if o.kind == kindAccuracy && !r.study.OfPairs() {
			return fmt.Errorf("plot %s: it compares networks, which have no common M: use --kind curves, or igcsearch export", r.study.Name)
		}
		if slices.ContainsFunc(list, func(other results) bool { return other.study.Name == r.study.Name }) {
			return usageError{fmt.Errorf("study %s is given twice", r.study.Name)}
		}
		if len(o.pairs) > 0 {
			there := r.study.PairList()
			missing = slices.DeleteFunc(missing, func(p space.Pair) bool { return slices.Contains(there, p) })
			r.trials = slices.DeleteFunc(r.trials, func(t search.Trial) bool { return !slices.Contains(o.pairs, t.System.Pair()) })
			if len(r.trials) == 0 {
				return noPairs(o.pairs, []results{r})
			}
		}
		if r.done() == 0 && len(o.pairs) > 0 {
			return fmt.Errorf("plot %s: none of its trials of %v is done: look at: igcsearch status %s", r.study.Name, &o.pairs, quote(r.study.Name))
		}
		if r.done() == 0 {
			return fmt.Errorf("plot %s: none of its trials is done: run it first, or look at: igcsearch status %s", r.study.Name, quote(r.study.Name))
		}
		list = append(list, r)
	}
	if len(missing) > 0 {
		return noPairs(missing, list)
	}
	for _, r := range list {
		r.warn(stderr) // not above: of two lines the error says enough
	}
	options, err := figureOptions(ctx, db, list)
	if err != nil {
		return err
	}
	options.Width, options.Height, options.Title = o.size.width, o.size.height, o.title

	var figure interface {
		Save(path string) error
		CSV(w io.Writer) error
	}
	if o.kind == kindAccuracy {
		figure = plots.AccuracyVsM{Options: options, Series: series(list), Bar: plots.Bar(o.bars), Seeds: o.points, WidthCurve: o.widthCurve}
	} else {
		curves, err := learningCurves(ctx, db, list)
		if err != nil {
			return err
		}
		if options.Height == 0 {
			options.Height = curvesHeight(curves, o.loss)
		}
		figure = plots.LearningCurves{Options: options, Curves: curves, Bar: plots.Bar(o.bars), Loss: o.loss}
	}
	if err := figure.Save(o.output); err != nil {
		return namingFile("save figure", o.output, err)
	}
	if o.csv != "" {
		return writeFile(o.csv, figure.CSV)
	}
	return nil
}

// noPairs says that studies have none of some pairs, and which they have.
func noPairs(missing pairs, list []results) error {
	var texts []string
	for _, r := range list {
		have := pairs(r.study.PairList())
		texts = append(texts, fmt.Sprintf("%s has %v", r.study.Name, &have))
	}
	return fmt.Errorf("plot: --pairs %v: no such pair: %s", &missing, strings.Join(texts, ", "))
}

// curvesHeight is the height of learning curves in inches, 0 for the default
// of plots: the legend of many curves would take the room that they need.
func curvesHeight(list []plots.Curve, loss bool) float64 {
	curves, row := len(list), 0.1
	if slices.ContainsFunc(list, func(c plots.Curve) bool { return len(c.Name) > 12 }) {
		row = 0.2 // two names to a row, not four
	}
	const usual = 6 // two rows of a legend
	if curves <= usual {
		return 0
	}
	height := 2.2
	if loss {
		height = 3.4
	}
	return min(height+row*float64(curves-usual), 3*height)
}

// checkFigure checks the extension of a figure's file.
func checkFigure(path string) error {
	if format := strings.ToLower(strings.TrimPrefix(filepath.Ext(path), ".")); !slices.Contains(plots.Formats(), format) {
		return fmt.Errorf("figure %q: the extension says the format, want one of .%s", path, strings.Join(plots.Formats(), ", ."))
	}
	return nil
}

// drawFigure draws the figure that run writes: accuracy against M, or learning
// curves of networks that have no common M.
func drawFigure(ctx context.Context, db *store.DB, r results, path string) error {
	list := []results{r}
	options, err := figureOptions(ctx, db, list)
	if err != nil {
		return err
	}
	if !r.study.OfPairs() {
		curves, err := learningCurves(ctx, db, list)
		if err != nil {
			return err
		}
		options.Height = curvesHeight(curves, false)
		return namingFile("save figure", path, plots.LearningCurves{Options: options, Curves: curves}.Save(path))
	}
	return namingFile("save figure", path, plots.AccuracyVsM{Options: options, Series: series(list)}.Save(path))
}

// figureOptions gives the date of the figure and the name of its accuracy.
func figureOptions(ctx context.Context, db *store.DB, list []results) (plots.Options, error) {
	var o plots.Options
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return o, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970, or nothing", text)
		}
		o.Date = time.Unix(seconds, 0).UTC()
	} else {
		for _, r := range list {
			t, err := db.Updated(ctx, r.study.Name)
			if err != nil {
				return o, err
			}
			if t.After(o.Date) {
				o.Date = t
			}
		}
	}
	if dataset, curve, same := common(list); same {
		o.AccuracyLabel = fmt.Sprintf("%s accuracy, %s (%%)", curve, strings.TrimPrefix(datasetLabel(dataset), "the "))
	}
	return o, nil
}

// common is the data set and the split of the accuracies, if they are the same.
func common(list []results) (dataset, curve string, same bool) {
	dataset, curve = list[0].study.Dataset, list[0].study.Curve
	for _, r := range list {
		if r.study.Dataset != dataset || r.study.Curve != curve {
			return "", "", false
		}
	}
	return dataset, curve, true
}

// label names a study in a legend, with what the axis does not say.
func label(r results, list []results) string {
	if _, _, same := common(list); same {
		return r.study.Name
	}
	return fmt.Sprintf("%s (%s, %s)", r.study.Name, strings.TrimPrefix(datasetLabel(r.study.Dataset), "the "), r.study.Curve)
}

// series are the accuracies of the studies, one curve each.
func series(list []results) []plots.Series {
	var all []plots.Series
	for _, r := range list {
		s := plots.Series{Name: label(r, list)}
		for _, p := range r.bySystem() {
			s.Points = append(s.Points, plots.Point{L: p.Pair().L, M: p.Pair().M, Accuracies: p.accuracies})
		}
		all = append(all, s)
	}
	return all
}

// learningCurves has a curve for each pair that has a done trial.
func learningCurves(ctx context.Context, db *store.DB, list []results) ([]plots.Curve, error) {
	type trial struct {
		system space.System
		seed   int
	}
	var all []plots.Curve
	for _, r := range list {
		done := map[trial]bool{}
		for _, t := range r.trials {
			_, ok := r.accuracy(t)
			done[trial{t.System, t.Seed}] = ok
		}
		epochs, err := db.Epochs(ctx, r.study.Name)
		if err != nil {
			return nil, err
		}
		for _, p := range r.bySystem() {
			c := plots.Curve{Name: p.Label(), Epochs: make([]plots.Epoch, r.study.Epochs)}
			if len(list) > 1 {
				c.Name = label(r, list) + " " + c.Name
			}
			for _, e := range epochs {
				if e.System != p.System || !done[trial{e.System, e.Seed}] {
					continue
				}
				at := &c.Epochs[e.Number-1]
				at.Losses = append(at.Losses, e.TrainLoss)
				if correct, total := e.Correct(r.study.Curve); total > 0 {
					at.Accuracies = append(at.Accuracies, 100*float64(correct)/float64(total))
				}
			}
			if len(p.accuracies) == 0 {
				continue
			}
			for i := range c.Epochs {
				c.Epochs[i].Number = i + 1
			}
			all = append(all, c)
		}
	}
	return all, nil
}
