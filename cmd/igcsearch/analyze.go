package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/search/strategy"
	"igcsearch/space"
	"igcsearch/store"
)

type analyzeOptions struct {
	study, db, format string
}

func newAnalyzeCommand() *cobra.Command {
	var o analyzeOptions
	cmd := &cobra.Command{
		Use:   "analyze STUDY",
		Short: "Say which pairs are best, how certain that is, and what they cost",
		Long: `analyze answers what a study asks: the mean of each pair with its 95 % interval,
the best pair, which pairs are significantly worse, which are not separated from
it, and of which the study tells too little; M = 2 against M = 1 and against
L = 1, a concave curve of accuracy over log2 M with the bootstrap interval of its
peak, and the Pareto set over accuracy, parameters, multiply–adds and measured
training time.

Pairs are compared with one spread for all (the residual of an additive model,
pair + seed) if a check of the spreads allows it, else by paired t tests over
common seeds; Holm corrects for their number. It prints which, and why.

The validation pictures decide where the study holds some out; then the test
accuracy is told once, of the best. The same results give the same text.`,
		Example: `  igcsearch analyze quickstart

  # for a paper
  igcsearch analyze quickstart --format latex > analysis.tex`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runAnalyze(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.format, "format", "how to print the answers", "table", "json", "markdown", "latex")
	return cmd
}

func runAnalyze(ctx context.Context, o analyzeOptions, stdout, stderr io.Writer) error {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, store.Histories)
	if err != nil {
		return err
	}
	a := analyze(r)
	if a.Best < 0 {
		return fmt.Errorf("analyze %s: none of its trials is done: run it first, or look at: igcsearch status %s", r.study.Name, quote(r.study.Name))
	}
	if o.format == "json" {
		return printJSON(stdout, a.toJSON())
	}
	printWarnings(stderr, r.study.Name, a.warnings)
	switch o.format {
	case "markdown":
		return a.printMarkdown(stdout)
	case "latex":
		return a.printLatex(stdout)
	}
	return a.printTable(stdout)
}

// findings are what analysis.Analyze found, with the names of the networks.
type findings struct {
	analysis.Findings
	results
	split    string            // that decides
	systems  []systemResult    // of the arms
	test     *analysis.Summary // of the best, where validation decides
	pictures int               // that an accuracy is of
	rounds   []strategy.Round  // of a race
	dropped  []int             // by the race, after so many seeds; 0: not
	noCurve  bool              // because the pairs are not of one budget
	warnings []string
}

// label names an arm.
func (a findings) label(arm int) string { return a.systems[arm].Label() }

// withScores counts the arms that have one.
func (a findings) withScores() (n int) {
	for _, m := range a.Summaries {
		if m.N > 0 {
			n++
		}
	}
	return n
}

// decides is the split that chooses: choosing by the test pictures would make
// the accuracy on them too high.
func decides(s search.Study) string {
	if s.Validation > 0 {
		return search.SplitValidation
	}
	return search.SplitTest
}

func analyze(r results) findings {
	a := findings{split: decides(r.study)}
	r.study.Split = a.split
	a.results, a.systems = r, r.bySystem()
	arms := r.arms()
	a.Findings = analysis.Analyze(arms)
	for _, arm := range arms {
		a.pictures = max(a.pictures, arm.Pictures)
	}
	if r.study.OfPairs() {
		a.compareSameSize()
	}
	a.rounds = r.raceRounds()
	dropped := droppedAfter(a.rounds)
	for _, s := range a.systems {
		a.dropped = append(a.dropped, dropped[s.System])
	}
	if a.Best >= 0 && a.split == search.SplitValidation {
		of := r
		of.study.Split = search.SplitTest
		if m := analysis.Analyze(of.arms()).Summaries[a.Best]; m.N > 0 {
			a.test = &m
		}
	}
	a.warnings = a.warn()
	return a
}

// compareSameSize keeps what the paper asks, of M, to pairs of one budget: of
// others the larger would win by its size.
func (a *findings) compareSameSize() {
	var scored []systemResult
	var order []int // arms with a score, the highest mean first
	for i, m := range a.Summaries {
		if m.N > 0 {
			scored, order = append(scored, a.systems[i]), append(order, i)
		}
	}
	if a.Curve != nil && len(bySize(scored, a.blockParams)) > 1 {
		a.Curve, a.noCurve = nil, true
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(a.Summaries[j].Mean, a.Summaries[i].Mean) })
	// find is the best M = 2 that has another of its size, and the best of those.
	find := func(of func(space.Pair) bool) (two, other int, ok bool) {
		for _, i := range order {
			for _, j := range order {
				if i != j && a.Samples[i].Pair.M == 2 && of(a.Samples[j].Pair) && len(bySize([]systemResult{a.systems[i], a.systems[j]}, a.blockParams)) == 1 {
					return i, j, true
				}
			}
		}
		return 0, 0, false
	}
	a.Paper = nil
	for _, of := range []func(space.Pair) bool{
		func(p space.Pair) bool { return p.M == 1 },
		func(p space.Pair) bool { return p.L == 1 && p.M != 2 },
	} {
		two, other, ok := find(of)
		if !ok || slices.ContainsFunc(a.Paper, func(c analysis.Comparison) bool { return c.A == two && c.B == other }) {
			continue // L1M1 is both
		}
		a.Paper = append(a.Paper, a.Compare(two, other))
	}
	analysis.Correct(a.Paper)
}

// arms are the networks of the study in its order, with the accuracies of the
// split that its curve names.
func (r results) arms() []analysis.Sample {
	seconds := map[space.System][]float64{} // of a picture, in each epoch
	for _, t := range r.planned {
		for _, e := range t.History {
			if e.TrainSeconds > 0 && e.TrainTotal > 0 {
				seconds[t.System] = append(seconds[t.System], e.TrainSeconds/float64(e.TrainTotal))
			}
		}
	}
	var arms []analysis.Sample
	for i, t := range r.trials {
		if i == 0 || r.trials[i-1].System != t.System {
			arm := analysis.Sample{Costs: analysis.Costs{Params: float64(t.Params), MultiplyAdds: float64(t.MultiplyAdds)}}
			if r.study.OfPairs() {
				arm.Pair = t.System.Pair()
			}
			if times := seconds[t.System]; len(times) > 0 && len(r.on) == 1 {
				slices.Sort(times)
				// The median: an epoch beside other work says nothing of the network.
				arm.Costs.Seconds = stat.Quantile(0.5, stat.Empirical, times, nil)
			}
			arms = append(arms, arm)
		}
		arm := &arms[len(arms)-1]
		if percent, ok := r.accuracy(t.Trial); ok {
			_, arm.Pictures = t.Last.Correct(r.study.Split)
			arm.Scores = append(arm.Scores, analysis.Score{Seed: t.Seed, Percent: percent})
		}
		if t.Status == search.Diverged {
			arm.Diverged++
		}
	}
	return arms
}

// warn says what makes the answers less than they seem.
func (a findings) warn() []string {
	list := a.results.warnings()
	var diverged, single, other []string
	epochs := map[int]bool{}
	for _, t := range a.trials {
		if t.Status == search.Diverged && !slices.Contains(diverged, t.System.Label()) {
			diverged = append(diverged, t.System.Label())
		}
		if _, ok := a.accuracy(t.Trial); ok {
			epochs[t.Last.Number] = true
		}
	}
	seeds := 0
	for i, m := range a.Summaries {
		seeds = max(seeds, m.N)
		if m.N == 1 {
			single = append(single, a.label(i))
		}
		if a.Against[i].Test == analysis.WelchTest {
			other = append(other, a.label(i))
		}
	}
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	some := func(names []string) string { return strings.Join(names, ", ") }
	add(len(diverged) > 0, "diverged trials are left out, so that the means of %s are too high", some(diverged))
	add(len(epochs) > 1, "its trials were trained for different numbers of epochs")
	if len(single) == a.withScores() && len(single) > 1 {
		single = []string{"all of them"}
	}
	add(len(single) > 0, "one seed only (n = 1), which decides nothing: %s", some(single))
	add(len(other) > 0, "compared by Welch's test, because fewer than two seeds are common with the best: %s", some(other))
	add(a.Curve != nil && seeds > 1 && seeds < 5, "%s: the interval of the peak is too narrow, it wants 5 or more", count(seeds, "seed"))
	add(a.Pooled && seeds == 2, "2 seeds: the check of the spreads finds little, so that a best pair of a large spread may be called worse more often than in 5 %%; it wants 3 or more")
	if a.noCurve {
		var sizes []int
		for i, m := range a.Summaries {
			if m.N > 0 {
				sizes = append(sizes, a.blockParams(a.systems[i]))
			}
		}
		add(true, "no curve is fitted: its pairs have %d to %d parameters, more than 10 %% apart, so that they differ by more than M", slices.Min(sizes), slices.Max(sizes))
	}
	if s := a.study.Strategy; s == search.StrategyRace || s == search.StrategyHalving {
		add(true, "the %s chose by these results what was trained on: the p values do not know that", s)
	}
	if _, classes := a.study.Shape(); classes > 0 { // of a folder the database does not know
		list = append(list, a.results.atChance(classes)...)
	}
	add(a.split == search.SplitTest, "no validation pictures are held out: the test pictures decide, which makes the accuracy of the best on them too high")
	params, multiplyAdds, seconds := a.Known()
	add(len(a.on) > 1, "its trials ran on different devices (%s): their times are not compared", some(a.on))
	add(len(a.on) <= 1 && !seconds, "the training times of some are not stored: the Pareto set is without them")
	add(!params || !multiplyAdds, "the counts of some are not stored: the Pareto set is without them")
	return list
}

func (a findings) caption() string {
	return fmt.Sprintf("%s: accuracy on the %s pictures of %s, mean, standard deviation and 95 %% interval over n seeds",
		a.study.Name, a.split, datasetLabel(a.study.Dataset))
}

func (a findings) header() []string {
	return append(a.what(), "mean (%)", "std", "95 % interval", "n", "behind best", "p (Holm)", "<verdict")
}

func (a findings) rows() (rows [][]string) {
	for i, m := range a.Summaries {
		row := a.which(a.systems[i].System, a.systems[i].params)
		behind, p, verdict := "", "", string(a.Verdicts[i])
		if m.N > 0 && i != a.Best {
			behind, p = difference2(a.Against[i]), probability(a.Against[i].Holm)
			switch {
			case a.dropped[i] > 0:
				verdict = "dropped"
			case a.Verdicts[i] == analysis.TooLittle:
				verdict = "too little" // to tell: the line below says it, a table of a paper is narrow
			}
		}
		rows = append(rows, append(row, decimals(m.Mean), decimals(m.Std), interval(m), a.systems[i].n(), behind, p, verdict))
	}
	return rows
}

// rule says how pairs were compared, and why so.
func (a findings) rule() string {
	tests := 0
	for _, c := range a.Against {
		if c.Test != analysis.Untested {
			tests++
		}
	}
	if tests == 0 {
		return "nothing is tested: no two of its networks have two seeds that differ"
	}
	holm := fmt.Sprintf("of freedom, p corrected by Holm for %s", count(tests, "comparison"))
	s := a.Spreads
	why := "whether the spreads are equal cannot be told of fewer than three networks with common seeds"
	if !math.IsNaN(s.P) {
		says, limit := "the spreads seem unequal", "not more than"
		if a.Pooled {
			says, limit = "nothing says that the spreads are unequal", "more than"
		}
		why = fmt.Sprintf("%s: the largest variance, of %s, is %.0f %% of the sum, %s by Cochran's test, %s %g", says, a.label(s.Sample), 100*s.Share, pIs(s.P), limit, analysis.SpreadAlpha)
	}
	if a.Pooled {
		return fmt.Sprintf("by the additive model, network + seed, with one residual for all (%s points, %s %s), because %s", decimals(a.Model.Spread()), count(a.Model.Degrees, "degree"), holm, why)
	}
	return fmt.Sprintf("by paired t tests over common seeds (%s %s), because %s", a.degrees(), holm, why)
}

// degrees are those of the comparisons with the best, "2" or "2 to 4".
func (a findings) degrees() string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range a.Against {
		if c.Test != analysis.Untested {
			low, high = min(low, c.Degrees), max(high, c.Degrees)
		}
	}
	text := func(v float64) string { return strconv.FormatFloat(math.Round(10*v)/10, 'f', -1, 64) }
	switch {
	case low == 1 && high == 1:
		return "1 degree"
	case low == high:
		return text(low) + " degrees"
	}
	return text(low) + " to " + text(high) + " degrees"
}

// testSetStd is the standard deviation, in points, of an accuracy like that of
// the best over drawn sets of as many pictures: binomial. NaN if their number is
// not known.
func (a findings) testSetStd() float64 {
	p := a.Summaries[a.Best].Mean / 100
	return 100 * math.Sqrt(p*(1-p)/float64(a.pictures))
}

// facts are what the table does not hold: a word and a sentence each.
func (a findings) facts() (list [][2]string) {
	add := func(name, format string, args ...any) {
		list = append(list, [2]string{name, fmt.Sprintf(format, args...)})
	}
	how := "over the seeds that both have"
	if a.Pooled {
		how = "in the additive model"
	}
	best := fmt.Sprintf("%s: %s, on the %s pictures", a.label(a.Best), spellMean(a.Summaries[a.Best]), a.split)
	if a.withScores() > 1 {
		best += "; the one that is ahead of every other by most, " + how
	}
	add("best", "%s", best)
	if a.test != nil {
		add("test", "%s: %s, on the test pictures, which decided nothing", a.label(a.Best), spellMean(*a.test))
	}
	add("compared", "%s", a.rule())
	others := a.withScores() - 1
	for _, v := range []analysis.Verdict{analysis.Separated, analysis.NotSeparated, analysis.TooLittle} {
		var names []string
		least, most := math.Inf(1), 0.
		for i, c := range a.Against {
			if a.Verdicts[i] == v {
				names = append(names, a.label(i))
				if !math.IsNaN(c.Detectable) {
					least, most = min(least, c.Detectable), max(most, c.Detectable)
				}
			}
		}
		shown := fmt.Sprintf("%.1f points", most)
		if least < most {
			shown = fmt.Sprintf("%.1f to %.1f points", least, most)
		}
		text := map[analysis.Verdict]string{
			analysis.Separated:    "significantly worse than the best",
			analysis.NotSeparated: "which does not say equal: a difference of " + shown + " is found in 80 % of such studies, a smaller one in fewer",
			analysis.TooLittle:    fmt.Sprintf("one seed; or most seeds diverged; or a difference that is found in 80 %% of such studies is above %.1f points, a tenth of the best's errors", a.Tells),
		}[v]
		if v == analysis.TooLittle && most > 0 {
			text += ": here " + shown
		}
		if len(names) > 0 {
			add(string(v), "%d of %d: %s (%s)", len(names), others, strings.Join(names, ", "), text)
		}
	}
	if !math.IsNaN(a.Spread) {
		text := fmt.Sprintf("%.2f points over seeds, pooled over the networks, all on the same %s pictures", a.Spread, a.split)
		if a.pictures > 0 {
			text += fmt.Sprintf("; beside it the choice of pictures alone, if %d others were drawn: %.2f points at %.2f %% (binomial), which no interval here contains",
				a.pictures, a.testSetStd(), a.Summaries[a.Best].Mean)
		}
		add("spread", "%s", text)
	}
	if n := len(a.rounds); n > 0 {
		var left, dropped []string
		for _, system := range a.rounds[n-1].Left {
			left = append(left, system.Label())
		}
		for i, seeds := range a.dropped {
			if seeds > 0 {
				dropped = append(dropped, fmt.Sprintf("%s after %s", a.label(i), count(seeds, "seed")))
			}
		}
		if len(dropped) == 0 {
			dropped = []string{"none"}
		}
		add("race", "left after %s: %s; dropped: %s", count(a.rounds[n-1].Seeds, "seed"), strings.Join(left, ", "), strings.Join(dropped, ", "))
	} else if a.study.Strategy == search.StrategyRace {
		add("race", "no round is finished")
	}
	for _, c := range a.Paper {
		name := "M=2, M=1"
		if a.Samples[c.B].Pair.M != 1 {
			name = "M=2, L=1"
		}
		text := fmt.Sprintf("%s less %s: %s points", a.label(c.A), a.label(c.B), difference2(c))
		if !math.IsNaN(c.P) {
			text += fmt.Sprintf(", %s, Holm-corrected %s", pIs(c.P), probability(c.Holm))
		}
		switch c.Test {
		case analysis.AdditiveTest:
			text += fmt.Sprintf(", additive model, %s of freedom", count(int(c.Degrees), "degree"))
		case analysis.PairedTest:
			text += fmt.Sprintf(", paired over %s", count(c.Common, "common seed"))
		case analysis.WelchTest:
			text += ", by Welch's test"
		default:
			text += ", not tested"
		}
		add(name, "%s", text)
	}
	if c := a.Curve; c != nil {
		formula := fmt.Sprintf("%.2f %+.2f·log2 M %+.2f·(log2 M)²", c.At[0], c.At[1], c.At[2])
		if c.Straight {
			formula = fmt.Sprintf("%.2f %+.2f·log2 M, a line: the accuracies do not bend down", c.At[0], c.At[1])
		}
		peak := fmt.Sprintf("highest at M = %.1f", c.Peak)
		if !math.IsNaN(c.Low) {
			peak += fmt.Sprintf(" (%.1f to %.1f)", c.Low, c.High)
		}
		add("curve", "%s; %s, %.2f %%", formula, peak, c.Height)
	}
	return list
}

// front is the table of the Pareto set; without a cost that is not known.
func (a findings) front() (header []string, rows [][]string) {
	params, multiplyAdds, seconds := a.Known()
	costs := []struct {
		known bool
		head  string
		text  func(analysis.Costs) string
	}{
		{params, "parameters", func(c analysis.Costs) string { return fmt.Sprintf("%.0f", c.Params) }},
		{multiplyAdds, "multiply–adds (10⁶)", func(c analysis.Costs) string { return fmt.Sprintf("%.2f", c.MultiplyAdds/1e6) }},
		{seconds, "training (ms/picture)", func(c analysis.Costs) string { return fmt.Sprintf("%#.3g", 1000*c.Seconds) }},
	}
	header = []string{"<network", "mean (%)"}
	for _, c := range costs {
		if c.known {
			header = append(header, c.head)
		}
	}
	for i, arm := range a.Samples {
		if !a.Front[i] {
			continue
		}
		row := []string{a.label(i), decimals(a.Summaries[i].Mean)}
		for _, c := range costs {
			if c.known {
				row = append(row, c.text(arm.Costs))
			}
		}
		rows = append(rows, row)
	}
	return header, rows
}

func (a findings) frontCaption() string {
	_, rows := a.front()
	return fmt.Sprintf("Pareto set, %d of %d: no other is at least as accurate and as cheap, and better in one of these", len(rows), a.withScores())
}

// decimals is a number with two decimals, "–" if there is none.
func decimals(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

func interval(m analysis.Summary) string {
	if math.IsNaN(m.Low) {
		return "–"
	}
	return fmt.Sprintf("%.2f to %.2f", m.Low, m.High)
}

func spellMean(m analysis.Summary) string {
	if math.IsNaN(m.Low) {
		return fmt.Sprintf("%.2f %% of %s", m.Mean, count(m.N, "seed"))
	}
	return fmt.Sprintf("%.2f %% (%s) of %s", m.Mean, interval(m), count(m.N, "seed"))
}

func difference2(c analysis.Comparison) string {
	if math.IsNaN(c.Half) {
		return fmt.Sprintf("%+.2f", c.Difference)
	}
	return fmt.Sprintf("%+.2f ± %.2f", c.Difference, c.Half)
}

// pIs is a p value in words: "p = 0.012" or "p < 0.001".
func pIs(p float64) string {
	if p < 0.001 {
		return "p < 0.001"
	}
	return "p = " + probability(p)
}

func probability(p float64) string {
	switch {
	case math.IsNaN(p):
		return "–"
	case p < 0.001:
		return "<0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

// tables are the means and the Pareto set.
func (a findings) tables() (means, front *textTable) {
	means = newTable(a.header()...)
	for _, row := range a.rows() {
		means.add(row...)
	}
	header, rows := a.front()
	front = newTable(header...)
	for _, row := range rows {
		front.add(row...)
	}
	return means, front
}

func (a findings) printTable(stdout io.Writer) error {
	means, front := a.tables()
	var facts strings.Builder
	for _, f := range a.facts() {
		fmt.Fprintf(&facts, "%-20s%s\n", f[0], f[1])
	}
	_, err := fmt.Fprintf(stdout, "%s\n\n%s\n%s\n%s\n\n%s", a.caption(), means, facts.String(), a.frontCaption(), front)
	return err
}

func (a findings) printMarkdown(stdout io.Writer) error {
	means, front := a.tables()
	var facts strings.Builder
	for _, f := range a.facts() {
		fmt.Fprintf(&facts, "* %s: %s\n", f[0], markdownEscape.Replace(f[1]))
	}
	_, err := fmt.Fprintf(stdout, "%s\n\n%s.\n\n%s\n%s\n\n%s.\n", means.w.RenderMarkdown(), markdownEscape.Replace(a.caption()),
		facts.String(), front.w.RenderMarkdown(), a.frontCaption())
	return err
}

var minus = regexp.MustCompile(`(^|[ (;])([-+])(\d)`)

// latexNumbers is latexText with the signs of numbers as in formulas.
func latexNumbers(text string) string {
	text = minus.ReplaceAllString(latexText.Replace(text), `${1}$$${2}$$${3}`)
	return strings.NewReplacer("<", "$<$", "log2 M", `$\log_2 M$`).Replace(text)
}

func (a findings) printLatex(stdout io.Writer) error {
	var b strings.Builder
	table := func(caption, label string, header []string, rows [][]string) {
		fmt.Fprintf(&b, "\\begin{table}\n\\centering\\scriptsize\\setlength{\\tabcolsep}{1.8pt}\n\\caption{%s.}\n\\label{tab:%s-%s}\n\\begin{tabular}{", latexNumbers(caption), a.study.Name, label)
		heads := make([]string, len(header))
		for i, h := range header {
			name, words := strings.CutPrefix(h, "<")
			if words {
				b.WriteString("l")
			} else {
				b.WriteString("r")
			}
			heads[i] = latexNumbers(name)
			if slices.Contains([]string{"L", "M", "n"}, name) {
				heads[i] = "$" + name + "$"
			}
		}
		fmt.Fprintf(&b, "}\n\\toprule\n%s \\\\\n\\midrule\n", strings.Join(heads, " & "))
		for _, row := range rows {
			cells := make([]string, len(row))
			for i, cell := range row {
				cells[i] = latexNumbers(strings.Replace(cell, " to ", "–", 1))
			}
			fmt.Fprintf(&b, "%s \\\\\n", strings.Join(cells, " & "))
		}
		b.WriteString("\\bottomrule\n\\end{tabular}\n")
	}
	b.WriteString("% needs \\usepackage{booktabs}\n")
	table(a.caption(), "means", a.header(), a.rows())
	b.WriteString("\n\\medskip\\raggedright\n")
	for _, f := range a.facts() {
		fmt.Fprintf(&b, "\\textbf{%s} %s.\\par\n", latexNumbers(f[0]), latexNumbers(f[1]))
	}
	b.WriteString("\\end{table}\n\n")
	header, rows := a.front()
	table(a.frontCaption(), "pareto", header, rows)
	b.WriteString("\\end{table}\n")
	_, err := io.WriteString(stdout, b.String())
	return err
}

// The numbers of an analysis in JSON; null is what cannot be told.
type meanJSON struct {
	N    int      `json:"n"`
	Mean *float64 `json:"mean"` // percent
	Std  *float64 `json:"std"`
	Low  *float64 `json:"low"` // of the 95 % interval
	High *float64 `json:"high"`
}

type comparisonJSON struct {
	A          string   `json:"a"`
	B          string   `json:"b"`
	Difference float64  `json:"difference"` // of a to b, percentage points
	Low        *float64 `json:"low"`
	High       *float64 `json:"high"`
	Test       string   `json:"test"` // additive, paired, welch; empty: none
	Degrees    *float64 `json:"degrees_of_freedom"`
	P          *float64 `json:"p"`
	Holm       *float64 `json:"p_holm"`
	Detectable *float64 `json:"detectable"` // points, with power 0.8
	Common     int      `json:"common_seeds"`
}

// known is nil for NaN, and rounds what lies behind the digits of the counts.
func known(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 9, 64), 64)
	return &v
}

func toMeanJSON(m analysis.Summary) meanJSON {
	return meanJSON{m.N, known(m.Mean), known(m.Std), known(m.Low), known(m.High)}
}

func (a findings) comparisonJSON(c analysis.Comparison) comparisonJSON {
	return comparisonJSON{a.label(c.A), a.label(c.B), *known(c.Difference), known(c.Difference - c.Half), known(c.Difference + c.Half),
		string(c.Test), known(c.Degrees), known(c.P), known(c.Holm), known(c.Detectable), c.Common}
}

func (a findings) toJSON() any {
	type armJSON struct {
		Network string `json:"network"`
		L       int    `json:"L,omitempty"`
		M       int    `json:"M,omitempty"`
		meanJSON
		Params       *float64         `json:"params"` // of the network; null: not stored
		MultiplyAdds *float64         `json:"multiply_adds"`
		Seconds      *float64         `json:"train_seconds_per_picture"`
		Behind       *comparisonJSON  `json:"behind_the_best"`               // null: the best, or no result
		Verdict      analysis.Verdict `json:"verdict"`                       // empty: no result
		Dropped      int              `json:"dropped_after_seeds,omitempty"` // by the race
		Pareto       bool             `json:"pareto"`
	}
	type curveJSON struct {
		At       [3]float64 `json:"coefficients"` // of 1, log2 M and its square
		Straight bool       `json:"straight"`
		Peak     float64    `json:"peak_M"`
		Height   float64    `json:"peak"`
		Low      *float64   `json:"peak_M_low"`
		High     *float64   `json:"peak_M_high"`
	}
	type ruleJSON struct {
		Pooled  bool     `json:"pooled"` // the additive model is the test; else paired
		Why     string   `json:"why"`    // in words
		Largest *float64 `json:"largest_variance_share"`
		P       *float64 `json:"p_of_equal_spreads"`
		Level   float64  `json:"level_of_spreads"`
		Std     *float64 `json:"residual_std"` // of the additive model, points
		Degrees int      `json:"residual_degrees_of_freedom"`
		Correct string   `json:"correction"`
		Tells   float64  `json:"largest_detectable_that_tells"` // points
	}
	type spreadJSON struct {
		Std      *float64 `json:"std"` // over seeds, points, pooled over the networks
		Degrees  *float64 `json:"degrees_of_freedom"`
		TestSet  *float64 `json:"binomial_std_of_pictures"` // of the best's accuracy over drawn sets of pictures
		Pictures int      `json:"pictures"`
	}
	cost := func(v float64) *float64 {
		if v == 0 {
			return nil
		}
		return known(v)
	}
	arms := []armJSON{}
	for i, arm := range a.Samples {
		j := armJSON{Network: a.label(i), L: arm.Pair.L, M: arm.Pair.M, meanJSON: toMeanJSON(a.Summaries[i]),
			Params: cost(arm.Costs.Params), MultiplyAdds: cost(arm.Costs.MultiplyAdds), Seconds: cost(arm.Costs.Seconds),
			Verdict: a.Verdicts[i], Dropped: a.dropped[i], Pareto: a.Front[i]}
		if i != a.Best && a.Summaries[i].N > 0 {
			c := a.comparisonJSON(a.Against[i])
			j.Behind = &c
		}
		arms = append(arms, j)
	}
	paper := []comparisonJSON{}
	for _, c := range a.Paper {
		paper = append(paper, a.comparisonJSON(c))
	}
	var curve *curveJSON
	if c := a.Curve; c != nil {
		curve = &curveJSON{Straight: c.Straight, Peak: *known(c.Peak), Height: *known(c.Height), Low: known(c.Low), High: known(c.High)}
		for i, v := range c.At {
			curve.At[i] = *known(v)
		}
	}
	var testSet *float64
	if a.pictures > 0 {
		testSet = known(a.testSetStd())
	}
	var test *meanJSON
	if a.test != nil {
		m := toMeanJSON(*a.test)
		test = &m
	}
	return struct {
		Study    string           `json:"study"`
		Dataset  string           `json:"dataset"`
		Split    string           `json:"split"` // that decides
		Alpha    float64          `json:"alpha"`
		Best     string           `json:"best"`
		Test     *meanJSON        `json:"best_on_test"` // null: the test pictures decided
		Rule     ruleJSON         `json:"rule"`
		Spread   spreadJSON       `json:"spread"`
		Networks []armJSON        `json:"networks"`
		Paper    []comparisonJSON `json:"paper"`
		Curve    *curveJSON       `json:"curve"`
		Warnings []string         `json:"warnings"`
	}{a.study.Name, a.study.Dataset, a.split, *known(analysis.Alpha), a.label(a.Best), test,
		ruleJSON{a.Pooled, a.rule(), known(a.Spreads.Share), known(a.Spreads.P), analysis.SpreadAlpha, known(a.Model.Spread()), a.Model.Degrees, "Holm", *known(a.Tells)},
		spreadJSON{known(a.Spread), known(a.Degrees), testSet, a.pictures}, arms, paper, curve, append([]string{}, a.warnings...)}
}
