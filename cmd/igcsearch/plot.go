package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/search/analysis"
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
	cost       string
	pairs      pairs // none: all
	size       size
	title      string
}

// The values of plotOptions.kind.
const (
	kindAccuracy = "accuracy"
	kindCurves   = "curves"
	kindRace     = "race"
	kindPareto   = "pareto"
	kindHeatMap  = "heatmap"
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
		Short: "Draw accuracy against M, learning curves, a race, the Pareto front, a heat map",
		Long: `plot draws the trials that are done of one or more studies of a database. --kind
says what:

  accuracy   accuracy against M, mean and error bars over the seeds
  curves     learning curves, mean and a band over the seeds; thin, those of the
             training pictures; --loss draws the losses below
  race       after each seed the pairs that were still given more, with 95 % intervals
  pareto     accuracy against parameters, multiply–adds or training time (--cost)
  heatmap    accuracy over budget and M: studies of several budgets, or one whose
             networks differ in size; those within 10 % of parameters are a budget

The extension says the format: pdf, svg, png, eps or tex, or csv for the numbers
that are drawn.

The same results give the same bytes: the date inside a figure is
$SOURCE_DATE_EPOCH, or else when the results last changed.`,
		Example: `  igcsearch plot quickstart -o quickstart.pdf

  # with each seed and the width of the networks, and the numbers as a table
  igcsearch plot quickstart -o quickstart.svg --points --width-curve --csv quickstart.csv

  # learning curves of two pairs
  igcsearch plot quickstart -o curves.png --kind curves --pairs 9x2,1x7 --loss

  # what accuracy costs, in measured training time
  igcsearch plot quickstart -o pareto.pdf --kind pareto --cost seconds

  # which pairs a race dropped, and when
  igcsearch plot quickstart -o race.pdf --kind race

  # two budgets
  igcsearch plot fig3a fig3b -o budgets.pdf --kind heatmap`,
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
			if o.kind == kindRace && !cmd.Flags().Changed("bars") {
				o.bars = string(plots.CI95) // what a race decides by
			}
			if cmd.Flags().Changed("cost") && o.kind != kindPareto {
				return usageError{errors.New("--cost is for --kind pareto: leave it out, or change --kind")}
			}
			return runPlot(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the figure's `FILE`: pdf, svg, png, eps, tex, or csv for its numbers; an existing file is replaced")
	cmd.Flags().StringVar(&o.csv, "csv", "", "also write the drawn numbers to this `FILE`")
	addChoice(cmd, &o.kind, "kind", "what to draw", kindAccuracy, kindCurves, kindRace, kindPareto, kindHeatMap)
	addChoice(cmd, &o.cost, "cost", "the cost to draw accuracy against (pareto)", costMultiplyAdds, costParams, costSeconds)
	addChoice(cmd, &o.bars, "bars", "what error bars and bands are; a race has ci95 unless told",
		string(plots.Std), string(plots.SEM), string(plots.CI95), string(plots.MinMax))
	cmd.Flags().BoolVar(&o.points, "points", false, "draw a dot for each seed (accuracy)")
	cmd.Flags().BoolVar(&o.widthCurve, "width-curve", false, "draw the width L·M too (accuracy)")
	cmd.Flags().BoolVar(&o.loss, "loss", false, "draw the losses below (curves)")
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
	if o.kind != kindAccuracy && (o.points || o.widthCurve) {
		return usageError{errors.New("--points and --width-curve are for --kind accuracy: leave them out")}
	}
	if o.kind != kindCurves && o.loss {
		return usageError{errors.New("--loss is for --kind curves: leave it out, or change --kind")}
	}
	if o.kind == kindRace && len(o.studies) > 1 {
		return usageError{fmt.Errorf("--kind race draws one STUDY, got %d", len(o.studies))}
	}
	if err := cmp.Or(notFolder("--output", o.output), notFolder("--csv", o.csv)); err != nil {
		return err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	var list []report.Results
	missing := slices.Clone(o.pairs) // which no study has
	for _, name := range o.studies {
		r, err := readResults(ctx, db, name, store.Histories)
		if err != nil {
			return err
		}
		if !o.kindAsked && len(list) == 0 && !r.Study.OfPairs() {
			o.kind = kindCurves
		}
		if o.kind == kindAccuracy && !r.Study.OfPairs() {
			return fmt.Errorf("plot %s: it compares networks, which have no common M: use --kind curves, or igcsearch export", r.Study.Name)
		}
		if slices.ContainsFunc(list, func(other report.Results) bool { return other.Study.Name == r.Study.Name }) {
			return usageError{fmt.Errorf("study %s is given twice", r.Study.Name)}
		}
		if len(o.pairs) > 0 {
			there := r.Study.PairList()
			missing = slices.DeleteFunc(missing, func(p space.Pair) bool { return slices.Contains(there, p) })
			r.Trials = slices.DeleteFunc(r.Trials, func(t search.TrialState) bool { return !slices.Contains(o.pairs, t.System.Pair()) })
			if len(r.Trials) == 0 {
				return noPairs(o.pairs, []report.Results{r})
			}
		}
		if r.Done() == 0 && len(o.pairs) > 0 {
			return fmt.Errorf("plot %s: none of its trials of %v is done: look at: igcsearch status %s", r.Study.Name, &o.pairs, quote(r.Study.Name))
		}
		if r.Done() == 0 {
			return fmt.Errorf("plot %s: none of its trials is done: run it first, or look at: igcsearch status %s", r.Study.Name, quote(r.Study.Name))
		}
		list = append(list, r)
	}
	if len(missing) > 0 {
		return noPairs(missing, list)
	}
	for _, r := range list {
		r.Warn(stderr) // not above: of two lines the error says enough
	}
	figure, err := o.figure(list)
	if err != nil {
		return err
	}
	if err := figure.Save(o.output); err != nil {
		return namingFile("save figure", o.output, err)
	}
	if o.csv != "" {
		return writeFile(o.csv, figure.CSV)
	}
	return nil
}

// figure is what all kinds of figures have.
type figure interface {
	Save(path string) error
	Encode(w io.Writer, format string) error
	CSV(w io.Writer) error
}

// figure is the one of that kind of the results.
func (o plotOptions) figure(list []report.Results) (figure, error) {
	if o.kind == kindRace && list[0].Study.Strategy == search.StrategyRace {
		list[0].Study.Split = list[0].Study.DecidingSplit() // what the race went by
	}
	options, err := figureOptions(list)
	if err != nil {
		return nil, err
	}
	options.Width, options.Height, options.Title = o.size.width, o.size.height, o.title
	bar := plots.Bar(o.bars)
	switch o.kind {
	case kindCurves:
		curves := learningCurves(list)
		var names []string
		for _, c := range curves {
			names = append(names, c.Name)
		}
		usual := 2.2
		if o.loss {
			usual = 3.4
		}
		options.Height = cmp.Or(options.Height, higher(usual, names))
		return plots.LearningCurves{Options: options, Curves: curves, Bar: bar, Loss: o.loss}, nil
	case kindRace:
		arms := raceArms(list[0])
		var names []string
		for _, a := range arms {
			names = append(names, a.Name)
		}
		options.Height = cmp.Or(options.Height, higher(2.4, names))
		return plots.RaceHistory{Options: options, Arms: arms, Bar: bar}, nil
	case kindPareto:
		points, err := costPoints(list, o.cost)
		return plots.Pareto{Options: options, Points: points, CostLabel: costs[o.cost].label, Bar: bar}, err
	case kindHeatMap:
		rows, label, err := budgets(list)
		return plots.HeatMap{Options: options, Rows: rows, RowLabel: label}, err
	}
	return plots.AccuracyVsM{Options: options, Series: series(list), Bar: bar, Seeds: o.points, WidthCurve: o.widthCurve}, nil
}

// noPairs says that studies have none of some pairs, and which they have.
func noPairs(missing pairs, list []report.Results) error {
	var texts []string
	for _, r := range list {
		have := pairs(r.Study.PairList())
		texts = append(texts, fmt.Sprintf("%s has %v", r.Study.Name, &have))
	}
	return fmt.Errorf("plot: --pairs %v: no such pair: %s", &missing, strings.Join(texts, ", "))
}

// higher is the height in inches of a figure with these names in its legend, of
// the usual height if they are few: many would take the room of what is drawn.
func higher(usual float64, names []string) float64 {
	row := 0.1
	if slices.ContainsFunc(names, func(name string) bool { return len(name) > 12 }) {
		row = 0.2 // two names to a row, not four
	}
	const few = 6 // two rows of a legend
	return min(usual+row*float64(max(0, len(names)-few)), 3*usual)
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
func drawFigure(r report.Results, path string) error {
	o := plotOptions{kind: kindAccuracy}
	if !r.Study.OfPairs() {
		o.kind = kindCurves
	}
	figure, err := o.figure([]report.Results{r})
	if err != nil {
		return err
	}
	return namingFile("save figure", path, figure.Save(path))
}

// figureOptions gives the date of the figure and the name of its accuracy.
func figureOptions(list []report.Results) (plots.Options, error) {
	var o plots.Options
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return o, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970, or nothing", text)
		}
		o.Date = time.Unix(seconds, 0).UTC()
	} else {
		for _, r := range list {
			if r.Updated.After(o.Date) {
				o.Date = r.Updated
			}
		}
	}
	if dataset, curve, same := common(list); same {
		o.AccuracyLabel = fmt.Sprintf("%s accuracy, %s (%%)", curve, strings.TrimPrefix(report.DatasetLabel(dataset), "the "))
	}
	return o, nil
}

// common is the data set and the split of the accuracies, if they are the same.
func common(list []report.Results) (dataset, curve string, same bool) {
	dataset, curve = list[0].Study.Dataset, list[0].Study.Split
	for _, r := range list {
		if r.Study.Dataset != dataset || r.Study.Split != curve {
			return "", "", false
		}
	}
	return dataset, curve, true
}

// label names a study in a legend, with what the axis does not say.
func label(r report.Results, list []report.Results) string {
	if _, _, same := common(list); same {
		return r.Study.Name
	}
	return fmt.Sprintf("%s (%s, %s)", r.Study.Name, strings.TrimPrefix(report.DatasetLabel(r.Study.Dataset), "the "), r.Study.Split)
}

// series are the accuracies of the studies, one curve each.
func series(list []report.Results) []plots.Series {
	var all []plots.Series
	for _, r := range list {
		s := plots.Series{Name: label(r, list)}
		for _, p := range r.Networks() {
			s.Points = append(s.Points, plots.Point{L: p.Pair().L, M: p.Pair().M, Accuracies: p.Accuracies})
		}
		all = append(all, s)
	}
	return all
}

// learningCurves has a curve for each network that has a done trial.
func learningCurves(list []report.Results) []plots.Curve {
	var all []plots.Curve
	for _, r := range list {
		curves := curvesOf(r, search.Done)
		for i := range curves {
			if len(list) > 1 {
				curves[i].Name = label(r, list) + " " + curves[i].Name
			}
		}
		all = append(all, curves...)
	}
	return all
}

// curvesOf has a curve for each network that has a trial in one of these states,
// over those trials.
func curvesOf(r report.Results, of ...search.Status) []plots.Curve {
	curves := map[space.System]*plots.Curve{}
	for _, t := range r.Trials {
		if _, ok := r.Accuracy(t.Trial); t.Status == search.Done && !ok || !slices.Contains(of, t.Status) || t.Epoch == 0 {
			continue
		}
		c := curves[t.System]
		if c == nil {
			c = &plots.Curve{Name: t.System.Label(), Epochs: make([]plots.Epoch, r.Study.Epochs)}
			for i := range c.Epochs {
				c.Epochs[i].Number = i + 1
			}
			curves[t.System] = c
		}
		for _, e := range t.History {
			at := &c.Epochs[e.Number-1]
			at.TrainLosses = append(at.TrainLosses, e.TrainLoss)
			if e.TrainTotal > 0 {
				at.TrainAccuracies = append(at.TrainAccuracies, 100*float64(e.TrainCorrect)/float64(e.TrainTotal))
			}
			if correct, total := e.Correct(r.Study.Split); total > 0 {
				at.Accuracies = append(at.Accuracies, 100*float64(correct)/float64(total))
			}
			if loss := e.Loss(r.Study.Split); loss != 0 {
				at.Losses = append(at.Losses, loss)
			}
		}
	}
	for _, c := range curves {
		for i := range c.Epochs {
			if at := &c.Epochs[i]; slices.ContainsFunc(at.Losses, func(loss float64) bool { return math.IsInf(loss, 0) }) {
				at.Losses = nil // their mean is no place in a figure
			}
		}
	}
	var list []plots.Curve
	for _, p := range r.Networks() {
		if c := curves[p.System]; c != nil {
			list = append(list, *c)
		}
	}
	return list
}

// raceArms are the networks of a study with the accuracies of their seeds. Only
// a race drops any; what one had before is all that is drawn of it.
func raceArms(r report.Results) []plots.RaceArm {
	dropped := report.DroppedAfter(r.RaceRounds())
	var arms []plots.RaceArm
	for _, p := range r.Networks() {
		a := plots.RaceArm{Name: p.Label(), Accuracies: p.Accuracies}
		if n := dropped[p.System]; n > 0 {
			a.Dropped, a.Accuracies = true, a.Accuracies[:min(n, len(a.Accuracies))]
		}
		arms = append(arms, a)
	}
	return arms
}

// The values of plotOptions.cost.
const (
	costMultiplyAdds = "multiply-adds"
	costParams       = "params"
	costSeconds      = "seconds"
)

// costs are what --cost chooses.
var costs = map[string]struct {
	label string
	of    func(analysis.Costs) float64 // 0: unknown
}{
	costMultiplyAdds: {"multiply–adds of a picture (millions)", func(c analysis.Costs) float64 { return c.MultiplyAdds / 1e6 }},
	costParams:       {"parameters of the network (thousands)", func(c analysis.Costs) float64 { return c.Params / 1e3 }},
	costSeconds:      {"training time of a picture (ms)", func(c analysis.Costs) float64 { return c.Seconds * 1e3 }},
}

// costPoints are the networks that have a result, with one of their costs.
func costPoints(list []report.Results, cost string) ([]plots.CostPoint, error) {
	var points []plots.CostPoint
	var on []string // devices
	for _, r := range list {
		for _, model := range r.Models {
			if !slices.Contains(on, model) {
				on = append(on, model)
			}
		}
		arms := r.Samples()
		for i, p := range r.Networks() {
			if len(p.Accuracies) == 0 {
				continue
			}
			point := plots.CostPoint{Name: p.Label(), Cost: costs[cost].of(arms[i].Costs), Accuracies: p.Accuracies}
			if len(list) > 1 {
				point.Name = r.Study.Name + " " + point.Name
			}
			if point.Cost == 0 && len(on) < 2 {
				return nil, fmt.Errorf("plot %s: no %s of %s are stored: choose another --cost", r.Study.Name, cost, p.Label())
			}
			points = append(points, point)
		}
	}
	if cost == costSeconds && len(on) > 1 {
		return nil, fmt.Errorf("plot --cost %s: the trials ran on %s, whose times are not comparable: choose another --cost", cost, strings.Join(on, ", "))
	}
	return points, nil
}

// budgets are the rows of a heat map: a study of pairs of one budget each, or the
// networks of about the same parameters; rising.
func budgets(list []report.Results) (rows []plots.Series, label string, err error) {
	type budget struct {
		params float64
		plots.Series
	}
	var all []budget
	ofPairs := !slices.ContainsFunc(list, func(r report.Results) bool { return !r.Study.OfPairs() })
	if ofPairs {
		for _, r := range list {
			pairs := slices.DeleteFunc(r.Networks(), func(p report.Network) bool { return len(p.Accuracies) == 0 })
			groups := report.BySize(pairs, r.BlockParams)
			if len(groups) == 1 {
				b := budget{float64(r.Study.Budget), series([]report.Results{r})[0]}
				if b.params == 0 {
					for _, p := range r.Networks() {
						b.params += float64(r.BlockParams(p)) / float64(len(r.Networks()))
					}
				}
				all = append(all, b)
				continue
			}
			for _, group := range groups {
				b := budget{float64(r.BlockParams(group[0])), plots.Series{Name: r.Study.Name}}
				slices.SortFunc(group, func(p, q report.Network) int { return space.ComparePairs(p.Pair(), q.Pair()) })
				for _, p := range group {
					b.Points = append(b.Points, plots.Point{L: p.Pair().L, M: p.Pair().M, Accuracies: p.Accuracies})
				}
				all = append(all, b)
			}
		}
	} else {
		label = "parameters of the network"
		var networks []report.Network
		for _, r := range list {
			for _, p := range r.Networks() {
				if p.Pair().M > 0 && p.Params > 0 && len(p.Accuracies) > 0 {
					networks = append(networks, p)
				}
			}
		}
		for _, group := range report.BySize(networks, func(p report.Network) int { return p.Params }) {
			row := budget{params: float64(group[0].Params)}
			for _, p := range group {
				point := plots.Point{L: p.Pair().L, M: p.Pair().M, Accuracies: p.Accuracies}
				if slices.ContainsFunc(row.Points, func(q plots.Point) bool { return q.L == point.L && q.M == point.M }) {
					return nil, "", fmt.Errorf("plot --kind heatmap: %s is there twice at about %.0f parameters: a cell has one network", p.Pair(), row.params)
				}
				row.Points = append(row.Points, point)
			}
			all = append(all, row)
		}
		if len(all) == 0 {
			return nil, "", errors.New("plot --kind heatmap: no network has an M and a result")
		}
	}
	slices.SortStableFunc(all, func(a, b budget) int { return cmp.Compare(a.params, b.params) })
	named := map[string]int{}
	for _, b := range all {
		named[fmt.Sprintf("%.0f", b.params)]++
	}
	for _, b := range all {
		name := fmt.Sprintf("%.0f", b.params)
		if named[name] > 1 {
			name += " " + b.Name // two studies of one budget
		}
		rows = append(rows, plots.Series{Name: name, Points: b.Points})
	}
	return rows, label, nil
}
