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

	"gonum.org/v1/gonum/stat"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/space"
	"igcsearch/store"
)

// The values of --kind that other code asks for.
const (
	kindAccuracy = "accuracy"
	kindCurves   = "curves"
	kindRace     = "race"
	kindHeatMap  = "heatmap"
)

// The values of --band.
const (
	bandNone         = "none"
	bandPosterior    = "posterior"
	bandSimultaneous = "simultaneous"
)

// kind is a value of --kind.
type kind struct {
	name  string
	about string    // for the help
	flags []string  // flags that are for this kind only
	bars  plots.Bar // the default of --bars; "" is std
	build func([]report.Results, plotOptions) (plots.Figure, error)
}

// kinds are all kinds of figures; the first is the default.
var kinds = []kind{
	{kindAccuracy, "accuracy against M, mean and error bars over the seeds",
		[]string{"points", "width-curve", "band"}, "", accuracyFigure},
	{kindCurves, `learning curves, mean and a band over the seeds; thin, those of the
             training pictures; --loss draws the losses below`, []string{"loss"}, "", curvesFigure},
	// A race tests differences, so its intervals are of means.
	{kindRace, "after each seed the pairs that were still given more, with 95 % intervals",
		nil, plots.CI95, raceFigure},
	{"pareto", "accuracy against multiply–adds or parameters (--cost)",
		[]string{"cost"}, "", paretoFigure},
	{"size", `accuracy against the width of networks (--against), with a line for each family;
             for networks that have no common M`, []string{"against", "points"}, "", sizeFigure},
	{"edf", `the share of networks whose error is below e, against e: a curve for each study, or
             of one study for each family; the error of a network is the mean of its seeds`, nil, "", edfFigure},
	{kindHeatMap, `accuracy over budget and M: studies of several budgets, or one whose
             networks differ in size; those within 10 % of parameters are a budget`, nil, "", heatMapFigure},
}

// read reads the results of the studies, and of these only the pairs of --pairs.
func (o *plotOptions) read(ctx context.Context, db *store.DB) (list []report.Results, err error) {
	missing := slices.Clone(o.pairs) // which no study has
	for _, name := range o.studies {
		r, err := readShown(ctx, db, name, o.split, store.Histories)
		if err != nil {
			return nil, err
		}
		if !o.kindAsked && len(list) == 0 && !r.Study.OfPairs() {
			o.kind = kindCurves
		}
		if o.kind == kindAccuracy && !r.Study.OfPairs() {
			return nil, fmt.Errorf("plot %s: it compares networks, which have no common M:"+
				" use --kind size or curves, or igcsearch export", r.Study.Name)
		}
		if slices.ContainsFunc(list, func(other report.Results) bool { return other.Study.Name == r.Study.Name }) {
			return nil, usageError{fmt.Errorf("study %s is given twice", r.Study.Name)}
		}
		none := "none of its trials is done: run it first, or look at"
		if len(o.pairs) > 0 {
			there := r.Study.PairList()
			missing = slices.DeleteFunc(missing, func(p space.Pair) bool { return slices.Contains(there, p) })
			r.Trials = slices.DeleteFunc(r.Trials, func(t search.TrialState) bool {
				return !slices.Contains(o.pairs, t.System.Pair())
			})
			if len(r.Trials) == 0 {
				return nil, noPairs(o.pairs, []report.Results{r})
			}
			none = fmt.Sprintf("none of its trials of %v is done: look at", &o.pairs)
		}
		if text := r.AllDiverged(); text != "" {
			return nil, fmt.Errorf("plot %s: %s", r.Study.Name, text)
		}
		if r.Done() == 0 {
			return nil, fmt.Errorf("plot %s: %s: igcsearch status %s", r.Study.Name, none, quote(r.Study.Name))
		}
		r.Label = o.labels[r.Study.Name]
		list = append(list, r)
	}
	if err := o.labels.check(names(list)); err != nil {
		return nil, usageError{err}
	}
	if len(missing) > 0 {
		return nil, noPairs(missing, list)
	}
	return list, nil
}

// noPairs is the error that the studies do not have some pairs. It lists the pairs that they have.
func noPairs(missing pairs, list []report.Results) error {
	var texts []string
	for _, r := range list {
		have := pairs(r.Study.PairList())
		texts = append(texts, fmt.Sprintf("%s has %v", r.Study.Name, &have))
	}
	return fmt.Errorf("plot: --pairs %v: no such pair: %s", &missing, strings.Join(texts, ", "))
}

// names are the names of studies.
func names(list []report.Results) (names []string) {
	for _, r := range list {
		names = append(names, r.Study.Name)
	}
	return names
}

// kindNamed returns the kind of figures that a value of --kind names.
func kindNamed(name string) kind {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })]
}

// figure builds the figure of the results that the options ask for.
func (o plotOptions) figure(list []report.Results) (plots.Figure, plots.Options, error) {
	k := kindNamed(o.kind)
	build := k.build
	if o.panels {
		if build = k.panels; len(list) < 2 || len(list) > 6 {
			return nil, plots.Options{}, usageError{fmt.Errorf("--panels draws a panel for each of 2 to 6 studies, got %d",
				len(list))}
		}
	}
	figure, err := build(list, o)
	if err != nil {
		return nil, plots.Options{}, err
	}
	options, err := figureOptions(list)
	options.Description = k.describe(list)
	if i := slices.IndexFunc(plots.Styles(), func(s plots.Style) bool { return s.Name == o.style }); i >= 0 {
		of := plots.Styles()[i].Options(o.panels || o.wide)
		options.Width, options.TextSize, options.Font = of.Width, of.TextSize, of.Font
	}
	if o.size != (size{}) {
		options.Width, options.Height = o.size.width, o.size.height
	}
	if o.font != "" {
		options.Font = plots.Font(o.font)
	}
	options.X, options.Y, options.Title = o.x.Limits, o.y.Limits, o.title
	return figure, options, err
}

// describe says in a sentence what the figure shows: of which pictures, and of how many seeds.
func (k kind) describe(list []report.Results) string {
	about, _, _ := strings.Cut(strings.Join(strings.Fields(k.about), " "), ";")
	texts := []string{strings.ToUpper(about[:1]) + about[1:]}
	for _, r := range list {
		fewest, most := math.MaxInt, 0
		for _, n := range r.Networks() {
			if seeds := len(n.Accuracies); seeds > 0 {
				fewest, most = min(fewest, seeds), max(most, seeds)
			}
		}
		n := report.Count(most, "seed")
		if fewest < most {
			n = fmt.Sprintf("%d to %s", fewest, n)
		}
		texts = append(texts, fmt.Sprintf("%s: %s, %s of each network", r.Title(), shown(r), n))
	}
	return strings.Join(texts, ". ") + "."
}

// panels has a panel for each study.
func (k kind) panels(list []report.Results, o plotOptions) (plots.Figure, error) {
	f := plots.Panels{SameY: o.sameY}
	for _, r := range list {
		own := []report.Results{r} // a build may change it
		figure, err := k.build(own, o)
		if err != nil {
			return nil, err
		}
		switch single := figure.(type) { // the panel has the name of its study
		case plots.AccuracyVsM:
			single.Series[0].Name = ""
			figure = single
		case plots.EDF:
			if len(single.Spaces) == 1 {
				single.Spaces[0].Name = ""
			}
			figure = single
		}
		f.Panels = append(f.Panels, plots.Panel{Name: r.Title(), Figure: figure,
			AccuracyLabel: fmt.Sprintf("accuracy on %s (%%)", shown(own[0]))})
	}
	return f, nil
}

// figureFormat returns the format that the extension of a figure's file names.
func figureFormat(path string) (string, error) {
	format := strings.ToLower(strings.TrimPrefix(filepath.Ext(path), "."))
	if !slices.Contains(plots.Formats(), format) {
		formats := strings.Join(plots.Formats(), ", .")
		return "", fmt.Errorf("figure %q: the extension says the format, want one of .%s", path, formats)
	}
	return format, nil
}

// figureData is the file of the numbers that a TikZ figure reads; "" for other formats.
func figureData(path string) string {
	if format, err := figureFormat(path); err != nil || format != "tikz" {
		return ""
	}
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".dat"
}

// writeFigure writes a figure in the format that the extension of its file names, and the numbers that a TikZ figure
// reads into a file beside it.
func writeFigure(path string, figure plots.Figure, o plots.Options) error {
	format, err := figureFormat(path)
	if err != nil {
		return err
	}
	if data := figureData(path); data != "" {
		o.Data = filepath.Base(data)
		if err := writeFigure(data, figure, o); err != nil {
			return err
		}
	}
	return writeFile(path, func(w io.Writer) error {
		if err := plots.Encode(w, format, figure, o); err != nil {
			return fmt.Errorf("draw %s: %w", path, err)
		}
		return nil
	})
}

// drawFigure draws the figure that run writes: accuracy against M, or the learning curves of networks that have no
// common M.
func drawFigure(r report.Results, path string) error {
	figure, options, err := runFigure(r)
	if err != nil {
		return err
	}
	return writeFigure(path, figure, options)
}

func runFigure(r report.Results) (plots.Figure, plots.Options, error) {
	o := plotOptions{kind: kindAccuracy}
	if !r.Study.OfPairs() {
		o.kind = kindCurves
	}
	return o.figure(withResults(r.Slices()))
}

// rehearseFigure draws the figure of drawFigure with made-up results, and keeps nothing: what cannot be drawn is known
// before the training. A strategy may train some networks only, so that the figure of all of them says nothing.
func rehearseFigure(study search.Study, path string) error {
	format, err := figureFormat(path)
	if err != nil {
		return err
	}
	shape, classes := study.Shape()
	study.Epochs, study.Axes = 2, study.Axes.With("epochs", nil)
	var trials []search.TrialState
	for _, t := range study.Trials(shape, max(classes, 2)) {
		state := search.TrialState{Trial: t}
		for n := range study.Epochs {
			right := 50 + t.Seed%2
			state.History = append(state.History, search.Epoch{Number: n + 1, TrainLoss: 1, TrainCorrect: right,
				TrainTotal: 100, ValidationCorrect: right, ValidationTotal: 100, TestCorrect: right, TestTotal: 100})
		}
		state.Status, state.Epoch, state.Last = search.Done, study.Epochs, state.History[study.Epochs-1]
		trials = append(trials, state)
	}
	r := report.From(store.Results{Study: study, Trials: trials})
	if study.Strategy != "" && !study.OfPairs() {
		r.Trials = r.Trials[:1]
	}
	figure, options, err := runFigure(r)
	if err != nil {
		return err
	}
	return plots.Encode(io.Discard, format, figure, options)
}

// figureOptions returns options with the date of the figure and the label of its accuracy.
func figureOptions(list []report.Results) (plots.Options, error) {
	date, given, err := sourceDate()
	if err != nil {
		return plots.Options{}, err
	}
	o := plots.Options{Date: date}
	var titles []string
	for _, r := range list {
		titles = append(titles, r.Title())
		if !given && r.Updated.After(o.Date) {
			o.Date = r.Updated
		}
	}
	o.Name = strings.Join(titles, ", ")
	if pictures, same := common(list); same {
		o.AccuracyLabel = fmt.Sprintf("accuracy on %s (%%)", pictures)
		o.Split, o.Pictures = list[0].Study.Split, list[0].Pictures()
	}
	return o, nil
}

// sourceDate is the date of figures that $SOURCE_DATE_EPOCH gives, if it is set.
func sourceDate() (date time.Time, given bool, err error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return date, false, nil
	}
	const last = 253402300799 // of the year 9999: a PDF has four digits for it
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > last {
		return date, false, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970, or nothing", text)
	}
	return time.Unix(seconds, 0).UTC(), true, nil
}

// shown names the pictures that the accuracies of a study are of: "10000 test pictures, CIFAR-10".
func shown(r report.Results) string {
	return fmt.Sprintf("%s, %s", strings.TrimPrefix(r.SplitPictures(), "the "),
		strings.TrimPrefix(report.DatasetLabel(r.Study.Dataset), "the "))
}

// common names the pictures of the accuracies, if all studies have the same.
func common(list []report.Results) (pictures string, same bool) {
	pictures = shown(list[0])
	return pictures, !slices.ContainsFunc(list, func(r report.Results) bool { return shown(r) != pictures })
}

// label names a study in a legend, with its pictures if the studies differ in these.
func label(r report.Results, list []report.Results) string {
	if r.Slice != "" {
		return sliceLabel(r, list)
	}
	if _, same := common(list); same || r.Label != "" {
		return r.Title()
	}
	return fmt.Sprintf("%s (%s)", r.Study.Name, shown(r))
}

func accuracyFigure(list []report.Results, o plotOptions) (plots.Figure, error) {
	f := plots.AccuracyVsM{Series: series(list), Bar: plots.Bar(o.bars), Seeds: o.points, WidthCurve: o.widthCurve}
	switch o.band {
	case bandPosterior:
		f.Band = plots.Pointwise
	case bandSimultaneous:
		f.Band = plots.Simultaneous
	default:
		return f, nil
	}
	for i, r := range list {
		p := r.Posterior()
		if p == nil {
			return nil, fmt.Errorf("plot %s: --band %s needs two networks with a result, two seeds of one of them, and at"+
				" most %d networks with a result", r.Study.Name, o.band, analysis.MostNetworks)
		}
		bands := p.Pointwise
		if f.Band == plots.Simultaneous {
			bands = p.Simultaneous
		}
		for k := range f.Series[i].Points {
			f.Series[i].Points[k].Expected = &plots.Expected{Mean: p.Mean[k], Low: bands[k].Low, High: bands[k].High}
		}
	}
	return f, nil
}

// series returns the accuracies of each study.
func series(list []report.Results) (all []plots.Series) {
	for _, r := range list {
		all = append(all, plots.Series{Name: label(r, list), Points: points(r.Networks())})
	}
	return all
}

func points(networks []report.Network) (list []plots.Point) {
	for _, n := range networks {
		list = append(list, plots.Point{L: n.Pair().L, M: n.Pair().M, Accuracies: n.Accuracies})
	}
	return list
}

// curvesFigure has a curve for each network that has a done trial.
func curvesFigure(list []report.Results, o plotOptions) (plots.Figure, error) {
	all := curvesOfSlices(list, search.Done)
	return plots.LearningCurves{Curves: all, Bar: plots.Bar(o.bars), Loss: o.loss}, nil
}

// curvesOf returns a curve for each network that has a trial in one of these states, over those trials.
func curvesOf(r report.Results, of ...search.Status) (list []plots.LearningCurve) {
	epochsOf := map[space.System][]plots.Epoch{}
	for _, t := range r.Trials {
		_, ok := r.Accuracy(t.Trial)
		if !slices.Contains(of, t.Status) || t.Status == search.Done && !ok || t.Epoch == 0 {
			continue
		}
		if epochsOf[t.System] == nil {
			epochsOf[t.System] = make([]plots.Epoch, r.Study.Epochs)
		}
		for _, e := range t.History {
			at := &epochsOf[t.System][e.Number-1]
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
	for _, n := range r.Networks() {
		all := epochsOf[n.System]
		for i := range all {
			all[i].Number = i + 1
			if slices.ContainsFunc(all[i].Losses, func(loss float64) bool { return math.IsInf(loss, 0) }) {
				all[i].Losses = nil // an infinite mean cannot be drawn
			}
		}
		if all != nil {
			list = append(list, plots.LearningCurve{Name: n.System.Label(), Epochs: all})
		}
	}
	return list
}

// raceFigure draws the networks of a study with the accuracies of their seeds. Only a race drops networks; of those
// it draws what they had before.
func raceFigure(list []report.Results, o plotOptions) (plots.Figure, error) {
	r := &list[0]
	if r.Study.Strategy == search.StrategyRace && o.split == "" {
		r.Study.Split = r.Study.DecidingSplit() // in the list, so that the axis names it too
	}
	dropped := report.DroppedAfter(r.RaceRounds())
	f := plots.RaceHistory{Bar: plots.Bar(o.bars)}
	for _, n := range r.Networks() {
		a := plots.RaceNetwork{Name: n.Label(), Accuracies: n.Accuracies}
		if seeds := dropped[n.System]; seeds > 0 {
			a.Dropped, a.Accuracies = true, a.Accuracies[:min(seeds, len(a.Accuracies))]
		}
		f.Networks = append(f.Networks, a)
	}
	return f, nil
}

// The values of --cost.
const (
	costMultiplyAdds = "multiply-adds"
	costParams       = "params"
)

// costs are the costs that --cost can choose.
var costs = map[string]struct {
	label string
	of    func(analysis.Costs) float64 // 0: unknown
}{
	costMultiplyAdds: {"multiply–adds of a picture (millions)",
		func(c analysis.Costs) float64 { return c.MultiplyAdds / 1e6 }},
	costParams: {"parameters of the network (thousands)",
		func(c analysis.Costs) float64 { return c.Params / 1e3 }},
}

// paretoFigure has the networks that have a result, with one of their costs.
func paretoFigure(list []report.Results, o plotOptions) (plots.Figure, error) {
	f := plots.Pareto{CostLabel: costs[o.cost].label, Bar: plots.Bar(o.bars)}
	var values [][]float64 // for the front: smaller is better in both
	for _, r := range list {
		samples := r.Samples()
		for i, n := range r.Networks() {
			if len(n.Accuracies) == 0 {
				continue
			}
			p := plots.CostPoint{Name: n.Label(), Cost: costs[o.cost].of(samples[i].Costs), Accuracies: n.Accuracies}
			if len(list) > 1 {
				p.Name = sliceName(r, list) + " " + p.Name
			}
			if p.Cost == 0 {
				return nil, fmt.Errorf("plot %s: no %s of %s are stored: choose another --cost",
					r.Study.Name, o.cost, n.Label())
			}
			f.Points, values = append(f.Points, p), append(values, []float64{-stat.Mean(n.Accuracies, nil), p.Cost})
		}
	}
	for i, front := range analysis.Front(values) {
		f.Points[i].Front = front
	}
	return f, nil
}

// The value of --against that is the default.
const againstWidth = "width"

// sizes are the sizes that --against can choose.
var sizes = map[string]struct {
	label string
	of    func(report.Network, analysis.Costs) float64 // 0: unknown
}{
	againstWidth: {"width of the first block (channels)",
		func(n report.Network, _ analysis.Costs) float64 { return float64(n.Width()) }},
	costParams: {costs[costParams].label,
		func(_ report.Network, c analysis.Costs) float64 { return costs[costParams].of(c) }},
	costMultiplyAdds: {costs[costMultiplyAdds].label,
		func(_ report.Network, c analysis.Costs) float64 { return costs[costMultiplyAdds].of(c) }},
}

// families groups the networks of a study that have a result by their family, in the order in which they come.
func families(r report.Results, list []report.Results, networks []report.Network) (groups []family) {
	for i, n := range networks {
		if len(n.Accuracies) == 0 {
			continue
		}
		at := slices.IndexFunc(groups, func(f family) bool { return f.family == n.Family })
		if at < 0 {
			at = len(groups)
			groups = append(groups, family{family: n.Family})
		}
		groups[at].members = append(groups[at].members, i)
	}
	for i := range groups {
		g := &groups[i]
		switch {
		case len(list) == 1 && len(groups) == 1:
		case len(list) == 1:
			g.name = string(g.family)
		case len(groups) == 1:
			g.name = label(r, list)
		default:
			g.name = label(r, list) + " " + string(g.family)
		}
	}
	return groups
}

// family are the networks of one family in a study.
type family struct {
	family  space.Family
	name    string // in a legend; "" if it is the only one
	members []int
}

// sizeFigure has a series for each family of each study. A point is named by the rest of the network's name.
func sizeFigure(list []report.Results, o plotOptions) (plots.Figure, error) {
	f := plots.AccuracyVsSize{SizeLabel: sizes[o.against].label, Bar: plots.Bar(o.bars), Seeds: o.points}
	for _, r := range list {
		samples, networks := r.Samples(), r.Networks()
		for _, group := range families(r, list, networks) {
			s := plots.SizeSeries{Name: group.name}
			for _, i := range group.members {
				n := networks[i]
				p := plots.SizePoint{Name: strings.TrimPrefix(n.Label(), string(n.Family)+"-"), Accuracies: n.Accuracies,
					Size: sizes[o.against].of(n, samples[i].Costs)}
				if p.Size == 0 {
					return nil, fmt.Errorf("plot %s: no %s of %s are stored: choose another --against",
						r.Study.Name, o.against, n.Label())
				}
				s.Points = append(s.Points, p)
			}
			f.Series = append(f.Series, s)
		}
	}
	return f, nil
}

// edfFigure has a design space for each study, or of one study for each of its families.
func edfFigure(list []report.Results, _ plotOptions) (plots.Figure, error) {
	var f plots.EDF
	for _, r := range list {
		networks := r.Networks()
		groups := families(r, list, networks)
		if len(list) > 1 { // a study is a space, whatever its families
			all := family{name: label(r, list)}
			for _, g := range groups {
				all.members = append(all.members, g.members...)
			}
			groups = []family{all}
		}
		for _, group := range groups {
			s := plots.DesignSpace{Name: group.name}
			for _, i := range group.members {
				s.Networks = append(s.Networks, plots.SpaceNetwork{Name: networks[i].Label(), Accuracies: networks[i].Accuracies})
			}
			f.Spaces = append(f.Spaces, s)
		}
	}
	return f, nil
}

// budget is a row of a heat map: networks of about the same parameters.
type budget struct {
	params float64
	study  string
	points []plots.Point
}

// heatMapFigure has a row for each budget, rising. In studies of pairs, each study has budgets of its own; else the
// networks of all studies that have an M are grouped together.
func heatMapFigure(list []report.Results, _ plotOptions) (plots.Figure, error) {
	var f plots.HeatMap
	var all []budget
	var networks []report.Network
	ofPairs := !slices.ContainsFunc(list, func(r report.Results) bool { return !r.Study.OfPairs() })
	for _, r := range list {
		scored := slices.DeleteFunc(r.Networks(), func(n report.Network) bool {
			return len(n.Accuracies) == 0 || n.Pair().M == 0 || !ofPairs && n.Params == 0
		})
		if !ofPairs {
			networks = append(networks, scored...)
			continue
		}
		own := budgets(scored, r.BlockParams, r.Title())
		if len(own) == 1 {
			own[0].params = meanBudget(r)
		}
		all = append(all, own...)
	}
	if !ofPairs {
		f.RowLabel = "parameters of the network"
		all = budgets(networks, func(n report.Network) int { return n.Params }, "")
	}
	if len(all) == 0 {
		return nil, errors.New("plot --kind heatmap: no network has an M and a result")
	}
	slices.SortStableFunc(all, func(a, b budget) int { return cmp.Compare(a.params, b.params) })
	named := map[string]int{}
	for _, b := range all {
		named[fmt.Sprintf("%.0f", b.params)]++
	}
	for _, b := range all {
		name := fmt.Sprintf("%.0f", b.params)
		if named[name] > 1 {
			name += " " + b.study // two studies of one budget
		}
		f.Rows = append(f.Rows, plots.Series{Name: name, Points: b.points})
	}
	return f, nil
}

// budgets returns the rows that networks form by their size.
func budgets(networks []report.Network, params func(report.Network) int, study string) (list []budget) {
	for _, group := range report.BySize(networks, params) {
		list = append(list, budget{float64(params(group[0])), study, points(group)})
	}
	return list
}

// meanBudget returns the budget of the study, or if it has none, the mean parameters of a block of its networks.
func meanBudget(r report.Results) float64 {
	if r.Study.Budget > 0 {
		return float64(r.Study.Budget)
	}
	sum, networks := 0, r.Networks()
	for _, n := range networks {
		sum += r.BlockParams(n)
	}
	return float64(sum) / float64(len(networks))
}
