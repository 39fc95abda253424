package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search"
	"igcsearch/search/analysis"
)

func (a Findings) caption() string {
	study := a.results.Study
	return fmt.Sprintf("%s: accuracy on the %s pictures of %s,"+
		" mean, standard deviation and 95 %% interval over n seeds", study.Name, study.Split,
		DatasetLabel(study.Dataset))
}

func (a Findings) header() []string {
	return append(a.results.NameHeader(), "mean (%)", "std", "95 % interval", "n", "behind best", "p (Holm)",
		"<verdict")
}

func (a Findings) rows() (rows [][]string) {
	for i, m := range a.Summaries {
		behind, p, verdict := "", "", string(a.Verdicts[i])
		if m.N > 0 && i != a.Best {
			behind, p = withHalf(a.Against[i]), probability(a.Against[i].Holm)
			switch {
			case a.dropped[i] > 0:
				verdict = "dropped"
			case a.Verdicts[i] == analysis.TooLittle:
				verdict = "too little" // a line below says "to tell": the table of a paper is narrow
			}
		}
		row := a.results.Name(a.networks[i].System, a.networks[i].Params)
		rows = append(rows, append(row, decimals(m.Mean), decimals(m.Std), interval(m), a.networks[i].N(), behind, p,
			verdict))
	}
	return rows
}

// rule says how pairs were compared, and why so.
func (a Findings) rule() string {
	tests := 0
	for _, c := range a.Against {
		if c.Test != analysis.Untested {
			tests++
		}
	}
	if tests == 0 {
		return "nothing is tested: no two of its networks have two seeds that differ"
	}
	holm := fmt.Sprintf("of freedom, p corrected by Holm for %s", Count(tests, "comparison"))
	s := a.Spreads
	why := "whether the spreads are equal cannot be told of fewer than three networks with common seeds"
	if !math.IsNaN(s.P) {
		says, limit := "the spreads seem unequal", "not more than"
		if a.Pooled {
			says, limit = "nothing says that the spreads are unequal", "more than"
		}
		why = fmt.Sprintf("%s: the largest variance, of %s, is %.0f %% of the sum, %s by Cochran's test, %s %g",
			says, a.label(s.Sample), 100*s.Share, pIs(s.P), limit, analysis.SpreadAlpha)
	}
	if a.Pooled {
		return fmt.Sprintf("by the additive model, network + seed, with one residual for all (%s points, %s %s),"+
			" because %s",
			decimals(a.Model.Spread()), Count(a.Model.Degrees, "degree"), holm, why)
	}
	return fmt.Sprintf("by paired t tests over common seeds (%s %s), because %s", a.degrees(), holm, why)
}

// degrees are those of the comparisons with the best, "2" or "2 to 4".
func (a Findings) degrees() string {
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

// pictureStd is the standard deviation, in points, of an accuracy like that of the best over drawn sets of as many
// pictures: binomial. It is NaN if their number is not known.
func (a Findings) pictureStd() float64 {
	p := a.Summaries[a.Best].Mean / 100
	return 100 * math.Sqrt(p*(1-p)/float64(a.pictures))
}

// fact is what the table does not hold: a word and a sentence.
type fact struct{ name, text string }

func (a Findings) facts() []fact {
	list := slices.Concat(a.bestFacts(), []fact{{"compared", a.rule()}}, a.verdictFacts(), a.spreadFacts(),
		a.raceFacts())
	for _, c := range a.Paper {
		list = append(list, a.paperFact(c))
	}
	if a.Curve != nil {
		list = append(list, curveFact(a.Curve))
	}
	return list
}

func (a Findings) bestFacts() []fact {
	how := "over the seeds that both have"
	if a.Pooled {
		how = "in the additive model"
	}
	text := fmt.Sprintf("%s: %s, on the %s pictures", a.label(a.Best), spellMean(a.Summaries[a.Best]),
		a.results.Study.Split)
	if a.withScores() > 1 {
		text += "; it has the largest lead over its nearest rival, " + how
	}
	list := []fact{{"best", text}}
	if a.test != nil {
		list = append(list, fact{"test", fmt.Sprintf("%s: %s, on the test pictures, which decided nothing",
			a.label(a.Best), spellMean(*a.test))})
	}
	return list
}

// verdictFacts has a line for each verdict that some network has.
func (a Findings) verdictFacts() (list []fact) {
	for _, v := range []analysis.Verdict{analysis.Separated, analysis.NotSeparated, analysis.TooLittle} {
		var names []string
		least, most := math.Inf(1), 0. // detectable differences
		for i, c := range a.Against {
			if a.Verdicts[i] != v {
				continue
			}
			names = append(names, a.label(i))
			if !math.IsNaN(c.Detectable) {
				least, most = min(least, c.Detectable), max(most, c.Detectable)
			}
		}
		if len(names) == 0 {
			continue
		}
		text := fmt.Sprintf("%d of %d: %s (%s)", len(names), a.withScores()-1, strings.Join(names, ", "),
			a.verdictText(v, least, most))
		list = append(list, fact{string(v), text})
	}
	return list
}

// verdictText says what a verdict means, with the differences that its comparisons can find.
func (a Findings) verdictText(v analysis.Verdict, least, most float64) string {
	shown := fmt.Sprintf("%.1f points", most)
	if least < most {
		shown = fmt.Sprintf("%.1f to %.1f points", least, most)
	}
	switch v {
	case analysis.Separated:
		return "significantly worse than the best"
	case analysis.NotSeparated:
		return "which does not mean equal: 80 % of such studies find a difference of " + shown +
			", and fewer find a smaller one"
	}
	text := fmt.Sprintf("one seed; or most seeds diverged; or the difference that 80 %% of such studies find is"+
		" above %.1f points, a tenth of the best's errors", a.Tells)
	if most > 0 {
		text += ": here " + shown
	}
	return text
}

func (a Findings) spreadFacts() []fact {
	if math.IsNaN(a.Spread) {
		return nil
	}
	text := fmt.Sprintf("%.2f points over seeds, pooled over the networks, all on the same %s pictures", a.Spread,
		a.results.Study.Split)
	if a.pictures > 0 {
		text += fmt.Sprintf("; the choice of pictures alone, if %d others were drawn, adds %.2f points at %.2f %%"+
			" (binomial), which no interval here contains",
			a.pictures, a.pictureStd(), a.Summaries[a.Best].Mean)
	}
	return []fact{{"spread", text}}
}

func (a Findings) raceFacts() []fact {
	if len(a.rounds) == 0 {
		if a.results.Study.Strategy == search.StrategyRace {
			return []fact{{"race", "no round is finished"}}
		}
		return nil
	}
	last := a.rounds[len(a.rounds)-1]
	var left, dropped []string
	for _, system := range last.Left {
		left = append(left, system.Label())
	}
	for i, seeds := range a.dropped {
		if seeds > 0 {
			dropped = append(dropped, fmt.Sprintf("%s after %s", a.label(i), Count(seeds, "seed")))
		}
	}
	if len(dropped) == 0 {
		dropped = []string{"none"}
	}
	return []fact{{"race", fmt.Sprintf("left after %s: %s; dropped: %s",
		Count(last.Seeds, "seed"), strings.Join(left, ", "), strings.Join(dropped, ", "))}}
}

// paperFact answers one of the paper's questions: M = 2 against M = 1 or L = 1.
func (a Findings) paperFact(c analysis.Comparison) fact {
	name := "M=2, M=1"
	if a.Samples[c.B].Pair.M != 1 {
		name = "M=2, L=1"
	}
	text := fmt.Sprintf("%s less %s: %s points", a.label(c.A), a.label(c.B), withHalf(c))
	if !math.IsNaN(c.P) {
		text += fmt.Sprintf(", %s, Holm-corrected %s", pIs(c.P), probability(c.Holm))
	}
	switch c.Test {
	case analysis.AdditiveTest:
		text += fmt.Sprintf(", additive model, %s of freedom", Count(int(c.Degrees), "degree"))
	case analysis.PairedTest:
		text += fmt.Sprintf(", paired over %s", Count(c.Common, "common seed"))
	case analysis.WelchTest:
		text += ", by Welch's test"
	default:
		text += ", not tested"
	}
	return fact{name, text}
}

func curveFact(c *analysis.Parabola) fact {
	formula := fmt.Sprintf("%.2f %+.2f·log2 M %+.2f·(log2 M)²", c.At[0], c.At[1], c.At[2])
	if c.Straight {
		formula = fmt.Sprintf("%.2f %+.2f·log2 M, a line: the accuracies do not bend down", c.At[0], c.At[1])
	}
	peak := fmt.Sprintf("highest at M = %.1f", c.Peak)
	if !math.IsNaN(c.Low) {
		peak += fmt.Sprintf(" (%.1f to %.1f)", c.Low, c.High)
	}
	return fact{"curve", fmt.Sprintf("%s; %s, %.2f %%", formula, peak, c.Height)}
}

// front is the table of the Pareto front, without a cost that is not known.
func (a Findings) front() (header []string, rows [][]string) {
	params, multiplyAdds, seconds := a.Known()
	costs := []struct {
		known bool
		head  string
		form  string
		value func(analysis.Costs) float64
	}{
		{params, "parameters", "%.0f", func(c analysis.Costs) float64 { return c.Params }},
		{multiplyAdds, "multiply–adds (10⁶)", "%.2f", func(c analysis.Costs) float64 { return c.MultiplyAdds / 1e6 }},
		{seconds, "training (ms/picture)", "%#.3g", func(c analysis.Costs) float64 { return 1000 * c.Seconds }},
	}
	header = []string{"<network", "mean (%)"}
	for _, c := range costs {
		if c.known {
			header = append(header, c.head)
		}
	}
	for i, sample := range a.Samples {
		if !a.Front[i] {
			continue
		}
		row := []string{a.label(i), decimals(a.Summaries[i].Mean)}
		for _, c := range costs {
			if c.known {
				row = append(row, fmt.Sprintf(c.form, c.value(sample.Costs)))
			}
		}
		rows = append(rows, row)
	}
	return header, rows
}

func (a Findings) frontCaption() string {
	_, rows := a.front()
	return fmt.Sprintf("Pareto front, %d of %d: no other network is at least as accurate and as cheap, and better in"+
		" one of these", len(rows), a.withScores())
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
		return fmt.Sprintf("%.2f %% of %s", m.Mean, Count(m.N, "seed"))
	}
	return fmt.Sprintf("%.2f %% (%s) of %s", m.Mean, interval(m), Count(m.N, "seed"))
}

// withHalf is a difference with the half width of its interval.
func withHalf(c analysis.Comparison) string {
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

// tables are the means and the Pareto front.
func (a Findings) tables() (means, front *Table) {
	header, rows := a.front()
	return tableOf(a.header(), a.rows()), tableOf(header, rows)
}

// Print writes the findings in one of the formats table, json, markdown and latex.
func (a Findings) Print(stdout io.Writer, format string) (err error) {
	means, front := a.tables()
	var facts strings.Builder
	switch format {
	case "json":
		return JSON(stdout, a.toJSON())
	case "latex":
		_, err = io.WriteString(stdout, a.latex())
	case "markdown":
		for _, f := range a.facts() {
			fmt.Fprintf(&facts, "* %s: %s\n", f.name, markdownEscape.Replace(f.text))
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n\n%s\n%s\n\n%s.\n", means.Markdown(),
			markdownEscape.Replace(a.caption()),
			facts.String(), front.Markdown(), a.frontCaption())
	default:
		for _, f := range a.facts() {
			fmt.Fprintf(&facts, "%-20s%s\n", f.name, f.text)
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s\n%s\n%s\n\n%s", a.caption(), means, facts.String(), a.frontCaption(),
			front)
	}
	return err
}

func (a Findings) latex() string {
	rows := a.rows()
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.Replace(cell, " to ", "–", 1) // the table is wide
		}
	}
	const style = "\\scriptsize\\setlength{\\tabcolsep}{1.8pt}"
	below := []string{"\n\\medskip\\raggedright\n"}
	for _, f := range a.facts() {
		below = append(below, fmt.Sprintf("\\textbf{%s} %s.\\par\n", latexText(f.name), latexText(f.text)))
	}
	name := a.results.Study.Name
	means := latexTable{Caption: a.caption(), Label: name + "-means", Style: style, Header: a.header(), Rows: rows,
		Below: below}
	header, rows := a.front()
	front := latexTable{Caption: a.frontCaption(), Label: name + "-pareto", Style: style, Header: header, Rows: rows}
	return latexPreamble + means.String() + "\n" + front.String()
}
